"""From sampled tokens to the text of an answer's choices."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Self

from webllm.api.usage import CompletionUsage, UsageExtra
from webllm.engine.generation import GenerationLoop
from webllm.engine.sequence import FinishReason, Sequence
from webllm.text.detokenizer import StreamingDetokenizer
from webllm.text.stop import StopMatcher
from webllm.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of one choice; the last one carries the reason."""

    choice: int
    text: str
    finish_reason: FinishReason | None = None


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
        self._detokenizer = StreamingDetokenizer(tokenizer)
        self._matcher = StopMatcher(stop_strings)
        self._deltas = deltas
        self._timing = timing

    def accept(self, token_id: int) -> FinishReason | None:
        self._timing.token()
        text, stopped = self._matcher.feed(self._detokenizer.push(token_id))
        if text:
            self._deltas.put_nowait(TextDelta(self._choice, text))
        return FinishReason.STOP if stopped else None

    def end(self, reason: FinishReason) -> None:
        self._timing.end()
        text, _ = self._matcher.feed(self._detokenizer.flush())
        text += self._matcher.flush()
        self._deltas.put_nowait(TextDelta(self._choice, text, reason))

    def fail(self, error: BaseException) -> None:
        self._timing.end()
        self._deltas.put_nowait(error)


@dataclass(slots=True)
class Timing:
    """Moments of one request, in seconds of `time.perf_counter`."""

    started: float = field(default_factory=time.perf_counter)
    first_token: float | None = None
    ended: float | None = None

    def token(self) -> None:
        self.first_token = self.first_token or time.perf_counter()

    def end(self) -> None:
        """Of one choice; the last one counts."""
        self.ended = time.perf_counter()

    def usage(self, num_prompt_tokens: int, num_output_tokens: int) -> CompletionUsage:
        ended = self.ended or time.perf_counter()
        first = self.first_token or ended
        prefill_s, decode_s = first - self.started, ended - first
        num_decoded = max(num_output_tokens - 1, 0)
        num_prefilled = num_prompt_tokens if num_output_tokens else 0  # as far as is known
        return CompletionUsage(
            prompt_tokens=num_prompt_tokens,
            completion_tokens=num_output_tokens,
            total_tokens=num_prompt_tokens + num_output_tokens,
            extra=UsageExtra(
                e2e_latency_s=ended - self.started,
                prefill_tokens_per_s=num_prefilled / prefill_s if prefill_s else 0.0,
                decode_tokens_per_s=num_decoded / decode_s if decode_s else 0.0,
                time_to_first_token_s=prefill_s,
                time_per_output_token_s=decode_s / num_decoded if num_decoded else 0.0,
            ),
        )


NewOutput = Callable[[int, asyncio.Queue[TextDelta | BaseException], Timing], TextOutput]


class Answer:
    """A request's choices: they run from `with answer` on, and no longer than it."""

    def __init__(
        self, sequences: list[Sequence], loop: GenerationLoop, new_output: NewOutput
    ) -> None:
        self.sequences = sequences
        self.timing = Timing()
        self._loop = loop
        self._new_output = new_output
        self._deltas: asyncio.Queue[TextDelta | BaseException] = asyncio.Queue()

    def __enter__(self) -> Self:
        for choice, sequence in enumerate(self.sequences):
            self._loop.add(sequence, self._new_output(choice, self._deltas, self.timing))
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
    def usage(self) -> CompletionUsage:
        num_prompt_tokens = self.sequences[0].num_prompt_tokens
        num_output_tokens = sum(s.num_output_tokens for s in self.sequences)
        return self.timing.usage(num_prompt_tokens, num_output_tokens)
