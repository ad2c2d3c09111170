"""Responses and stream chunks of chat completions, in OpenAI's shape."""

from __future__ import annotations

from typing import ClassVar, Literal

from webllm.api.base import CHOICES_APART, ResponseStruct
from webllm.api.usage import CompletionUsage, PromptProgress

FinishReason = Literal["stop", "length", "tool_calls", "abort"]


class TopLogprob(ResponseStruct):
    token: str
    bytes: list[int] | None  # UTF-8; None if the token is a part of a character
    logprob: float


class ChatCompletionTokenLogprob(ResponseStruct):
    token: str
    bytes: list[int] | None
    logprob: float
    top_logprobs: list[TopLogprob]


class Logprobs(ResponseStruct):
    content: list[ChatCompletionTokenLogprob] | None


class FunctionCall(ResponseStruct):
    name: str
    arguments: str  # JSON as the model wrote it, perhaps invalid


class ChatCompletionMessageToolCall(ResponseStruct, tag_field="type", tag="function"):
    type: ClassVar[Literal["function"]] = "function"

    id: str
    function: FunctionCall


class ChatCompletionMessage(ResponseStruct, tag_field="role", tag="assistant"):
    role: ClassVar[Literal["assistant"]] = "assistant"

    content: str | None
    tool_calls: list[ChatCompletionMessageToolCall] | None = None


class Choice(ResponseStruct):
    index: int
    message: ChatCompletionMessage
    finish_reason: FinishReason
    logprobs: Logprobs | None
    token_ids: list[int] | None = None  # with `return_token_ids`


class ChatCompletion(ResponseStruct, tag_field="object", tag="chat.completion"):
    object: ClassVar[Literal["chat.completion"]] = "chat.completion"

    id: str
    created: int  # Unix time, seconds
    model: str
    choices: list[Choice]
    usage: CompletionUsage | None = None
    system_fingerprint: str | None = None

    def _repr_markdown_(self) -> str:
        """The text that notebooks show: all choices."""
        return CHOICES_APART.join(choice.message.content or "" for choice in self.choices)


class FunctionCallDelta(ResponseStruct):
    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(ResponseStruct):
    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionCallDelta | None = None


class Delta(ResponseStruct):
    """The additions of a chunk to its choice's message."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChunkChoice(ResponseStruct):
    index: int
    delta: Delta
    finish_reason: FinishReason | None
    logprobs: Logprobs | None = None
    token_ids: list[int] | None = None  # since the last chunk; with `return_token_ids`


class ChatCompletionChunk(ResponseStruct, tag_field="object", tag="chat.completion.chunk"):
    """One chunk of a stream; chunks with `prompt_progress` or `usage` have no `choices`."""

    object: ClassVar[Literal["chat.completion.chunk"]] = "chat.completion.chunk"

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: CompletionUsage | None = None
    system_fingerprint: str | None = None
    prompt_progress: PromptProgress | None = None  # with `return_progress`
