"""The loop of a loaded model: schedule, run, sample, emit."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from webllm.api.chat_completion import FinishReason
from webllm.engine.background import Pauses
from webllm.engine.runner import Runner
from webllm.engine.scheduler import Scheduler
from webllm.engine.sequence import Sequence
from webllm.errors import DeviceLostError, ModelNotLoadedError, RequestError
from webllm.host import Host
from webllm.ops.sampled import TokenLogprobs

_log = logging.getLogger(__name__)


class Output(Protocol):
    """The receiver of a sequence's tokens."""

    def accept(self, token_id: int, logprobs: TokenLogprobs | None) -> FinishReason | None:
        """Takes one token; a returned reason ends the sequence, an exception fails it."""

    def end(self, reason: FinishReason) -> None: ...

    def fail(self, error: BaseException) -> None:
        """Ends the sequence with an error; raises nothing itself."""


def unloaded() -> ModelNotLoadedError:
    return ModelNotLoadedError(
        "the model was unloaded before this answer began; reload it and ask again"
    )


class GenerationLoop:
    """Runs steps in one task, as long as there are sequences.

    An error of one sequence ends that sequence. An error of the device ends every sequence and
    drops the steps in flight.
    """

    def __init__(self, scheduler: Scheduler, runner: Runner, host: Host) -> None:
        self.scheduler = scheduler
        self.runner = runner
        self._outputs: dict[Sequence, Output] = {}
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False
        self.is_device_lost = False
        self._pauses = Pauses(host)

    @property
    def is_idle(self) -> bool:
        """Whether no sequence runs or waits."""
        return not self._outputs

    def add(self, sequence: Sequence, output: Output) -> None:
        """Starts a sequence, whose output is told its tokens and its end or error.

        Raises what `Scheduler.add` raises, ModelNotLoadedError after `close`, and RequestError from
        a second event loop.
        """
        event_loop = asyncio.get_running_loop()
        if self._is_closed:
            raise unloaded()
        task = None if self._task is None or self._task.done() else self._task
        if task is not None and task.get_loop() is not event_loop:
            raise RequestError(
                "answers are under way on another event loop; use an engine from one event loop"
            )
        self.scheduler.add(sequence)
        self._outputs[sequence] = output
        if len(self._outputs) > 1:
            self.runner.compile_ahead(len(self._outputs))
        if task is None:
            self._task = event_loop.create_task(self._run())

    def finish(self, sequence: Sequence, reason: FinishReason) -> None:
        """Ends a sequence now, if it has not ended yet."""
        if output := self._outputs.pop(sequence, None):
            self.scheduler.finish(sequence, reason)
            try:
                output.end(reason)
            except Exception as error:
                output.fail(error)

    def abort_all(self) -> None:
        """Ends every sequence with finish_reason "abort"."""
        for sequence in list(self._outputs):
            self.finish(sequence, "abort")

    def reset_prefix_cache(self) -> None:
        """Empties the prefix cache, so that later prompts are computed in full."""
        self.scheduler.blocks.reset_prefix_cache()

    async def close(self) -> None:
        """Aborts every sequence, accepts no more, and waits for the steps in flight."""
        self._is_closed = True
        self.abort_all()
        if self._task is not None and not self._task.done():
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._outputs or self.runner.num_in_flight:
                try:
                    await self.step()
                except Exception as error:
                    self._fail_all(error)
                    await self.runner.discard()
        except BaseException:  # the event loop is being closed
            self.abort_all()
            self.reset_prefix_cache()  # steps in flight may not have written their blocks
            raise

    async def step(self) -> None:
        """Submits as many batches as may be in flight, then emits the tokens of the oldest one."""
        while self.runner.has_room and (batch := self.scheduler.next_batch()):
            await self.runner.submit(batch)
        await self._pauses.pause()
        batch, result = await self.runner.read_oldest()
        for prefill in batch.prefills:
            if prefill.sequence.finish_reason is None and prefill.sequence.on_prefill is not None:
                prefill.sequence.on_prefill(prefill)
        sampled = result.sampled
        for i, sequence in enumerate(batch.sequences):
            if sequence.finish_reason is not None:
                continue  # it was ended while the step ran
            try:
                if i in result.errors:
                    raise result.errors[i]
                self._accept(sequence, sampled.token_ids[i], sampled.logprobs[i])
            except Exception as error:
                self._fail(sequence, error)

    def _accept(self, sequence: Sequence, token_id: int, logprobs: TokenLogprobs | None) -> None:
        sequence.accept(token_id)
        if token_id in sequence.params.stop_ids:
            self.finish(sequence, "stop")
        elif reason := self._outputs[sequence].accept(token_id, logprobs):
            self.finish(sequence, reason)
        elif sequence.num_output_tokens >= sequence.params.max_tokens:
            self.finish(sequence, "length")

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        if output := self._outputs.pop(sequence, None):
            self.scheduler.finish(sequence, "abort")
            output.fail(error)

    def _fail_all(self, error: Exception) -> None:
        self.is_device_lost = self.is_device_lost or isinstance(error, DeviceLostError)
        if not self._outputs:
            _log.error("a step failed after its sequences had ended", exc_info=error)
        for sequence in list(self._outputs):
            self._fail(sequence, error)
        self.reset_prefix_cache()  # the failed steps may not have written their blocks
