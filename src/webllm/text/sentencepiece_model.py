"""Makes a tokenizer from SentencePiece's `tokenizer.model`, for models without a `tokenizer.json`.

The file is a protobuf (`sentencepiece_model.proto`), of which a few fields matter. Its vocabulary
is that of GGUF's "llama" kind, which reads it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from webllm.errors import CheckpointError, UnsupportedModelError
from webllm.text.gguf_tokenizer import TokenType, tokenizer_from_gguf
from webllm.text.tokenizer import ModelTokenizer

_KINDS = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
_BPE = 2
_NONE = 2**64 - 1  # -1 as a varint
# Field numbers
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_TEXT, _SCORE, _TYPE = 1, 2, 3
_MODEL_TYPE, _SUFFIX, _UNK_ID, _BOS_ID, _EOS_ID = 3, 24, 40, 41, 42
_CHARSMAP, _PREFIX, _TRIM, _ESCAPE = 2, 3, 4, 5

_Fields = dict[int, int | bytes]


def tokenizer_from_sentencepiece(document: bytes) -> ModelTokenizer:
    """Makes the tokenizer of a `tokenizer.model`.

    Raises UnsupportedModelError for other kinds than BPE and for normalization, CheckpointError if
    the file is malformed.
    """
    try:
        return tokenizer_from_gguf(_metadata(document))
    except (IndexError, UnicodeDecodeError, struct.error, TypeError) as error:
        raise CheckpointError(f"tokenizer.model is malformed: {error}") from error


def _metadata(document: bytes) -> dict[str, object]:
    """Returns the file's fields as GGUF has them; the numbers of token types are the same."""
    tokens: list[str] = []
    scores: list[float] = []
    types: list[int] = []
    specs: dict[int, _Fields] = {_TRAINER: {}, _NORMALIZER: {}}
    for number, value in _fields(document):
        if number == _PIECES and isinstance(value, bytes):
            piece = dict(_fields(value))
            tokens.append(_blob(piece, _TEXT).decode())
            scores.append(struct.unpack("<f", _blob(piece, _SCORE) or bytes(4))[0])
            types.append(_number(piece, _TYPE, TokenType.NORMAL))
        elif number in specs and isinstance(value, bytes):
            specs[number] |= dict(_fields(value))
    trainer, normalizer = specs[_TRAINER], specs[_NORMALIZER]
    _check(trainer, normalizer)
    metadata: dict[str, object] = {
        "model": "llama",
        "tokens": tokens,
        "scores": scores,
        "token_type": types,
        "unknown_token_id": _number(trainer, _UNK_ID, 0),
        "add_space_prefix": bool(_number(normalizer, _PREFIX, 1)),
    }
    for name, field, default in (("bos", _BOS_ID, 1), ("eos", _EOS_ID, 2)):
        token_id = _number(trainer, field, default)
        metadata[f"{name}_token_id"] = -1 if token_id == _NONE else token_id
    metadata["add_bos_token"] = metadata["bos_token_id"] != -1
    return {f"tokenizer.ggml.{name}": value for name, value in metadata.items()}


def _check(trainer: _Fields, normalizer: _Fields) -> None:
    """Raises UnsupportedModelError for what the tokenizer does and we do not."""
    kind = _number(trainer, _MODEL_TYPE, 1)
    found = {
        f"kind {_KINDS.get(kind, kind)!r}": kind != _BPE,
        "treat_whitespace_as_suffix": _number(trainer, _SUFFIX, 0) != 0,
        "precompiled_charsmap": bool(_blob(normalizer, _CHARSMAP)),
        "remove_extra_whitespaces": _number(normalizer, _TRIM, 1) != 0,
        "escape_whitespaces off": _number(normalizer, _ESCAPE, 1) == 0,
    }
    for name, is_found in found.items():
        if is_found:
            raise UnsupportedModelError(
                f"tokenizer.model with {name} is not supported; the model's tokenizer.json may "
                "work instead"
            )


def _number(fields: _Fields, number: int, default: int) -> int:
    value = fields.get(number, default)
    if not isinstance(value, int):
        raise CheckpointError(f"tokenizer.model is malformed: field {number} is no number")
    return value


def _blob(fields: _Fields, number: int) -> bytes:
    value = fields.get(number, b"")
    if not isinstance(value, bytes):
        raise CheckpointError(f"tokenizer.model is malformed: field {number} is no string")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields the fields of a message: number and value, of a fixed-size number its bytes."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, position = _varint(data, position)
            yield number, value
            continue
        if wire_type == 2:
            size, position = _varint(data, position)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise CheckpointError(f"tokenizer.model is malformed: wire type {wire_type}")
        if position + size > len(data):
            raise CheckpointError("tokenizer.model is malformed: it ends inside a field")
        yield number, data[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while data[position] & 0x80:
        value |= (data[position] & 0x7F) << shift
        shift += 7
        position += 1
        if shift > 63:
            raise CheckpointError("tokenizer.model is malformed: a number is too long")
    return value | data[position] << shift, position + 1
