"""Responses of embedding requests, in OpenAI's shape."""

from __future__ import annotations

from typing import ClassVar, Literal

from webllm.api.base import ResponseStruct


class Embedding(ResponseStruct, tag_field="object", tag="embedding"):
    object: ClassVar[Literal["embedding"]] = "embedding"

    index: int
    embedding: list[float]


class EmbeddingUsage(ResponseStruct):
    prompt_tokens: int
    total_tokens: int


class CreateEmbeddingResponse(ResponseStruct, tag_field="object", tag="list"):
    object: ClassVar[Literal["list"]] = "list"

    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
