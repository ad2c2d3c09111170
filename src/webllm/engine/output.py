"""From sampled tokens to the text of an answer's choices."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

from webllm.api.usage import CompletionUsage, UsageExtra
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
    """One choice: detokenizes, looks for stop strings, passes the text on."""

    def __init__(
        self,
        choice: int,
        tokenizer: Tokenizer,
        stop_strings: tuple[str, ...],
        deltas: asyncio.Queue[TextDelta | BaseException],
    ) -> None:
        self._choice = choice
        self._detokenizer = StreamingDetokenizer(tokenizer)
        self._matcher = StopMatcher(stop_strings)
        self._deltas = deltas

    def accept(self, token_id: int) -> FinishReason | None:
        text, stopped = self._matcher.feed(self._detokenizer.push(token_id))
        if text:
            self._deltas.put_nowait(TextDelta(self._choice, text))
        return FinishReason.STOP if stopped else None

    def end(self, reason: FinishReason) -> None:
        text, _ = self._matcher.feed(self._detokenizer.flush())
        text += self._matcher.flush()
        self._deltas.put_nowait(TextDelta(self._choice, text, reason))

    def fail(self, error: BaseException) -> None:
        self._deltas.put_nowait(error)


@dataclass(slots=True)
class Timing:
    """Moments of one request, in seconds of `time.perf_counter`."""

    started: float = field(default_factory=time.perf_counter)
    first_token: float | None = None
    ended: float | None = None

    def usage(self, num_prompt_tokens: int, num_output_tokens: int) -> CompletionUsage:
        ended = self.ended or time.perf_counter()
        first = self.first_token or ended
        prefill_s, decode_s = first - self.started, ended - first
        num_decoded = max(num_output_tokens - 1, 0)
        return CompletionUsage(
            prompt_tokens=num_prompt_tokens,
            completion_tokens=num_output_tokens,
            total_tokens=num_prompt_tokens + num_output_tokens,
            extra=UsageExtra(
                e2e_latency_s=ended - self.started,
                prefill_tokens_per_s=num_prompt_tokens / prefill_s if prefill_s else 0.0,
                decode_tokens_per_s=num_decoded / decode_s if decode_s else 0.0,
                time_to_first_token_s=prefill_s,
                time_per_output_token_s=decode_s / num_decoded if num_decoded else 0.0,
            ),
        )


class Answer:
    """A request's choices. Nothing runs before `deltas` is iterated, nothing after it is closed."""

    def __init__(
        self,
        sequences: list[Sequence],
        outputs: Callable[[int, asyncio.Queue[TextDelta | BaseException]], TextOutput],
        start: Callable[[Sequence, TextOutput], None],
        stop: Callable[[Sequence], None],
    ) -> None:
        self.sequences = sequences
        self.timing = Timing()
        self._outputs = outputs
        self._start = start
        self._stop = stop

    async def deltas(self) -> AsyncGenerator[TextDelta, None]:
        queue: asyncio.Queue[TextDelta | BaseException] = asyncio.Queue()
        unfinished = len(self.sequences)
        try:
            for choice, sequence in enumerate(self.sequences):
                self._start(sequence, self._outputs(choice, queue))
            while unfinished:
                delta = await queue.get()
                if isinstance(delta, BaseException):
                    raise delta
                self.timing.first_token = self.timing.first_token or time.perf_counter()
                unfinished -= delta.finish_reason is not None
                yield delta
        finally:
            self.timing.ended = time.perf_counter()
            for sequence in self.sequences:
                self._stop(sequence)

    @property
    def usage(self) -> CompletionUsage:
        num_prompt_tokens = self.sequences[0].num_prompt_tokens
        num_output_tokens = sum(s.num_output_tokens for s in self.sequences)
        return self.timing.usage(num_prompt_tokens, num_output_tokens)
