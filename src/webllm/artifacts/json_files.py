"""Reads the JSON files of a model."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from webllm.artifacts.checkpoint import Files, TensorInfo, TokenizerFiles
from webllm.errors import CheckpointError, UnsupportedModelError


async def whole(name: str, files: Files) -> bytes:
    """Returns a small file. Raises ModelNotFoundError if there is none."""
    return bytes(await files.load(name, 0, files.size(name)))


async def read_object(name: str, files: Files) -> dict[str, Any]:
    """Returns a file's JSON object. Raises CheckpointError for anything else."""
    return json_object(await whole(name, files), name)


def json_object(data: bytes, name: str) -> dict[str, Any]:
    """Decodes a JSON object. Raises CheckpointError, with `name`, for anything else."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name} is not JSON: {error}; fetch the model again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{name} is not a JSON object; fetch the model again")
    return value


async def tokenizer_of(
    names: Collection[str], files: Files, *settings: Mapping[str, Any]
) -> TokenizerFiles:
    """Returns the tokenizer's files; `settings` may name more tokens that end a generation.

    Raises UnsupportedModelError if there is no tokenizer.
    """
    document = next((name for name in ("tokenizer.json", "tokenizer.model") if name in names), None)
    if document is None:
        raise UnsupportedModelError(
            "the model has neither tokenizer.json nor tokenizer.model; its repository, or another "
            "copy of the model, may have one to put beside the weights"
        )
    config, template = "tokenizer_config.json", "chat_template.jinja"
    return TokenizerFiles(
        await whole(document, files),
        document == "tokenizer.json",
        await whole(config, files) if config in names else None,
        (await whole(template, files)).decode(errors="replace") if template in names else None,
        tuple(token for each in settings for token in _eos_ids(each)),
    )


def _eos_ids(settings: Mapping[str, Any]) -> list[int]:
    value = settings.get("eos_token_id")
    values = value if isinstance(value, list) else [value]
    return [each for each in values if type(each) is int and each >= 0]


class _Model(msgspec.Struct):
    vocab: dict[str, int] | list[Any]


class _Added(msgspec.Struct):
    id: int


class _Tokens(msgspec.Struct):
    model: _Model
    added_tokens: list[_Added] = []


def without_padding(
    tensors: Mapping[str, TensorInfo], tokenizer: TokenizerFiles
) -> dict[str, TensorInfo]:
    """Returns the tensors with a row of the embedding table and the output for each token.

    Checkpoints pad them with rows that no token has; without these rows none of them is drawn.
    Raises CheckpointError for a malformed tokenizer.json.
    """
    if not tokenizer.is_json:
        return dict(tensors)  # the vocabularies of SentencePiece have no padding
    try:
        found = msgspec.json.decode(tokenizer.document, type=_Tokens)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"tokenizer.json is malformed: {error}") from None
    vocab = found.model.vocab
    last = max(vocab.values(), default=-1) if isinstance(vocab, dict) else len(vocab) - 1
    num_tokens = max([last, *(token.id for token in found.added_tokens)]) + 1
    trimmed = dict(tensors)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensor = tensors.get(name)
        if tensor is not None and 0 < num_tokens < tensor.shape[0]:
            trimmed[name] = tensor.rows(name, 0, num_tokens)
    return trimmed


def num_rows(tensors: Mapping[str, TensorInfo]) -> int | None:
    """Returns the rows of the embedding table; None if there is none."""
    embedding = tensors.get("model.embed_tokens.weight")
    return embedding.shape[0] if embedding else None
