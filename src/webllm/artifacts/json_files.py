"""Reads the JSON files of a model."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from webllm.artifacts.checkpoint import Files, JSONTokenizer
from webllm.errors import CheckpointError, UnsupportedModelError


async def whole(name: str, files: Files) -> bytes:
    """Returns a small file. Raises ModelNotFoundError if there is none."""
    return bytes(await files.load(name, 0, files.size(name)))


async def json_object(name: str, files: Files) -> dict[str, Any]:
    """Returns a file's JSON object. Raises CheckpointError for anything else."""
    return parsed(await whole(name, files), name)


def parsed(data: bytes, name: str) -> dict[str, Any]:
    """Returns the JSON object `data`. Raises CheckpointError, with `name`, for anything else."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{name} is not a JSON object")
    return value


async def tokenizer_of(names: Collection[str], files: Files) -> JSONTokenizer:
    """Returns the tokenizer's files. Raises UnsupportedModelError if there is no tokenizer.json."""
    if "tokenizer.json" not in names:
        raise UnsupportedModelError(
            "the model has no tokenizer.json; its repository, or another copy of the model, may "
            "have one to put beside the weights"
        )
    config = "tokenizer_config.json"
    template = "chat_template.jinja"
    return JSONTokenizer(
        await whole("tokenizer.json", files),
        await whole(config, files) if config in names else None,
        (await whole(template, files)).decode(errors="replace") if template in names else None,
    )
