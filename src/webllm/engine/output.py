"""From sampled tokens to the text of an answer's choices."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Self

from webllm.api.chat_completion import ChatCompletionTokenLogprob, TopLogprob
from webllm.api.usage import CompletionUsage, PromptTokensDetails, UsageExtra
from webllm.engine.generation import GenerationLoop
from webllm.engine.sequence import FinishReason, Sequence
from webllm.ops.sampled import TokenLogprobs
from webllm.text.detokenizer import StreamingDetokenizer
from webllm.text.stop import StopMatcher
from webllm.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of one choice; the last one carries the reason."""

    choice: int
    text: str
    finish_reason: FinishReason | None = None
    logprobs: list[ChatCompletionTokenLogprob] = field(default_factory=list)  # of its tokens


class TextOutput:
    """One choice: detokenizes, looks for stop strings, passes the text on, notes when."""

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
        self._logprobs: list[ChatCompletionTokenLogprob] = []  # of tokens whose text waits

    @property
    def text(self) -> str:
        """What has come so far."""
        return "".join(self._pieces)

    def accept(self, token_id: int, logprobs: TokenLogprobs | None) -> FinishReason | None:
        self._timing.token()
        if logprobs is not None:
            self._logprobs.append(token_logprob(self._tokenizer, token_id, logprobs))
        text, stopped = self._matcher.feed(self._detokenizer.push(token_id))
        if text:
            self._emit(text)
        if stopped:
            self._logprobs.clear()  # of the stop string
            return FinishReason.STOP
        return None

    def end(self, reason: FinishReason) -> None:
        self._timing.end()
        text, _ = self._matcher.feed(self._detokenizer.flush())
        self._emit(text + self._matcher.flush(), reason)

    def fail(self, error: BaseException) -> None:
        self._timing.end()
        self._deltas.put_nowait(error)

    def _emit(self, text: str, reason: FinishReason | None = None) -> None:
        logprobs, self._logprobs = self._logprobs, []
        self._pieces.append(text)
        self._deltas.put_nowait(TextDelta(self._choice, text, reason, logprobs))


def token_logprob(
    tokenizer: Tokenizer, token_id: int, logprobs: TokenLogprobs
) -> ChatCompletionTokenLogprob:
    """In OpenAI's shape; a token's text has U+FFFD where it is part of a character."""

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
    """Moments of one request, in seconds of `time.perf_counter`."""

    started: float = field(default_factory=time.perf_counter)
    tokens: list[float] = field(default_factory=list)  # when each came, of any choice
    ended: float | None = None

    def token(self) -> None:
        self.tokens.append(time.perf_counter())

    def end(self) -> None:
        """Of one choice; the last one counts."""
        self.ended = time.perf_counter()

    def extra(self, num_prefilled: int, breakdown: bool) -> UsageExtra:
        """`num_prefilled`: prompt tokens that had to be computed."""
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


class Answer:
    """A request's choices: they run from `with answer` on, and no longer than it. One that
    `is_interrupted` ends as soon as it begins.
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
            self._loop.finish(sequence, FinishReason.ABORT)

    async def deltas(self) -> AsyncIterator[TextDelta]:
        """Until the last choice has ended; raises what the device raised."""
        unfinished = len(self.sequences)
        while unfinished:
            delta = await self._deltas.get()
            if isinstance(delta, BaseException):
                raise delta
            unfinished -= delta.finish_reason is not None
            yield delta

    @property
    def text(self) -> str:
        """Of the first choice, as far as it has come."""
        return self._outputs[0].text

    @property
    def usage(self) -> CompletionUsage:
        first = self.sequences[0]
        num_output_tokens = sum(s.num_output_tokens for s in self.sequences)
        num_prefilled = first.num_prompt_tokens - first.num_cached_tokens
        if not num_output_tokens:
            num_prefilled = 0  # as far as is known
        return CompletionUsage(
            prompt_tokens=first.num_prompt_tokens,
            completion_tokens=num_output_tokens,
            total_tokens=first.num_prompt_tokens + num_output_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=first.num_cached_tokens),
            extra=self.timing.extra(num_prefilled, self._breakdown),
        )
