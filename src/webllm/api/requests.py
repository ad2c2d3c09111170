"""Requests: all supported fields of OpenAI's and WebLLM's APIs.

These structs are not checked; `api.validation` reads and checks them. None means that a field was
left out: then the model's `ChatOptions` apply, or else the default given here.
"""

from __future__ import annotations

from typing import Any, Literal

from webllm.api.messages import (
    ChatCompletionMessageParam,
    ChatCompletionTool,
    RequestStruct,
    ToolChoice,
)
from webllm.config import ContextOverflow


class StreamOptions(RequestStruct, frozen=True, kw_only=True):
    include_usage: bool = False  # adds a last chunk with the usage and no choices


class JSONSchemaFormat(RequestStruct, frozen=True, kw_only=True):
    """OpenAI's `json_schema` object."""

    name: str
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(RequestStruct, frozen=True, kw_only=True):
    type: Literal["text", "json_object", "json_schema", "grammar", "structural_tag"] = "text"
    schema: str | None = None  # JSON schema as text, with "json_object"; WebLLM
    grammar: str | None = None  # EBNF, with "grammar"; WebLLM
    json_schema: JSONSchemaFormat | None = None  # with "json_schema"; OpenAI
    structural_tag: Any = None  # with "structural_tag"; WebLLM


class Resumable(RequestStruct, frozen=True, kw_only=True):
    """Keeps a generation in the journal, so that it can be resumed; WebLLM's, also in camelCase.

    A request with the `session_id` of an earlier one, and otherwise the same, attaches to that
    generation: the one that still runs, or else the journal's, which then goes on. So a client that
    lost its worker asks again and misses nothing.
    """

    enabled: bool = True
    session_id: str | None = None  # default: a new one, the response's id
    from_token: int | list[int] | None = None  # a stream begins after these tokens; ours
    strict_persistence: bool | None = (
        None  # True: an answer whose journal fails ends with its error
    )
    # Without effect: there are no checkpoints, and tokens that were not written are drawn again.
    checkpoint_interval_tokens: int | None = None
    checkpoint_prompt: bool | None = None
    durability_mode: Literal["exact", "relaxed"] | None = None
    store_checkpoint_logits: bool | None = None


class ExtraBody(RequestStruct, frozen=True, kw_only=True):
    """WebLLM's fields that OpenAI does not have, and those of vLLM and llama.cpp's server."""

    enable_thinking: bool | None = None  # False: the answer begins with an empty thought
    enable_latency_breakdown: bool | None = None  # adds usage.extra.latencyBreakdown
    context_overflow: ContextOverflow | None = None  # see `ChatOptions`
    resumable: Resumable | None = None
    request_id: str | None = None  # names the generation until it ends; default: a new one
    return_token_ids: bool | None = None  # adds `token_ids` to choices
    return_progress: bool | None = None  # a stream begins with `prompt_progress`; llama.cpp's


class GenerationParams(RequestStruct, frozen=True, kw_only=True):
    """The fields common to chat and text completions."""

    model: str | None = None  # required only if several models are loaded
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None  # at least 1; default: as many as fit the context window
    n: int | None = None  # 1 to 128; default 1
    temperature: float | None = None  # 0 (greedy) to 2; default 1
    top_p: float | None = None  # above 0, to 1; default 1
    top_k: int | None = None  # at least 0; 0 (default): all tokens
    min_p: float | None = None  # 0 to 1; default 0
    frequency_penalty: float | None = None  # -2 to 2; default 0
    presence_penalty: float | None = None  # -2 to 2; default 0
    repetition_penalty: float | None = None  # 0.01 to 100; default 1
    logit_bias: dict[int, float] | None = None  # token id to -100 (never) .. 100 (only)
    logprobs: bool | None = None
    top_logprobs: int | None = None  # 0 to 20; needs logprobs
    seed: int | None = None
    stop: str | list[str] | None = None
    ignore_eos: bool = False  # generate until max_tokens, past any end token
    extra_body: ExtraBody | None = None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class ChatCompletionRequest(GenerationParams, frozen=True, kw_only=True):
    messages: list[ChatCompletionMessageParam]
    tools: list[ChatCompletionTool] | None = None
    tool_choice: ToolChoice | None = None
    response_format: ResponseFormat | None = None
    user: str | None = None  # no effect


class CompletionRequest(GenerationParams, frozen=True, kw_only=True):
    prompt: str
    echo: bool | None = None  # the text begins with the prompt


class EmbeddingRequest(RequestStruct, frozen=True, kw_only=True):
    input: str | list[str | int | list[int]]  # a text, its token ids, or a list of either
    model: str | None = None  # required only if several models are loaded
    encoding_format: Literal["float"] | None = None
    user: str | None = None  # no effect


# Fields of OpenAI's API that are refused, each with the way out.
UNSUPPORTED_CHAT_FIELDS = {
    "audio": "models that speak are not supported",
    "function_call": "use tool_choice",
    "functions": "use tools",
    "metadata": "nothing is stored; leave it out",
    "modalities": "the answer is always text",
    "moderation": "leave it out, and check the answer yourself",
    "parallel_tool_calls": "leave it out",
    "prediction": "leave it out",
    "prompt_cache_key": "leave it out: known beginnings of prompts are always reused",
    "prompt_cache_options": "leave it out: known beginnings of prompts are always reused",
    "prompt_cache_retention": "leave it out; reset_chat forgets what is known",
    "reasoning_effort": "use extra_body={'enable_thinking': False} to suppress thinking",
    "safety_identifier": "leave it out",
    "service_tier": "leave it out",
    "store": "nothing is stored; leave it out",
    "verbosity": "ask for short or long answers in the system message",
    "web_search_options": "use tools",
}
UNSUPPORTED_COMPLETION_FIELDS = {
    "best_of": "use n and choose among the answers",
    "suffix": "filling in the middle is not supported",
    "user": "leave it out",
}
UNSUPPORTED_EMBEDDING_FIELDS = {"dimensions": "every model has its own number of dimensions"}
