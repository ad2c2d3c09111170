"""Makes responses in OpenAI's format from a generation: whole ones, and the chunks of streams.

A reader that lost its connection reads on after the tokens that it has, see `Position`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

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
from webllm.api.requests import CompletionRequest, ExtraBody, GenerationParams
from webllm.api.usage import CompletionUsage, PromptProgress
from webllm.engine.generation import AttachedStream, Generation
from webllm.engine.output import TextDelta
from webllm.errors import RequestError

_Whole = TypeVar("_Whole")
_Chunk = TypeVar("_Chunk")


@dataclass(frozen=True, slots=True)
class FinishedChoice:
    """A choice that has ended, with all its text."""

    text: str
    finish_reason: FinishReason
    logprobs: Logprobs | None
    token_ids: list[int]


async def collect(generation: Generation) -> list[FinishedChoice]:
    """Waits for the end of a generation; returns its choices in order."""
    deltas: list[list[TextDelta]] = [[] for _ in range(generation.num_choices)]
    async for delta in generation.deltas():
        deltas[delta.choice].append(delta)
    return [_joined(choice) for choice in deltas]


def _joined(deltas: list[TextDelta]) -> FinishedChoice:
    reason = deltas[-1].finish_reason
    assert reason is not None
    tokens = [token for delta in deltas if delta.logprobs for token in delta.logprobs.content or ()]
    text = "".join(delta.text for delta in deltas)
    token_ids = [token_id for delta in deltas for token_id in delta.token_ids]
    return FinishedChoice(text, reason, Logprobs(content=tokens) if tokens else None, token_ids)


class Position:
    """The place in a generation's log from which a reader reads on.

    from_token: the tokens of each choice that the reader has, one number for all or one for each;
    None or 0 stands for the start. Raises RequestError.
    """

    def __init__(self, num_choices: int, from_token: int | list[int] | None) -> None:
        if isinstance(from_token, list) and len(from_token) != num_choices:
            raise RequestError(
                f"from_token has {len(from_token)} numbers for {num_choices} choices; give one for "
                "each",
                field="extra_body",
            )
        start = from_token or 0
        self._num_left = start[:] if isinstance(start, list) else [start] * num_choices

    @property
    def unread(self) -> list[int]:
        """The choices of which the reader has nothing."""
        return [choice for choice, num_left in enumerate(self._num_left) if not num_left]

    @property
    def is_at_start(self) -> bool:
        return not any(self._num_left)

    def is_behind(self, delta: TextDelta) -> bool:
        """Whether the reader has the text of a delta, which is the next one of its choice.

        Raises RequestError at the end of a choice that has fewer tokens than the reader.
        """
        choice, num_left = delta.choice, self._num_left[delta.choice]
        if not num_left:
            return False
        num_left -= len(delta.token_ids)
        if num_left > 0 and delta.finish_reason not in (None, "abort"):
            raise RequestError(
                f"from_token is {num_left} beyond the end of choice {choice}; give the number of "
                "tokens that came, or leave it out for all of the answer",
                field="extra_body",
            )
        self._num_left[choice] = max(num_left, 0)
        return bool(delta.token_ids) and num_left >= 0


class _Responder(ABC, Generic[_Whole, _Chunk]):
    """Makes the responses to one reader of a generation, as its own request asks for them.

    Raises RequestError for a `from_token` of the wrong length.
    """

    def __init__(self, generation: Generation, request: GenerationParams) -> None:
        extra = request.extra_body or ExtraBody()
        self._generation = generation
        self._head: dict[str, Any] = {  # of each response and chunk
            "id": generation.response_id,
            "created": generation.created,
            "model": generation.model_id,
            "system_fingerprint": generation.fingerprint,
        }
        self.is_stream = request.stream is True
        self._include_usage = request.include_usage
        self._returns_ids = extra.return_token_ids is True
        from_token = extra.resumable.from_token if extra.resumable else None
        self._position = Position(generation.num_choices, from_token)
        self._shows_progress = extra.return_progress is True and self._position.is_at_start

    @abstractmethod
    async def whole(self) -> _Whole:
        """Waits for the end; returns the whole answer."""

    @abstractmethod
    def stream(self) -> AsyncGenerator[_Chunk, None]:
        """Yields the chunks from the reader's position on."""

    async def _prompt_progress(self) -> AsyncIterator[PromptProgress]:
        """Yields what the reader wants to know of the prompt, once anything may be shown."""
        await self._generation.may_show()
        if self._shows_progress:
            async for progress in self._generation.prompt_progress():
                yield progress

    def _token_ids(self, token_ids: Sequence[int]) -> list[int] | None:
        return list(token_ids) if self._returns_ids else None


