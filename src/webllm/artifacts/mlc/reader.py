"""Reads the documents of an MLC folder."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from zlib import crc32

from webllm.artifacts.checkpoint import Description, Files
from webllm.artifacts.json_files import (
    json_object,
    num_rows,
    read_object,
    tokenizer_of,
    whole,
    without_padding,
)
from webllm.artifacts.mlc.config import config_from_chat_config, defaults_from_chat_config
from webllm.artifacts.mlc.tensors import read_cache, shard_sizes, tensors_from_cache
from webllm.artifacts.needed import MLC_CONFIG, TENSOR_CACHES
from webllm.errors import CheckpointError


async def describe(names: Collection[str], files: Files) -> Description:
    """Describes the model in an MLC folder.

    Raises CheckpointError for a malformed or incomplete one, UnsupportedModelError for a
    quantization or tokenizer that webllm does not read.
    """
    chat = await read_object(MLC_CONFIG, files)
    cache_name = next(name for name in TENSOR_CACHES if name in names)
    document = await whole(cache_name, files)
    config, cache = config_from_chat_config(chat), read_cache(json_object(document, cache_name))
    tensors = tensors_from_cache(cache, config)
    for name, size in shard_sizes(cache).items():
        if name not in names:
            raise CheckpointError(f"{cache_name} places tensors in no known shard: {name}")
        if files.size(name) != size:
            raise CheckpointError(
                f"{name} has {files.size(name)} bytes, expected {size}; download it again"
            )
    config["tie_word_embeddings"] = "lm_head.weight" not in tensors
    tokenizer = await tokenizer_of(names, files)
    tensors = without_padding(tensors, tokenizer)
    config["vocab_size"] = num_rows(tensors)
    return Description(
        config,
        tensors,
        tokenizer,
        f"{crc32(document, crc32(repr(sorted(config.items(), key=str)).encode())):08x}",
        conv_template=_conv_template(chat),
        defaults=defaults_from_chat_config(chat),
    )


def _conv_template(chat: Mapping[str, Any]) -> Mapping[str, Any] | str | None:
    template = chat.get("conv_template")
    if template is not None and not isinstance(template, dict | str):
        raise CheckpointError(
            f"conv_template of {MLC_CONFIG} is {str(template)[:80]}, neither an object nor a name"
        )
    return template
