"""Answers in OpenAI's shape: whole, or as the chunks of a stream."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from webllm.api.chat_completion import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessage,
    ChatCompletionTokenLogprob,
    Choice,
    ChunkChoice,
    Delta,
    FinishReason,
    Logprobs,
)
from webllm.api.completion import Completion, CompletionChoice
from webllm.api.usage import CompletionUsage
from webllm.engine import sequence
from webllm.engine.output import Answer


@dataclass(slots=True)
class Text:
    """A finished choice."""

    text: str = ""
    finish_reason: FinishReason = "abort"
    logprobs: list[ChatCompletionTokenLogprob] = field(default_factory=list)


async def collect(answer: Answer) -> list[Text]:
    """Every choice of an answer, in order."""
    texts = [Text() for _ in answer.sequences]
    with answer:
        async for delta in answer.deltas():
            text = texts[delta.choice]
            text.text += delta.text
            text.logprobs += delta.logprobs
    for text, ended in zip(texts, answer.sequences, strict=True):
        text.finish_reason = _reason(ended.finish_reason)
    return texts


def _logprobs(tokens: list[ChatCompletionTokenLogprob]) -> Logprobs | None:
    """None if they were not asked for (or nothing was said)."""
    return Logprobs(content=tokens) if tokens else None


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
                logprobs=_logprobs(text.logprobs),
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
                logprobs = _logprobs(delta.logprobs)
                if delta.text or logprobs:
                    yield self._chunk(delta.choice, Delta(content=delta.text), logprobs=logprobs)
                if delta.finish_reason:
                    yield self._chunk(delta.choice, Delta(), _reason(delta.finish_reason))
        if include_usage:
            yield self._response([], answer.usage)

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
    """The responses of one completion request; `echo` is put before every choice."""

    model: str
    echo: str = ""
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4()}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, texts: list[Text], usage: CompletionUsage) -> Completion:
        choices = [
            self._choice(index, self.echo + text.text, text.finish_reason, text.logprobs)
            for index, text in enumerate(texts)
        ]
        return self._completion(choices, usage)

    async def stream(self, answer: Answer, include_usage: bool) -> AsyncGenerator[Completion, None]:
        with answer:
            for index in range(len(answer.sequences) if self.echo else 0):
                yield self._completion([self._choice(index, self.echo)])
            async for delta in answer.deltas():
                reason = delta.finish_reason and _reason(delta.finish_reason)
                choice = self._choice(delta.choice, delta.text, reason, delta.logprobs)
                yield self._completion([choice])
        if include_usage:
            yield self._completion([], answer.usage)

    @staticmethod
    def _choice(
        index: int,
        text: str,
        reason: FinishReason | None = None,
        logprobs: Sequence[ChatCompletionTokenLogprob] = (),
    ) -> CompletionChoice:
        return CompletionChoice(
            index=index, text=text, finish_reason=reason, logprobs=_logprobs(list(logprobs))
        )

    def _completion(
        self, choices: list[CompletionChoice], usage: CompletionUsage | None = None
    ) -> Completion:
        return Completion(
            id=self.id, created=self.created, model=self.model, choices=choices, usage=usage
        )
