"""Runs batches on a backend: one executable per batch shape, compiled once, replayed per step."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

from webllm.backends.protocol import Backend, Executable
from webllm.engine.host_sampler import HostSampler, StepResult
from webllm.engine.scheduler import Batch
from webllm.ops.program import BatchShape, Program

_log = logging.getLogger(__name__)


class _Kind(NamedTuple):
    """The kind of a step, which decides the executable and the kernels that run it."""

    shape: BatchShape
    is_plain: bool  # see `Step`


class Runner:
    """Submits steps and reads their tokens in order.

    limits: the largest batch. host_sampler: changes the logits before each draw.
    """

    def __init__(
        self,
        backend: Backend,
        program: Program,
        limits: BatchShape,
        host_sampler: HostSampler | None = None,
    ) -> None:
        self.backend = backend
        self.program = program
        self.limits = limits
        self.host_sampler = host_sampler
        self._executables: dict[BatchShape, Executable] = {}
        self._ready: dict[_Kind, Executable] = {}
        self._tasks: dict[_Kind, asyncio.Task[None]] = {}  # that compile or have compiled a kind
        self._in_flight: deque[tuple[Batch, Executable]] = deque()
        self._kind_of = lru_cache(maxsize=1024)(self._make_kind)

    @property
    def num_in_flight(self) -> int:
        return len(self._in_flight)

    @property
    def has_room(self) -> bool:
        """Whether a step may be submitted now, before one in flight has been read."""
        most = 1 if self.host_sampler else self.backend.max_steps_in_flight
        return len(self._in_flight) < most

    async def submit(self, batch: Batch) -> None:
        """Submits a step to the device. Waits only if no compiled executable can run it."""
        step = batch.step.without_sampling() if self.host_sampler else batch.step
        num_sequences = len(step.sequences)
        kind = self._kind_of(batch.num_tokens, num_sequences, batch.is_prefill, step.is_plain)
        executable = self._ready.get(kind) or await self._prepared(kind)
        executable.submit(step)
        self._in_flight.append((batch, executable))

    async def read_oldest(self) -> tuple[Batch, StepResult]:
        """Waits for the oldest batch in flight; returns it and its tokens."""
        batch, executable = self._in_flight.popleft()
        sampled = await executable.sampled()
        if self.host_sampler and batch.sequences:
            return batch, await self.host_sampler.resample(executable, batch.step)
        return batch, StepResult(sampled)

    async def discard(self) -> None:
        """Waits for the steps in flight and drops their results and errors.

        Their sequences have already failed.
        """
        while self._in_flight:
            _, executable = self._in_flight.popleft()
            with suppress(Exception):
                await executable.sampled()

    async def prepare(self, num_tokens: int, num_seqs: int) -> None:
        """Compiles the executable for plain steps of this size."""
        await self._prepared(_Kind(self._shape(num_tokens, num_seqs), is_plain=True))

    def compile_ahead(self, num_seqs: int) -> None:
        """Starts to compile for `num_seqs` sequences, rounded up.

        Larger executables also run smaller batches, until those have their own.
        """
        num_seqs = max(8, 1 << (num_seqs - 1).bit_length())
        for num_tokens in (min(num_seqs, self.limits.max_seqs), self.limits.max_tokens):
            self._start_compiling(_Kind(self._shape(num_tokens, num_seqs), is_plain=True))

    async def _prepared(self, kind: _Kind) -> Executable:
        """Returns the executable of this kind, or a larger one while this is being compiled."""
        while True:
            if kind in self._ready:
                return self._ready[kind]
            task = self._start_compiling(kind)
            if larger := [each for each in self._ready if self._serves(each, kind)]:
                return self._ready[min(larger, key=lambda each: each.shape.max_tokens)]
            compiling = self._compiling()
            if not compiling:
                del self._tasks[kind]  # the next request may try again
                await task  # raises why it failed
            await asyncio.wait(compiling, return_when=asyncio.FIRST_COMPLETED)

    def _start_compiling(self, kind: _Kind) -> asyncio.Task[None]:
        """Returns the task that compiles this kind; starts it if there is none.

        A failed task is kept, so that nothing is tried again while larger executables serve.
        """
        task = self._tasks.get(kind)
        if task is None or task.cancelled() or not (task.done() or task in self._compiling()):
            task = asyncio.create_task(self._compile(kind))
            task.add_done_callback(_log_failure)
            self._tasks[kind] = task
        return task

    def _compiling(self) -> list[asyncio.Task[None]]:
        """Returns the unfinished tasks of this event loop; another loop may have been closed."""
        loop = asyncio.get_running_loop()
        tasks = self._tasks.values()
        return [task for task in tasks if not task.done() and task.get_loop() is loop]

    async def _compile(self, kind: _Kind) -> None:
        if kind.shape not in self._executables:
            self._executables[kind.shape] = self.backend.compile(self.program, kind.shape)
        executable = self._executables[kind.shape]
        await executable.ready(kind.is_plain)
        if self.host_sampler:
            await executable.ready(is_plain=False)  # to sample again
        self._ready[kind] = executable

    def _serves(self, larger: _Kind, kind: _Kind) -> bool:
        """Whether `larger` runs steps of `kind` with the same results, bit for bit.

        Prefill always runs the GEMM kernels and decode the GEMV kernels, which round differently.
        """
        shape, least = kind.shape, self.backend.min_prefill_tokens
        return (
            larger.is_plain == kind.is_plain
            and larger.shape.holds(shape)
            and (larger.shape.max_tokens < least) == (shape.max_tokens < least)
            and larger.shape.decodes == shape.decodes
        )

    def _shape(self, num_tokens: int, num_seqs: int) -> BatchShape:
        """Returns the smallest shape that holds a batch; a sequence has at most one output."""
        return BatchShape(
            max_tokens=min(_round_up(num_tokens), self.limits.max_tokens),
            max_seqs=min(_round_up(num_seqs), self.limits.max_seqs),
            max_outputs=min(_round_up(num_seqs), self.limits.max_outputs),
            max_blocks=self.limits.max_blocks,
        )

    def _make_kind(self, num_tokens: int, num_seqs: int, is_prefill: bool, is_plain: bool) -> _Kind:
        if is_prefill:
            num_tokens = max(num_tokens, self.backend.min_prefill_tokens)
        return _Kind(self._shape(num_tokens, num_seqs), is_plain)

    async def wait_for_compilation(self) -> None:
        """Waits until nothing is being compiled: the device must not be closed before."""
        if compiling := self._compiling():
            await asyncio.wait(compiling)

    async def close(self) -> None:
        """Closes the device once nothing is being compiled on it."""
        try:
            await self.wait_for_compilation()
        finally:
            self._in_flight.clear()
            self._executables.clear()
            self._ready.clear()
            self.backend.close()


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        _log.warning("a batch shape cannot be prepared: %s", error)


def _round_up(count: int) -> int:
    """Rounds up, so that few shapes are compiled: to a power of two, or to a multiple of 8 from 8
    to 64, where the work of the kernels grows with every eight rows.
    """
    if 8 < count <= 64:
        return -(-count // 8) * 8
    return 1 << (count - 1).bit_length()
