"""The fields of requests as keyword arguments, so that type checkers know those of `create`.

`api.requests` describes each field; a test compares the names. `stream` is missing here: it is in
the overloads of `create`, because the type of the result depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Required, TypedDict

from webllm.api.messages import (
    ChatCompletionMessageParam,
    ChatCompletionNamedToolChoice,
    ChatCompletionTool,
)
from webllm.api.requests import ExtraBody, ResponseFormat, StreamOptions

Object = Mapping[str, Any]  # the plain form of a struct


class GenerationFields(TypedDict, total=False):
    """The fields common to chat and text completions."""

    model: str | None
    stream_options: StreamOptions | Object | None
    max_tokens: int | None
    max_completion_tokens: int | None  # OpenAI's newer name of max_tokens
    n: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    repetition_penalty: float | None
    logit_bias: Mapping[int, float] | Mapping[str, float] | None
    logprobs: bool | None
    top_logprobs: int | None
    seed: int | None
    stop: str | list[str] | None
    ignore_eos: bool
    extra_body: ExtraBody | Object | None


class ChatCompletionFields(GenerationFields, total=False):
    """The keyword arguments of `chat.completions.create`."""

    messages: Required[Sequence[ChatCompletionMessageParam | Object]]
    tools: Sequence[ChatCompletionTool | Object] | None
    tool_choice: Literal["none", "auto", "required"] | ChatCompletionNamedToolChoice | Object | None
    response_format: ResponseFormat | Object | None
    user: str | None


class CompletionFields(GenerationFields, total=False):
    """The keyword arguments of `completions.create`."""

    prompt: Required[str]
    echo: bool | None


class EmbeddingFields(TypedDict, total=False):
    """The keyword arguments of `embeddings.create`."""

    input: Required[str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]]
    model: str | None
    encoding_format: Literal["float"] | None
    user: str | None
