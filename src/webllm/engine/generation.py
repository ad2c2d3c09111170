"""`Generation`: one request that is being answered, whoever reads the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from webllm.api.requests import ChatCompletionRequest, ExtraBody, GenerationParams
from webllm.api.usage import CompletionUsage, PromptProgress, PromptTokensDetails
from webllm.engine.journal import Recorder, RecoveredChoice
from webllm.engine.loop import GenerationLoop
from webllm.engine.output import TextDelta, TextOutput, Timing
from webllm.engine.sequence import Prefill, Sequence

_T_co = TypeVar("_T_co", covariant=True)

NewOutput = Callable[[int], TextOutput]


class Generation:
    """The choices of a request. It runs without being read, from `begin` on.

    Its log keeps all deltas. So any number of readers may attach, at any time, and read it from the
    start. Once no reader is attached any more, it ends at once.

    recorder: writes the tokens to the journal, if the generation can be resumed. on_change: is
    called at the end, and when no reader is attached any more.
    """

    def __init__(
        self,
        generation_id: str,
        request: GenerationParams,
        model_id: str,
        fingerprint: str,
        on_change: Callable[[Generation], None],
    ) -> None:
        is_chat = isinstance(request, ChatCompletionRequest)
        self.id = generation_id
        self.response_id = f"{'chatcmpl' if is_chat else 'cmpl'}-{generation_id}"
        self.request = request
        self.model_id = model_id
        self.fingerprint = fingerprint
        self.created = int(time.time())
        self.timing = Timing()
        self.sequences: list[Sequence] = []
        self.outputs: list[TextOutput] = []
        self.recorder: Recorder | None = None
        self.event_loop = asyncio.get_running_loop()
        self._on_change = on_change
        self._starting: asyncio.Task[None] | None = None
        self._holding: asyncio.Task[None] | None = None
        self._loop: GenerationLoop | None = None
        self._log: list[TextDelta] = []
        self._prompt_log: list[PromptProgress] = []
        self._error: BaseException | None = None
        self._news = asyncio.Event()  # set for a moment, when the log has grown
        self._num_running = self.num_choices
        self._num_attached = 0
        self._is_interrupted = False
        self._is_aborted = False  # neither by itself nor by its client

    @property
    def num_choices(self) -> int:
        return self.request.n or 1

    @property
    def names(self) -> set[str]:
        """The ids by which it may be interrupted."""
        extra = self.request.extra_body or ExtraBody()
        return {self.id, self.response_id, extra.request_id or self.id}

    @property
    def has_ended(self) -> bool:
        """Whether nothing will be added to the log."""
        return self._error is not None or not self._num_running or not self._num_attached

    @property
    def is_attachable(self) -> bool:
        """Whether a reader that attaches now can get the whole answer."""
        return self._num_attached > 0 and self._error is None and not self._is_aborted

    def begin(self, start: Callable[[], Awaitable[None]]) -> None:
        """Runs a function that calls `start`, as a task; its error is the generation's."""

        async def begin() -> None:
            try:
                await start()
            except Exception as error:
                self.fail(error)

        self._starting = asyncio.create_task(begin())

    def stop_starting(self, error: Exception) -> None:
        """Fails a generation whose sequences do not run yet."""
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
            self.fail(error)

    def hold(self, until: Coroutine[Any, Any, None]) -> None:
        """Keeps readers waiting for anything to show until a coroutine has ended."""
        self._holding = asyncio.create_task(until)

    async def may_show(self) -> None:
        """Waits until the answer may be shown."""
        if self._holding is not None:
            await asyncio.wait([self._holding])

    async def started(self) -> None:
        """Waits until the sequences run. Raises the error if they cannot."""
        assert self._starting is not None
        await asyncio.wait([self._starting])
        if self._error is not None:
            raise self._error
        self._starting.result()

    def start(
        self,
        loop: GenerationLoop,
        sequences: list[Sequence],
        new_output: NewOutput,
        past: list[RecoveredChoice] | None = None,
    ) -> None:
        """Runs the sequences. past: what the journal has of each, which is not generated again.

        An interrupted generation ends at once. Raises what `GenerationLoop.add` raises.
        """
        self._loop = loop
        self.sequences = sequences
        if self._logs_prompt:
            sequences[0].on_prefill = self._add_progress  # the others share its prompt
        self.outputs = [new_output(choice) for choice in range(len(sequences))]
        try:
            for choice, sequence in enumerate(sequences):
                self._start_choice(sequence, self.outputs[choice], past[choice] if past else None)
        except BaseException:
            self._finish_all()
            raise
        self.timing.tokens.clear()  # those from the journal did not arrive now
        if self._is_interrupted:
            self._finish_all()

    def _start_choice(
        self, sequence: Sequence, output: TextOutput, past: RecoveredChoice | None
    ) -> None:
        assert self._loop is not None
        token_ids = past.token_ids if past else []
        reason = past.finish_reason if past else None
        for i, token_id in enumerate(token_ids):
            logprobs = past.logprobs[i] if past and past.logprobs else None
            reason = output.accept(token_id, logprobs) or reason
        num_output_tokens = past.num_output_tokens if past else 0
        if reason is None and num_output_tokens >= sequence.params.max_tokens:
            reason = "length"
        if past is None or past.finish_reason is None:
            output.recorder = self.recorder
        if reason is not None:
            sequence.num_output_tokens = num_output_tokens
            sequence.finish_reason = reason
            output.end(reason)
        else:
            sequence.replay(token_ids)
            self._loop.add(sequence, output)

    def attach(self) -> None:
        self._num_attached += 1

    def detach(self) -> None:
        self._num_attached -= 1
        if not self._num_attached:
            if self._starting is not None:
                self._starting.cancel()
            self._finish_all()
            self._on_change(self)

    async def close(self) -> None:
        """Waits until the journal has what this generation, which has ended, wrote."""
        if self._starting is not None:
            await asyncio.wait([self._starting])
        if self.recorder is not None:
            await self.recorder.close()

    def interrupt(self) -> None:
        """Ends the choices with finish_reason "abort"; readers may read on up to there."""
        self._is_interrupted = True
        self._finish_all()

    def add(self, delta: TextDelta) -> None:
        """Adds a delta to the log, unless an error has ended it."""
        if self._error is not None:
            return
        if delta.finish_reason is not None:
            self._num_running -= 1
            delta = self._recorded_end(delta)
        self._log.append(delta)
        if not self._num_running:
            self._on_change(self)
        self._notify()

    def _recorded_end(self, delta: TextDelta) -> TextDelta:
        """Writes the end of a choice to the journal; returns its last delta for the log.

        An answer that was ended neither by its client nor by itself can be resumed. So the text
        that is held back is kept for the delta in which it comes then.
        """
        choice, reason = delta.choice, delta.finish_reason
        assert reason is not None
        recorder = self.outputs[choice].recorder
        if reason == "abort" and not self._is_interrupted:
            self._is_aborted = True
            return delta if recorder is None else TextDelta(choice, "", (), reason)
        if recorder is not None:
            num_output_tokens = self.sequences[choice].num_output_tokens
            recorder.finish(choice, reason, num_output_tokens, delta.text)
        return delta

    def fail(self, error: BaseException) -> None:
        """Ends the generation with an error, which every reader gets after the log."""
        if self._error is None:
            self._error = error
            self._finish_all()
            self._on_change(self)
            self._notify()

    async def deltas(self) -> AsyncIterator[TextDelta]:
        """Yields all deltas, until the last choice has ended; raises the error of a choice."""
        await self.may_show()
        num_read = 0
        while True:
            while num_read < len(self._log):
                yield self._log[num_read]
                num_read += 1
            if self._error is not None:
                raise self._error
            if not self._num_running:
                return
            await self._news.wait()

    @property
    def _logs_prompt(self) -> bool:
        extra = self.request.extra_body or ExtraBody()
        return extra.return_progress is True

    def _add_progress(self, prefill: Prefill) -> None:
        """Logs how far the prompt is read, except for what is read again after a preemption."""
        num_read = prefill.num_computed_tokens
        if self._prompt_log and num_read <= self._prompt_log[-1].processed:
            return
        progress = PromptProgress(
            total=prefill.sequence.num_prompt_tokens,
            cache=prefill.num_cached_tokens,
            processed=num_read,
            time_ms=round((time.perf_counter() - self.timing.started) * 1000),
        )
        self._prompt_log.append(progress)
        self._notify()

    async def prompt_progress(self) -> AsyncIterator[PromptProgress]:
        """Yields the progress of the prompt, until it is read or the log has something to show.

        Yields nothing unless the request that began this generation asked for it.
        """
        num_shown = 0
        while self._logs_prompt:
            while num_shown < len(self._prompt_log):
                progress = self._prompt_log[num_shown]
                yield progress
                num_shown += 1
                if progress.processed == progress.total:
                    return
            if self._log or self._error is not None:
                return
            await self._news.wait()

    @property
    def text(self) -> str:
        """The text of the first choice so far."""
        return self.outputs[0].text if self.outputs else ""

    @property
    def num_tokens(self) -> list[int]:
        """The tokens of each choice so far, as `from_token` counts them."""
        counts = [0] * self.num_choices
        for delta in self._log:
            counts[delta.choice] += len(delta.token_ids)
        return counts

    @property
    def usage(self) -> CompletionUsage:
        first = self.sequences[0]
        num_output_tokens = sum(s.num_output_tokens for s in self.sequences)
        num_prefilled = first.num_prompt_tokens - first.num_cached_tokens
        if not num_output_tokens:
            num_prefilled = 0  # the prompt may not have been computed
        extra = self.request.extra_body or ExtraBody()
        breakdown = extra.enable_latency_breakdown is True
        return CompletionUsage(
            prompt_tokens=first.num_prompt_tokens,
            completion_tokens=num_output_tokens,
            total_tokens=first.num_prompt_tokens + num_output_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=first.num_cached_tokens),
            extra=self.timing.extra(num_prefilled, breakdown),
        )

    def _finish_all(self) -> None:
        for sequence in self.sequences:
            assert self._loop is not None
            self._loop.finish(sequence, "abort")

    def _notify(self) -> None:
        self._news.set()
        self._news.clear()


