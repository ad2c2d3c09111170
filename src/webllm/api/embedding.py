"""Responses of embedding requests, in OpenAI's shape."""

from __future__ import annotations

from typing import ClassVar, Literal

from webllm.api.base import Response


class Embedding(Response, tag_field="object", tag="embedding"):
    object: ClassVar[Literal["embedding"]] = "embedding"

    index: int
    embedding: list[float]


class EmbeddingUsage(Response):
    prompt_tokens: int
    total_tokens: int


class CreateEmbeddingResponse(Response, tag_field="object", tag="list"):
    object: ClassVar[Literal["list"]] = "list"

    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
