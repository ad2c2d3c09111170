"""Makes responses in OpenAI's format from a generation: whole ones, and the chunks of streams."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from webllm.api.chat_completion import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessage,
    Choice,
    ChunkChoice,
    Delta,
    FinishReason,
    Logprobs,
)
from webllm.api.completion import Completion, CompletionChoice
from webllm.api.usage import CompletionUsage
from webllm.engine.output import Generation, TextDelta


@dataclass(frozen=True, slots=True)
class FinishedChoice:
    """A choice that has ended, with all its text."""

    text: str
    finish_reason: FinishReason
    logprobs: Logprobs | None


async def collect(generation: Generation) -> list[FinishedChoice]:
    """Runs a generation to its end; returns its choices in order."""
    deltas: list[list[TextDelta]] = [[] for _ in generation.sequences]
    with generation:
        async for delta in generation.deltas():
            deltas[delta.choice].append(delta)
    return [_joined(choice) for choice in deltas]


def _joined(deltas: list[TextDelta]) -> FinishedChoice:
    reason = deltas[-1].finish_reason
    assert reason is not None
    tokens = [token for delta in deltas if delta.logprobs for token in delta.logprobs.content or ()]
    text = "".join(delta.text for delta in deltas)
    return FinishedChoice(text, reason, Logprobs(content=tokens) if tokens else None)


@dataclass(frozen=True, slots=True)
class ChatResponder:
    """Makes the responses to one chat request."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4()}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, finished: list[FinishedChoice], usage: CompletionUsage) -> ChatCompletion:
        choices = [
            Choice(
                index=index,
                message=ChatCompletionMessage(content=choice.text),
                finish_reason=choice.finish_reason,
                logprobs=choice.logprobs,
            )
            for index, choice in enumerate(finished)
        ]
        return ChatCompletion(
            id=self.id, created=self.created, model=self.model, choices=choices, usage=usage
        )

    async def stream(
        self, generation: Generation, include_usage: bool
    ) -> AsyncGenerator[ChatCompletionChunk, None]:
        with generation:
            for index in range(len(generation.sequences)):
                yield self._chunk(index, Delta(role="assistant", content=""))
            async for delta in generation.deltas():
                if delta.text or delta.logprobs:
                    content = Delta(content=delta.text)
                    yield self._chunk(delta.choice, content, logprobs=delta.logprobs)
                if delta.finish_reason:
                    yield self._chunk(delta.choice, Delta(), delta.finish_reason)
        if include_usage:
            yield self._response([], generation.usage)

    def _chunk(
        self,
        index: int,
        delta: Delta,
        reason: FinishReason | None = None,
        logprobs: Logprobs | None = None,
    ) -> ChatCompletionChunk:
        choice = ChunkChoice(index=index, delta=delta, finish_reason=reason, logprobs=logprobs)
        return self._response([choice])

    def _response(
        self, choices: list[ChunkChoice], usage: CompletionUsage | None = None
    ) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            id=self.id, created=self.created, model=self.model, choices=choices, usage=usage
        )


@dataclass(frozen=True, slots=True)
class CompletionResponder:
    """Makes the responses to one completion request; `echo` is put before every choice."""

    model: str
    echo: str = ""
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4()}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, finished: list[FinishedChoice], usage: CompletionUsage) -> Completion:
        choices = [
            self._choice(index, self.echo + choice.text, choice.finish_reason, choice.logprobs)
            for index, choice in enumerate(finished)
        ]
        return self._completion(choices, usage)

    async def stream(
        self, generation: Generation, include_usage: bool
    ) -> AsyncGenerator[Completion, None]:
        with generation:
            for index in range(len(generation.sequences) if self.echo else 0):
                yield self._completion([self._choice(index, self.echo)])
            async for delta in generation.deltas():
                choice = self._choice(delta.choice, delta.text, delta.finish_reason, delta.logprobs)
                yield self._completion([choice])
        if include_usage:
            yield self._completion([], generation.usage)

    @staticmethod
    def _choice(
        index: int,
        text: str,
        reason: FinishReason | None = None,
        logprobs: Logprobs | None = None,
    ) -> CompletionChoice:
        return CompletionChoice(index=index, text=text, finish_reason=reason, logprobs=logprobs)

    def _completion(
        self, choices: list[CompletionChoice], usage: CompletionUsage | None = None
    ) -> Completion:
        return Completion(
            id=self.id, created=self.created, model=self.model, choices=choices, usage=usage
        )
