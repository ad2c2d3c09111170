"""Responses of text completions, in OpenAI's shape; a stream is a sequence of them."""

from __future__ import annotations

from typing import ClassVar, Literal

from webllm.api.base import CHOICES_APART, ResponseStruct
from webllm.api.chat_completion import FinishReason, Logprobs
from webllm.api.usage import CompletionUsage, PromptProgress


class CompletionChoice(ResponseStruct):
    """One continuation; as in WebLLM, `logprobs` has the shape of chat completions."""

    index: int
    text: str
    finish_reason: FinishReason | None
    logprobs: Logprobs | None
    token_ids: list[int] | None = None  # since the last chunk; with `return_token_ids`


class Completion(ResponseStruct, tag_field="object", tag="text_completion"):
    object: ClassVar[Literal["text_completion"]] = "text_completion"

    id: str
    created: int  # Unix time, seconds
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage | None = None
    system_fingerprint: str | None = None
    prompt_progress: PromptProgress | None = None  # of a stream, with `return_progress`

    def _repr_markdown_(self) -> str:
        """The text that notebooks show: all choices."""
        return CHOICES_APART.join(choice.text for choice in self.choices)