async def answer(
    generation: Generation, make_responder: Callable[[], _Responder[_Whole, _Chunk]]
) -> _Whole | AsyncGenerator[_Chunk, None]:
    """Answers a reader that is attached, and detaches it at the end or after an error."""
    try:
        responder = make_responder()
        if responder.is_stream:
            return AttachedStream(generation, responder.stream())
        whole = await responder.whole()
    except BaseException:
        generation.detach()
        raise
    generation.detach()
    return whole


class ChatResponder(_Responder[ChatCompletion, ChatCompletionChunk]):
    async def whole(self) -> ChatCompletion:
        choices = [
            Choice(
                index=index,
                message=ChatCompletionMessage(content=choice.text),
                finish_reason=choice.finish_reason,
                logprobs=choice.logprobs,
                token_ids=self._token_ids(choice.token_ids),
            )
            for index, choice in enumerate(await collect(self._generation))
        ]
        return ChatCompletion(choices=choices, usage=self._generation.usage, **self._head)

    async def stream(self) -> AsyncGenerator[ChatCompletionChunk, None]:
        async for progress in self._prompt_progress():
            yield self._chunk([], prompt_progress=progress)
        for index in self._position.unread:
            role = Delta(role="assistant", content="")
            yield self._chunk([ChunkChoice(index=index, delta=role, finish_reason=None)])
        async for delta in self._generation.deltas():
            for choice in self._choices(delta):
                yield self._chunk([choice])
        if self._include_usage:
            yield self._chunk([], usage=self._generation.usage)

    def _choices(self, delta: TextDelta) -> Iterator[ChunkChoice]:
        """Yields the text and the finish apart, as OpenAI does.

        They stay together if the text counts no token: a reader that asks for what follows its
        tokens could not say whether it has that text.
        """
        index, reason = delta.choice, delta.finish_reason
        token_ids = self._token_ids(delta.token_ids)
        has_content = bool(delta.text or delta.logprobs)
        if self._position.is_behind(delta):
            has_content, token_ids = False, None
        content = Delta(content=delta.text) if has_content else Delta()
        is_together = reason is not None and not (has_content and delta.token_ids)
        if has_content or token_ids or is_together:
            yield ChunkChoice(
                index=index,
                delta=content,
                finish_reason=reason if is_together else None,
                logprobs=delta.logprobs if has_content else None,
                token_ids=token_ids,
            )
        if reason is not None and not is_together:
            yield ChunkChoice(index=index, delta=Delta(), finish_reason=reason)

    def _chunk(
        self,
        choices: list[ChunkChoice],
        *,
        usage: CompletionUsage | None = None,
        prompt_progress: PromptProgress | None = None,
    ) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            choices=choices, usage=usage, prompt_progress=prompt_progress, **self._head
        )


class CompletionResponder(_Responder[Completion, Completion]):
    """`echo` puts the prompt before every choice."""

    def __init__(self, generation: Generation, request: CompletionRequest) -> None:
        super().__init__(generation, request)
        self._echo = request.prompt if request.echo else ""

    async def whole(self) -> Completion:
        choices = [
            CompletionChoice(
                index=index,
                text=self._echo + choice.text,
                finish_reason=choice.finish_reason,
                logprobs=choice.logprobs,
                token_ids=self._token_ids(choice.token_ids),
            )
            for index, choice in enumerate(await collect(self._generation))
        ]
        return self._completion(choices, usage=self._generation.usage)

    async def stream(self) -> AsyncGenerator[Completion, None]:
        async for progress in self._prompt_progress():
            yield self._completion([], prompt_progress=progress)
        for index in self._position.unread if self._echo else ():
            echo = CompletionChoice(index=index, text=self._echo, finish_reason=None, logprobs=None)
            yield self._completion([echo])
        async for delta in self._generation.deltas():
            is_behind = self._position.is_behind(delta)
            if is_behind and delta.finish_reason is None:
                continue
            choice = CompletionChoice(
                index=delta.choice,
                text="" if is_behind else delta.text,
                finish_reason=delta.finish_reason,
                logprobs=None if is_behind else delta.logprobs,
                token_ids=None if is_behind else self._token_ids(delta.token_ids),
            )
            yield self._completion([choice])
        if self._include_usage:
            yield self._completion([], usage=self._generation.usage)

    def _completion(
        self,
        choices: list[CompletionChoice],
        *,
        usage: CompletionUsage | None = None,
        prompt_progress: PromptProgress | None = None,
    ) -> Completion:
        return Completion(
            choices=choices, usage=usage, prompt_progress=prompt_progress, **self._head
        )
