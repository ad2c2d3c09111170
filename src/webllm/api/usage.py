"""The token counts of a request, WebLLM's times and rates under `extra`, and prompt progress."""

from __future__ import annotations

from webllm.api.base import ResponseStruct


class UsageExtra(ResponseStruct, rename={"latency_breakdown": "latencyBreakdown"}):
    """Times in seconds since the engine received the request, and tokens per second."""

    e2e_latency_s: float
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    time_to_first_token_s: float
    time_per_output_token_s: float
    grammar_init_s: float | None = None
    grammar_per_token_s: float | None = None
    latency_breakdown: dict[str, list[float]] | None = None


class PromptTokensDetails(ResponseStruct):
    cached_tokens: int  # found in the prefix cache, not computed again


class CompletionUsage(ResponseStruct):
    """The tokens of a request; `completion_tokens` counts all choices."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    extra: UsageExtra
    prompt_tokens_details: PromptTokensDetails | None = None

    def __repr__(self) -> str:
        tokens = f"{self.prompt_tokens} + {self.completion_tokens} = {self.total_tokens} tokens"
        return f"CompletionUsage({tokens})"


class PromptProgress(ResponseStruct):
    """How far a prompt has been read; the fields of llama.cpp's server."""

    total: int  # tokens of the prompt
    cache: int  # of these, found in the prefix cache
    processed: int  # read so far, including those found
    time_ms: int  # since the engine received the request
