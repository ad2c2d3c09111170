"""Loads a model, and streams its answers to the terminal."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from webllm.cli.options import LoadOptions
from webllm.cli.terminal import progress_bar, write

if TYPE_CHECKING:
    from webllm.api.chat_completion import FinishReason
    from webllm.api.fields import GenerationFields
    from webllm.api.usage import CompletionUsage
    from webllm.engine.engine import MLCEngine


@dataclass(slots=True)
class Answer:
    """The text so far; `usage` and `finish_reason` arrive at the end."""

    pieces: list[str] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    usage: CompletionUsage | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def add(self, text: str | None, finish_reason: FinishReason | None) -> None:
        self.finish_reason = finish_reason
        if text:
            self.pieces.append(text)
            write(text)


async def load(options: LoadOptions) -> MLCEngine:
    """Returns an engine with the model loaded; shows a progress bar meanwhile."""
    with progress_bar() as on_progress:
        from webllm.config import ChatOptions, MLCEngineConfig, read_config
        from webllm.engine.engine import MLCEngine

        engine = MLCEngine(
            MLCEngineConfig(
                device=options.device,
                num_threads=options.threads,
                init_progress_callback=on_progress,
            )
        )
        chosen = {"context_window_size": options.context, "quantize": options.quantize}
        chat_options = read_config(chosen, ChatOptions)
        await engine.reload(options.model, chat_options)
    return engine


async def answer_chat(
    engine: MLCEngine, messages: list[dict[str, str]], fields: GenerationFields, answer: Answer
) -> None:
    """Streams the answer to a conversation into `answer` and onto the terminal."""
    stream = await engine.chat.completions.create(messages=messages, stream=True, **fields)
    async with aclosing(stream):
        async for chunk in stream:
            for choice in chunk.choices:
                answer.add(choice.delta.content, choice.finish_reason)
            answer.usage = chunk.usage


async def answer_completion(
    engine: MLCEngine, prompt: str, fields: GenerationFields, answer: Answer
) -> None:
    """Streams the continuation of a text into `answer` and onto the terminal."""
    stream = await engine.completions.create(prompt=prompt, stream=True, **fields)
    async with aclosing(stream):
        async for chunk in stream:
            for choice in chunk.choices:
                answer.add(choice.text, choice.finish_reason)
            answer.usage = chunk.usage


def statistics(answer: Answer, device: str) -> str:
    """Returns one line: tokens, rates, device."""
    usage = answer.usage
    if usage is None:
        return device
    ended = {"length": " (cut off at the limit)", "abort": " (stopped)"}
    return (
        f"{usage.prompt_tokens} prompt tokens at {usage.extra.prefill_tokens_per_s:.0f}/s, "
        f"{usage.completion_tokens} generated at {usage.extra.decode_tokens_per_s:.1f}/s"
        f"{ended.get(answer.finish_reason or '', '')} on {device}"
    )