class AttachedStream(AsyncGenerator[_T_co, None]):
    """The chunks that one reader makes of a generation. Closing or dropping it detaches.

    A class, because an async generator that was never begun runs no clean-up.
    """

    def __init__(self, generation: Generation, chunks: AsyncGenerator[_T_co, None]) -> None:
        self._generation: Generation | None = generation
        self._chunks = chunks
        self._event_loop = asyncio.get_running_loop()

    async def asend(self, value: None) -> _T_co:
        try:
            return await self._chunks.asend(value)
        except BaseException:
            self._detach()
            raise

    async def athrow(self, *error: Any) -> _T_co:
        self._detach()
        return await self._chunks.athrow(*error)

    async def aclose(self) -> None:
        self._detach()
        await self._chunks.aclose()

    def _detach(self) -> None:
        generation, self._generation = self._generation, None
        if generation is not None:
            generation.detach()

    def __del__(self) -> None:
        # The collector may run in any thread, also while another closes the event loop.
        if self._generation is not None:
            with suppress(RuntimeError):
                self._event_loop.call_soon_threadsafe(self._generation.detach)


def identity(request: GenerationParams) -> GenerationParams:
    """Returns what a request asks for, without the model and the way in which it is answered."""
    extra = request.extra_body and msgspec.structs.replace(
        request.extra_body,
        resumable=None,
        request_id=None,
        return_token_ids=None,
        return_progress=None,
    )
    if extra == ExtraBody():
        extra = None
    return msgspec.structs.replace(
        request, model=None, stream=None, stream_options=None, extra_body=extra
    )
