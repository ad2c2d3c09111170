"""OpenAI's spelling of an engine's methods: `engine.chat.completions.create(...)` and the like.

It works with anything that has the methods `chat_completion`, `completion` and `embedding`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Literal, Protocol, Unpack, overload

from webllm.api.chat_completion import ChatCompletion, ChatCompletionChunk
from webllm.api.completion import Completion
from webllm.api.embedding import CreateEmbeddingResponse
from webllm.api.fields import ChatCompletionFields, CompletionFields, EmbeddingFields
from webllm.api.requests import ChatCompletionRequest, CompletionRequest, EmbeddingRequest

ChatStream = AsyncGenerator[ChatCompletionChunk, None]
CompletionStream = AsyncGenerator[Completion, None]


class SupportsChat(Protocol):
    async def chat_completion(
        self, request: ChatCompletionRequest | Mapping[str, object]
    ) -> ChatCompletion | ChatStream: ...


class SupportsCompletion(Protocol):
    async def completion(
        self, request: CompletionRequest | Mapping[str, object]
    ) -> Completion | CompletionStream: ...


class SupportsEmbedding(Protocol):
    async def embedding(
        self, request: EmbeddingRequest | Mapping[str, object]
    ) -> CreateEmbeddingResponse: ...


class ChatCompletions:
    def __init__(self, engine: SupportsChat) -> None:
        self._engine = engine

    @overload
    async def create(
        self, *, stream: Literal[True], **fields: Unpack[ChatCompletionFields]
    ) -> ChatStream: ...
    @overload
    async def create(
        self, *, stream: Literal[False] | None = None, **fields: Unpack[ChatCompletionFields]
    ) -> ChatCompletion: ...
    @overload
    async def create(
        self, *, stream: bool | None, **fields: Unpack[ChatCompletionFields]
    ) -> ChatCompletion | ChatStream: ...
    async def create(self, **fields: object) -> ChatCompletion | ChatStream:
        """Answers a conversation; takes the fields of `ChatCompletionRequest`."""
        return await self._engine.chat_completion(fields)


class Chat:
    def __init__(self, engine: SupportsChat) -> None:
        self.completions = ChatCompletions(engine)


class Completions:
    def __init__(self, engine: SupportsCompletion) -> None:
        self._engine = engine

    @overload
    async def create(
        self, *, stream: Literal[True], **fields: Unpack[CompletionFields]
    ) -> CompletionStream: ...
    @overload
    async def create(
        self, *, stream: Literal[False] | None = None, **fields: Unpack[CompletionFields]
    ) -> Completion: ...
    @overload
    async def create(
        self, *, stream: bool | None, **fields: Unpack[CompletionFields]
    ) -> Completion | CompletionStream: ...
    async def create(self, **fields: object) -> Completion | CompletionStream:
        """Continues a text; takes the fields of `CompletionRequest`."""
        return await self._engine.completion(fields)


class Embeddings:
    def __init__(self, engine: SupportsEmbedding) -> None:
        self._engine = engine

    async def create(self, **fields: Unpack[EmbeddingFields]) -> CreateEmbeddingResponse:
        """Embeds texts; takes the fields of `EmbeddingRequest`."""
        return await self._engine.embedding(fields)
