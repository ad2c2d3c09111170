"""Turns the sampled tokens of one choice into text, and records their times."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

from webllm.api.chat_completion import (
    ChatCompletionTokenLogprob,
    FinishReason,
    Logprobs,
    TopLogprob,
)
from webllm.api.usage import UsageExtra
from webllm.engine.journal import Recorder
from webllm.ops.sampled import TokenLogprobs
from webllm.text.detokenizer import StreamingDetokenizer
from webllm.text.stop import StopMatcher
from webllm.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of a choice's text. The last one of a choice has the finish reason."""

    choice: int
    text: str
    token_ids: tuple[int, ...]  # since the last delta; without a stop token
    finish_reason: FinishReason | None = None
    logprobs: Logprobs | None = None  # of the text's tokens, if the request asks for them


class Log(Protocol):
    """The receiver of the deltas of all choices."""

    def add(self, delta: TextDelta) -> None: ...

    def fail(self, error: BaseException) -> None: ...


class TextOutput:
    """One choice: detokenizes, looks for stop strings, emits deltas and records times.

    recorder: gets each further token and the text that it makes known, for the journal.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop_strings: tuple[str, ...],
        choice: int,
        log: Log,
        timing: Timing,
    ) -> None:
        self.recorder: Recorder | None = None
        self._choice = choice
        self._tokenizer = tokenizer
        self._detokenizer = StreamingDetokenizer(tokenizer)
        self._matcher = StopMatcher(stop_strings)
        self._log = log
        self._timing = timing
        self._pieces: list[str] = []
        # Of tokens that were not emitted yet.
        self._token_ids: list[int] = []
        self._logprobs: list[ChatCompletionTokenLogprob] = []

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._pieces)

    def accept(self, token_id: int, logprobs: TokenLogprobs | None) -> FinishReason | None:
        self._timing.tokens.append(time.perf_counter())
        self._token_ids.append(token_id)
        if logprobs is not None:
            self._logprobs.append(token_logprob(self._tokenizer, token_id, logprobs))
        text, stopped = self._matcher.feed(self._detokenizer.push(token_id))
        if self.recorder is not None:
            self.recorder.token(self._choice, token_id, text, logprobs)
        if text:
            self._emit(text)
        if stopped:
            self._logprobs.clear()  # of the stop string
            return "stop"
        return None

    def end(self, reason: FinishReason) -> None:
        self._timing.end()
        text, _ = self._matcher.feed(self._detokenizer.flush())
        text += self._matcher.flush()
        self._emit(text, reason)

    def fail(self, error: BaseException) -> None:
        self._timing.end()
        self._log.fail(error)

    def _emit(self, text: str, reason: FinishReason | None = None) -> None:
        logprobs = None
        if self._logprobs:
            logprobs, self._logprobs = Logprobs(content=self._logprobs), []
        token_ids, self._token_ids = tuple(self._token_ids), []
        self._pieces.append(text)
        self._log.add(TextDelta(self._choice, text, token_ids, reason, logprobs))


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
