"""The fields of requests as keyword arguments, so that type checkers know what `create` takes.

`api.requests` says what each means and allows; a test holds these to the same names. `stream` is
left to the overloads of `create`, because it decides what that returns.
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
    """Fields that chat and text completions share."""

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
    """Keyword arguments of `chat.completions.create`."""

    messages: Required[Sequence[ChatCompletionMessageParam | Object]]
    tools: Sequence[ChatCompletionTool | Object] | None
    tool_choice: Literal["none", "auto", "required"] | ChatCompletionNamedToolChoice | Object | None
    response_format: ResponseFormat | Object | None
    user: str | None


class CompletionFields(GenerationFields, total=False):
    """Keyword arguments of `completions.create`."""

    prompt: Required[str]
    echo: bool | None


class EmbeddingFields(TypedDict, total=False):
    """Keyword arguments of `embeddings.create`."""

    input: Required[str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]]
    model: str | None
    encoding_format: Literal["float"] | None
    user: str | None
