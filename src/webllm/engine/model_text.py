"""What a model file says about text: its tokenizer, its chat format, its sampling defaults."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from webllm.artifacts.auto import local_sha256
from webllm.artifacts.checkpoint import Checkpoint, GGUFTokenizer, TokenizerFiles
from webllm.config import AppConfig, ChatOptions, ModelRecord, read_config
from webllm.engine.chat_format import ChatFormat, ConvFormat, JinjaFormat
from webllm.errors import ConfigError
from webllm.text.chat_template import ChatTemplate
from webllm.text.conv_template import conv_template_from_json
from webllm.text.gguf_tokenizer import tokenizer_from_gguf
from webllm.text.json_tokenizer import tokenizer_from_json
from webllm.text.model_template import template_from_config, template_from_gguf
from webllm.text.sentencepiece_model import tokenizer_from_sentencepiece
from webllm.text.tokenizer import Tokenizer

_log = logging.getLogger(__name__)


def make_tokenizer(
    checkpoint: Checkpoint, options: ChatOptions
) -> tuple[Tokenizer, ChatFormat | None]:
    """Returns the tokenizer, and the chat format if there is a template.

    `options` come before the file's. An MLC file's `conv_template` comes before its Jinja template,
    so that a conversation is written as WebLLM writes it. Raises CheckpointError,
    UnsupportedModelError, ConfigError.
    """
    tokenizer, template = _tokenizer_and_template(checkpoint, options)
    conv_template: Mapping[str, Any] | str | None = options.conv_template
    if conv_template is None and options.builtin_template is None:
        conv_template = checkpoint.conv_template
    if conv_template is not None:
        return tokenizer, ConvFormat(conv_template_from_json(conv_template))
    return tokenizer, JinjaFormat(template) if template else None


def _tokenizer_and_template(
    checkpoint: Checkpoint, options: ChatOptions
) -> tuple[Tokenizer, ChatTemplate | None]:
    builtin = options.builtin_template
    match checkpoint.tokenizer:
        case GGUFTokenizer(metadata):
            tokenizer = tokenizer_from_gguf(metadata)
            return tokenizer, template_from_gguf(metadata, tokenizer, builtin=builtin)
        case TokenizerFiles(document, is_json, config, source, eos_ids):
            if is_json:
                embedding = checkpoint.tensors.get("model.embed_tokens.weight")
                num_rows = embedding.shape[0] if embedding else None
                tokenizer = tokenizer_from_json(document, config, num_rows, eos_ids)
            else:
                tokenizer = tokenizer_from_sentencepiece(document)
            return tokenizer, template_from_config(
                config or b"{}", tokenizer, source=source, builtin=builtin
            )


async def known_overrides(record: ModelRecord, catalogue: AppConfig) -> ChatOptions | None:
    """Returns the overrides of the catalogue's model that the file of `record` is, by its hash."""
    if record.overrides is not None:
        return None
    known = {each.sha256: each for each in catalogue.model_list if each.sha256 and each.overrides}
    sizes = [each.size_bytes for each in known.values() if each.size_bytes is not None]
    sha256 = record.sha256 or await local_sha256(record.model, sizes)
    return known[sha256].overrides if sha256 in known else None


def with_defaults(options: ChatOptions, checkpoint: Checkpoint) -> ChatOptions:
    """Completes options by the sampling defaults of the file; values out of range are left out."""
    for name, value in checkpoint.defaults.items():
        try:
            options = options.over(read_config({name: value}, ChatOptions))
        except ConfigError as error:
            _log.warning("a sampling default of the model file is left out: %s", error)
    return options
