"""Answers in OpenAI's shape: whole, or as the chunks of a stream."""

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
)
from webllm.api.completion import Completion, CompletionChoice
from webllm.api.usage import CompletionUsage
from webllm.engine import sequence
from webllm.engine.output import Answer


@dataclass(frozen=True, slots=True)
class Text:
    """A finished choice."""

    text: str
    finish_reason: FinishReason


async def collect(answer: Answer) -> list[Text]:
    """Every choice of an answer, in order."""
    texts = [""] * len(answer.sequences)
    with answer:
        async for delta in answer.deltas():
            texts[delta.choice] += delta.text
    return [
        Text(text, _reason(s.finish_reason))
        for text, s in zip(texts, answer.sequences, strict=True)
    ]


def _reason(reason: sequence.FinishReason | None) -> FinishReason:
    assert reason is not None
    return reason.value


@dataclass(frozen=True, slots=True)
class ChatResponder:
    """The responses of one chat request."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4()}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, texts: list[Text], usage: CompletionUsage) -> ChatCompletion:
        choices = [
            Choice(
                index=index,
                message=ChatCompletionMessage(content=text.text),
                finish_reason=text.finish_reason,
                logprobs=None,
            )
            for index, text in enumerate(texts)
        ]
        return ChatCompletion(
            id=self.id, created=self.created, model=self.model, choices=choices, usage=usage
        )

    async def stream(
        self, answer: Answer, include_usage: bool
    ) -> AsyncGenerator[ChatCompletionChunk, None]:
        with answer:
            for index in range(len(answer.sequences)):
                yield self._chunk(index, Delta(role="assistant", content=""))
            async for delta in answer.deltas():
                if delta.text:
                    yield self._chunk(delta.choice, Delta(content=delta.text))
                if delta.finish_reason:
                    yield self._chunk(delta.choice, Delta(), _reason(delta.finish_reason))
        if include_usage:
            yield self._response([], answer.usage)

    def _chunk(
        self, index: int, delta: Delta, reason: FinishReason | None = None
    ) -> ChatCompletionChunk:
        return self._response([ChunkChoice(index=index, delta=delta, finish_reason=reason)])

    def _response(
        self, choices: list[ChunkChoice], usage: CompletionUsage | None = None
    ) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            id=self.id, created=self.created, model=self.model, choices=choices, usage=usage
        )


@dataclass(frozen=True, slots=True)
class CompletionResponder:
    """The responses of one completion request; `echo` is put before every choice."""

    model: str
    echo: str = ""
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4()}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, texts: list[Text], usage: CompletionUsage) -> Completion:
        choices = [
            self._choice(index, self.echo + text.text, text.finish_reason)
            for index, text in enumerate(texts)
        ]
        return self._completion(choices, usage)

    async def stream(self, answer: Answer, include_usage: bool) -> AsyncGenerator[Completion, None]:
        with answer:
            for index in range(len(answer.sequences) if self.echo else 0):
                yield self._completion([self._choice(index, self.echo)])
            async for delta in answer.deltas():
                reason = delta.finish_reason and _reason(delta.finish_reason)
                yield self._completion([self._choice(delta.choice, delta.text, reason)])
        if include_usage:
            yield self._completion([], answer.usage)

    @staticmethod
    def _choice(index: int, text: str, reason: FinishReason | None = None) -> CompletionChoice:
        return CompletionChoice(index=index, text=text, finish_reason=reason, logprobs=None)

    def _completion(
        self, choices: list[CompletionChoice], usage: CompletionUsage | None = None
    ) -> Completion:
        return Completion(
            id=self.id, created=self.created, model=self.model, choices=choices, usage=usage
        )
