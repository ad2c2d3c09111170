"""Responses about the loaded models, in OpenAI's shape."""

from __future__ import annotations

from typing import ClassVar, Literal

from webllm.api.base import ResponseStruct


class ModelInfo(ResponseStruct, tag_field="object", tag="model"):
    object: ClassVar[Literal["model"]] = "model"

    id: str
    created: int  # Unix time, seconds
    owned_by: str


class ModelList(ResponseStruct, tag_field="object", tag="list"):
    object: ClassVar[Literal["list"]] = "list"

    data: list[ModelInfo]
