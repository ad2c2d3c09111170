"""Makes a tokenizer from Hugging Face's `tokenizer.json` and `tokenizer_config.json`.

The `tokenizers` library encodes where it is installed, else our `JsonEncoder`, which gives the same
ids. The vocabulary is read here, so that decoding and streaming work the same for every model file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from webllm.errors import CheckpointError, UnsupportedModelError
from webllm.text.guarded_encoder import GuardedEncoder, PlainEncoder
from webllm.text.json_encoder import AddedToken, BpeTable, JsonEncoder, matcher
from webllm.text.tokenizer import Coverage, ModelTokenizer, byte_level_coverage
from webllm.text.tokenizer_library import has_library, load_encoder
from webllm.text.vocabulary import (
    END_NAMES,
    END_NAMES_IF_CONTROL,
    SPACE_MARK,
    Vocabulary,
    byte_level_alphabet,
    byte_level_speller,
    end_ids,
    find_tokens,
    sentencepiece_bytes,
)

# A file with larger ids is malformed: the largest known vocabulary has 262,144 tokens.
_MAX_TOKENS = 2**21
# Normalizers and pre-tokenizers that leave out nothing; NFC composes characters.
_KEEPING_TEXT = frozenset({"ByteLevel", "Digits", "Metaspace", "NFC", "Prepend", "Sequence"})


class _Document(msgspec.Struct):
    model: BpeTable
    added_tokens: list[AddedToken] = []
    normalizer: Any = None
    pre_tokenizer: Any = None
    post_processor: Any = None
    decoder: Any = None


class _Named(msgspec.Struct):
    content: str


class _BosEos(msgspec.Struct):
    bos_token: str | _Named | None = None
    eos_token: str | _Named | None = None


def tokenizer_from_json(
    document: bytes,
    config: bytes | None = None,
    vocab_size: int | None = None,
    eos_ids: Iterable[int] = (),
) -> ModelTokenizer:
    """Makes the tokenizer of a `tokenizer.json`; `config` is the `tokenizer_config.json` beside it.

    vocab_size: rows of the model's embedding table; tokens beyond them are left out. eos_ids: end
    a generation according to the model's other files, besides those that the tokenizer names.
    Raises CheckpointError for malformed documents, UnsupportedModelError for kinds whose tokens
    have no fixed bytes (WordPiece) and, without the `tokenizers` library, for components that only
    it has.
    """
    try:
        parsed = msgspec.json.decode(document, type=_Document)
        settings = msgspec.json.decode(config, type=_BosEos) if config else _BosEos()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"tokenizer.json or its config is malformed: {error}") from error
    parts = list(_parts([parsed.normalizer, parsed.pre_tokenizer, parsed.decoder]))
    is_byte_level = any(part["type"] == "ByteLevel" for part in parts)
    is_spaced = parsed.model.byte_fallback or any(_marks_spaces(part) for part in parts)
    if not is_byte_level and not is_spaced:
        raise UnsupportedModelError(
            f"tokenizer.json of kind {parsed.model.type!r} is not supported: neither byte-level "
            "nor SentencePiece-like"
        )
    tokens = _tokens(parsed)[:vocab_size]
    special = [token for token in parsed.added_tokens if token.special]
    special_ids = frozenset(token.id for token in special)
    bos, eos = _name(settings.bos_token), _name(settings.eos_token)
    names = END_NAMES | END_NAMES_IF_CONTROL | {bos, eos} | byte_level_alphabet().keys()
    ids = find_tokens(tokens, names - {""})
    vocabulary = Vocabulary(
        tokens,
        byte_level_speller() if is_byte_level else sentencepiece_bytes,
        special_ids,
        frozenset(t.id for t in parsed.added_tokens if is_byte_level and not t.special),
        ids.get(bos),
        end_ids(ids, special_ids, [ids.get(eos), *eos_ids]),
        not is_byte_level and any(_adds_space(part) for part in parts),
    )
    encoder = GuardedEncoder(_encoder(document, parsed), matcher(special))
    return ModelTokenizer(vocabulary, encoder, _coverage(parsed, ids, is_byte_level))


def _coverage(parsed: _Document, ids: Mapping[str, int], is_byte_level: bool) -> Coverage | None:
    parts = list(_parts([parsed.normalizer, parsed.pre_tokenizer]))
    strips = any(token.lstrip or token.rstrip for token in parsed.added_tokens)
    if strips or any(map(_may_shorten, parts)):
        return None
    if is_byte_level:
        return byte_level_coverage(ids, nfc=any(part["type"] == "NFC" for part in parts))
    return Coverage() if parsed.model.byte_fallback else None


def _may_shorten(part: dict[str, Any]) -> bool:
    if part["type"] == "Replace":
        return (_text(part.get("pattern")), part.get("content")) != (" ", SPACE_MARK)
    if "behavior" in part:
        return bool(part["behavior"] == "Removed")
    return part["type"] not in _KEEPING_TEXT


def _encoder(document: bytes, parsed: _Document) -> PlainEncoder:
    if has_library():
        return load_encoder(document)
    return JsonEncoder(
        parsed.model,
        parsed.added_tokens,
        parsed.normalizer,
        parsed.pre_tokenizer,
        parsed.post_processor,
    )


def _tokens(parsed: _Document) -> list[str]:
    vocab = parsed.model.vocab
    pairs = (
        [(i, text) for text, i in vocab.items()]
        if isinstance(vocab, dict)
        else [(i, text) for i, (text, _) in enumerate(vocab)]
    )
    pairs += [(token.id, token.content) for token in parsed.added_tokens]
    num_tokens = max((token_id for token_id, _ in pairs), default=-1) + 1
    if num_tokens > _MAX_TOKENS or any(token_id < 0 for token_id, _ in pairs):
        raise CheckpointError(f"tokenizer.json has token ids outside 0..{_MAX_TOKENS - 1}")
    tokens = [""] * num_tokens
    for token_id, text in pairs:
        tokens[token_id] = text
    return tokens


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    """Yields every component of a normalizer, pre-tokenizer or decoder, also inside sequences."""
    if isinstance(value, dict):
        if isinstance(value.get("type"), str):
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _parts(inner)


def _marks_spaces(part: dict[str, Any]) -> bool:
    if part["type"] == "Replace":
        return SPACE_MARK in (part.get("content"), _text(part.get("pattern")))
    return bool(part["type"] == "Metaspace")


def _adds_space(part: dict[str, Any]) -> bool:
    if part["type"] == "Metaspace":
        return bool(part.get("prepend_scheme", "always") != "never")
    return bool(part["type"] == "Prepend" and part.get("prepend") == SPACE_MARK)


def _text(pattern: Any) -> Any:
    return pattern.get("String") if isinstance(pattern, dict) else pattern


def _name(token: str | _Named | None) -> str:
    if isinstance(token, _Named):
        return token.content
    return token or ""
