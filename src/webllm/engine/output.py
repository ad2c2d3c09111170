"""Turns sampled tokens into text: `Generation` is a request's choices, `TextOutput` one choice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Self

from webllm.api.chat_completion import (
    ChatCompletionTokenLogprob,
    FinishReason,
    Logprobs,
    TopLogprob,
)
from webllm.api.usage import CompletionUsage, PromptTokensDetails, UsageExtra
from webllm.engine.loop import GenerationLoop
from webllm.engine.sequence import Sequence
from webllm.ops.sampled import TokenLogprobs
from webllm.text.detokenizer import StreamingDetokenizer
from webllm.text.stop import StopMatcher
from webllm.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of a choice's text. The last one of a choice has the finish reason."""

    choice: int
    text: str
    finish_reason: FinishReason | None = None
    logprobs: Logprobs | None = None  # of the text's tokens, if the request asks for them


class TextOutput:
    """One choice: detokenizes, looks for stop strings, emits deltas and records times."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop_strings: tuple[str, ...],
        choice: int,
        deltas: asyncio.Queue[TextDelta | BaseException],
        timing: Timing,
    ) -> None:
        self._choice = choice
        self._tokenizer = tokenizer
        self._detokenizer = StreamingDetokenizer(tokenizer)
        self._matcher = StopMatcher(stop_strings)
        self._deltas = deltas
        self._timing = timing
        self._pieces: list[str] = []
        self._logprobs: list[ChatCompletionTokenLogprob] = []  # of tokens that were not emitted yet

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._pieces)

    def accept(self, token_id: int, logprobs: TokenLogprobs | None) -> FinishReason | None:
        self._timing.tokens.append(time.perf_counter())
        if logprobs is not None:
            self._logprobs.append(token_logprob(self._tokenizer, token_id, logprobs))
        text, stopped = self._matcher.feed(self._detokenizer.push(token_id))
        if text:
            self._emit(text)
        if stopped:
            self._logprobs.clear()  # of the stop string
            return "stop"
        return None

    def end(self, reason: FinishReason) -> None:
        self._timing.end()
        text, _ = self._matcher.feed(self._detokenizer.flush())
        self._emit(text + self._matcher.flush(), reason)

    def fail(self, error: BaseException) -> None:
        self._timing.end()
        self._deltas.put_nowait(error)

    def _emit(self, text: str, reason: FinishReason | None = None) -> None:
        logprobs = None
        if self._logprobs:
            logprobs, self._logprobs = Logprobs(content=self._logprobs), []
        self._pieces.append(text)
        self._deltas.put_nowait(TextDelta(self._choice, text, reason, logprobs))


def token_logprob(
    tokenizer: Tokenizer, token_id: int, logprobs: TokenLogprobs
) -> ChatCompletionTokenLogprob:
    """Returns a token's logprobs in OpenAI's format.

    In the text of a token that ends inside a character, U+FFFD stands for the part.
    """

    def entry(token_id: int, logprob: float) -> TopLogprob:
        text = tokenizer.decode([token_id], skip_special=False)
        data = tokenizer.token_bytes(token_id) or text.encode()
        return TopLogprob(token=text, bytes=list(data), logprob=logprob)

    drawn = entry(token_id, logprobs.logprob)
    return ChatCompletionTokenLogprob(
        token=drawn.token,
        bytes=drawn.bytes,
        logprob=drawn.logprob,
        top_logprobs=[entry(*top) for top in logprobs.top],
    )


@dataclass(slots=True)
class Timing:
    """The times of one request, in seconds of `time.perf_counter`."""

    started: float = field(default_factory=time.perf_counter)
    tokens: list[float] = field(default_factory=list)  # arrivals, of all choices
    ended: float | None = None

    def end(self) -> None:
        """Records the end of a choice. The request ends with its last choice."""
        self.ended = time.perf_counter()

    def extra(self, num_prefilled: int, breakdown: bool) -> UsageExtra:
        """Returns the rates and latencies.

        num_prefilled: prompt tokens that were computed, not found in the prefix cache.
        """
        ended = self.ended or time.perf_counter()
        first = self.tokens[0] if self.tokens else ended
        prefill_s, decode_s = first - self.started, ended - first
        num_decoded = max(len(self.tokens) - 1, 0)
        gaps = [after - before for before, after in pairwise([self.started, *self.tokens])]
        return UsageExtra(
            e2e_latency_s=ended - self.started,
            prefill_tokens_per_s=num_prefilled / prefill_s if prefill_s else 0.0,
            decode_tokens_per_s=num_decoded / decode_s if decode_s else 0.0,
            time_to_first_token_s=prefill_s,
            time_per_output_token_s=decode_s / num_decoded if num_decoded else 0.0,
            latency_breakdown={"totalTime": gaps} if breakdown else None,
        )


NewOutput = Callable[[int, asyncio.Queue[TextDelta | BaseException], Timing], TextOutput]


class Generation:
    """The choices of one request. `with` starts them; leaving it aborts those still running.

    A generation that `is_interrupted` ends as soon as it starts.
    """

    def __init__(
        self,
        sequences: list[Sequence],
        loop: GenerationLoop,
        new_output: NewOutput,
        breakdown: bool = False,
        is_interrupted: bool = False,
    ) -> None:
        self.sequences = sequences
        self.timing = Timing()
        self._loop = loop
        self._breakdown = breakdown
        self._is_interrupted = is_interrupted
        self._deltas: asyncio.Queue[TextDelta | BaseException] = asyncio.Queue()
        self._outputs = [
            new_output(choice, self._deltas, self.timing) for choice in range(len(sequences))
        ]

    def __enter__(self) -> Self:
        try:
            for sequence, output in zip(self.sequences, self._outputs, strict=True):
                self._loop.add(sequence, output)
        except BaseException:
            self.__exit__()
            raise
        if self._is_interrupted:
            self.__exit__()
        return self

    def __exit__(self, *_: object) -> None:
        for sequence in self.sequences:
            self._loop.finish(sequence, "abort")

    async def deltas(self) -> AsyncIterator[TextDelta]:
        """Yields deltas until the last choice has ended; raises the error of a choice."""
        unfinished = len(self.sequences)
        while unfinished:
            delta = await self._deltas.get()
            if isinstance(delta, BaseException):
                raise delta
            unfinished -= delta.finish_reason is not None
            yield delta

    @property
    def text(self) -> str:
        """The text of the first choice so far."""
        return self._outputs[0].text

    @property
    def usage(self) -> CompletionUsage:
        first = self.sequences[0]
        num_output_tokens = sum(s.num_output_tokens for s in self.sequences)
        num_prefilled = first.num_prompt_tokens - first.num_cached_tokens
        if not num_output_tokens:
            num_prefilled = 0  # the prompt may not have been computed
        return CompletionUsage(
            prompt_tokens=first.num_prompt_tokens,
            completion_tokens=num_output_tokens,
            total_tokens=first.num_prompt_tokens + num_output_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=first.num_cached_tokens),
            extra=self.timing.extra(num_prefilled, self._breakdown),
        )
