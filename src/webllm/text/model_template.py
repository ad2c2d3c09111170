"""Chooses a model's chat template: its own, or a built-in one that suits its vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from webllm.errors import CheckpointError
from webllm.text.builtin_templates import BUILTIN_TEMPLATES, builtin_name
from webllm.text.chat_template import ChatTemplate
from webllm.text.gguf_fields import GgufFields
from webllm.text.tokenizer import Tokenizer

_KEY = "tokenizer.chat_template"
_NAMES = "tokenizer.chat_templates"


class _NamedTemplate(msgspec.Struct):
    name: str
    template: str


class _Token(msgspec.Struct):
    content: str


class _TokenizerConfig(msgspec.Struct):
    chat_template: str | list[_NamedTemplate] | None = None
    bos_token: str | _Token | None = None
    eos_token: str | _Token | None = None


def template_from_gguf(
    metadata: Mapping[str, object],
    tokenizer: Tokenizer,
    name: str | None = None,
    builtin: str | None = None,
) -> ChatTemplate | None:
    """Returns the chat template of a GGUF file; None if it has none and no built-in one suits.

    `name` picks one of several, as in `tokenizer.chat_template.tool_use`. `builtin` names the
    built-in template that replaces the file's. Raises CheckpointError if the template is not a
    string or an array of them.
    """
    source = BUILTIN_TEMPLATES[builtin] if builtin else _source(metadata, name or "default")
    eos_id = GgufFields(metadata).token_id("eos_token_id", tokenizer.vocab_size)
    return _template(
        source,
        tokenizer,
        _spelling(tokenizer, tokenizer.bos_id),
        _spelling(tokenizer, eos_id),
    )


def _source(metadata: Mapping[str, object], name: str) -> str | None:
    """The template called `name`, else the default, else the first.

    A file has one as a string, and others by name; or an array, whose names are a second array.
    """
    source = metadata.get(f"{_KEY}.{name}", metadata.get(_KEY))
    names = metadata.get(_NAMES)
    names = list(names) if isinstance(names, Sequence) else []
    if source is None and names:
        source = metadata.get(f"{_KEY}.{names[0]}")
    if isinstance(source, Sequence) and not isinstance(source, str | bytes):
        named = dict(zip(names, source, strict=False))
        source = named.get(name, named.get("default", next(iter(source), None)))
    if source is not None and not isinstance(source, str):
        raise CheckpointError(f"{_KEY} must be a string; the file has a {type(source).__name__}")
    return source


def template_from_config(
    config: bytes,
    tokenizer: Tokenizer,
    name: str | None = None,
    source: str | None = None,
    builtin: str | None = None,
) -> ChatTemplate | None:
    """Returns the chat template of a `tokenizer_config.json`; None as in `template_from_gguf`.

    `name` picks one of several; without it, "default" or else the first is taken. `source` (the
    `chat_template.jinja` beside it) replaces the document's, and `builtin` names the built-in
    template that replaces both. Raises CheckpointError if the document
    is malformed.
    """
    try:
        parsed = msgspec.json.decode(config, type=_TokenizerConfig)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"tokenizer_config.json is malformed: {error}") from error
    found = parsed.chat_template
    if isinstance(found, list):
        named = {entry.name: entry.template for entry in found}
        first = next(iter(named.values()), None)
        found = named.get(name or "default", named.get("default", first))
    source = found if source is None else source
    if builtin is not None:
        source = BUILTIN_TEMPLATES[builtin]
    return _template(source, tokenizer, _content(parsed.bos_token), _content(parsed.eos_token))


def _template(
    source: str | None, tokenizer: Tokenizer, bos_token: str, eos_token: str
) -> ChatTemplate | None:
    if source is None:
        builtin = builtin_name(tokenizer.token_id)
        source = BUILTIN_TEMPLATES[builtin] if builtin else None
    if source is None:
        return None
    return ChatTemplate(source, bos_token=bos_token, eos_token=eos_token)


def _spelling(tokenizer: Tokenizer, token_id: int | None) -> str:
    return "" if token_id is None else tokenizer.decode([token_id], skip_special=False)


def _content(token: str | _Token | None) -> str:
    return token.content if isinstance(token, _Token) else token or ""
