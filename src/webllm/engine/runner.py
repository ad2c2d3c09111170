"""Runs batches on a backend: one executable per batch shape, compiled once, replayed per step."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

from webllm.backends.protocol import Backend, Executable
from webllm.engine.host_sampler import Drawn, HostSampler
from webllm.engine.scheduler import Batch
from webllm.ops.program import BatchShape, Program

_log = logging.getLogger(__name__)


class _Kind(NamedTuple):
    """The steps that one executable runs with one set of kernels."""

    shape: BatchShape
    is_plain: bool  # see `Step`


class Runner:
    """Submits steps and reads their tokens in order.

    `limits` is the largest batch there will be; a `host_sampler` changes logits before each draw.
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
        self._preparing: dict[_Kind, asyncio.Task[None]] = {}  # or prepared
        self._in_flight: deque[tuple[Batch, Executable]] = deque()
        self._kind_of = lru_cache(maxsize=1024)(self._make_kind)

    @property
    def num_in_flight(self) -> int:
        return len(self._in_flight)

    @property
    def has_room(self) -> bool:
        """Whether another step may be submitted before one has been read."""
        most = 1 if self.host_sampler else self.backend.max_steps_in_flight
        return len(self._in_flight) < most

    async def submit(self, batch: Batch) -> None:
        """Enqueues a step. If no compiled executable can run it, waits for one without blocking
        the event loop.
        """
        step = batch.step.without_sampling() if self.host_sampler else batch.step
        num_sequences = len(step.sequences)
        kind = self._kind_of(batch.num_tokens, num_sequences, batch.is_prefill, step.is_plain)
        executable = self._ready.get(kind) or await self._prepared(kind)
        executable.submit(step)
        self._in_flight.append((batch, executable))

    async def oldest(self) -> tuple[Batch, Drawn]:
        """Waits for the oldest batch in flight; returns it and its tokens, in order of outputs."""
        batch, executable = self._in_flight.popleft()
        sampled = await executable.sampled()
        if self.host_sampler and batch.sampled:
            return batch, await self.host_sampler.resample(executable, batch.step)
        return batch, Drawn(sampled)

    async def discard(self) -> None:
        """Waits for the steps in flight and drops their results and errors: their sequences have
        already failed.
        """
        while self._in_flight:
            _, executable = self._in_flight.popleft()
            with suppress(Exception):
                await executable.sampled()

    async def prepare(self, num_tokens: int, num_seqs: int) -> None:
        """Compiles the executable for plain steps of this size."""
        await self._prepared(_Kind(self._shape(num_tokens, num_seqs), is_plain=True))

    def expect(self, num_seqs: int) -> None:
        """Starts compiling for `num_seqs` sequences, rounded up: the larger executables also run
        smaller batches until those have their own.
        """
        num_seqs = max(8, 1 << (num_seqs - 1).bit_length())
        for num_tokens in (min(num_seqs, self.limits.max_seqs), self.limits.max_tokens):
            self._begin(_Kind(self._shape(num_tokens, num_seqs), is_plain=True))

    async def _prepared(self, kind: _Kind) -> Executable:
        """Returns the executable of this kind, or a larger one while it is being compiled."""
        while True:
            if kind in self._ready:
                return self._ready[kind]
            preparing = self._begin(kind)
            if larger := [each for each in self._ready if self._serves(each, kind)]:
                return self._ready[min(larger, key=lambda each: each.shape.max_tokens)]
            under_way = self._under_way()
            if not under_way:
                del self._preparing[kind]  # the next request may try again
                await preparing  # raises why it failed
            await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)

    def _begin(self, kind: _Kind) -> asyncio.Task[None]:
        """Returns the task that compiles this kind; starts it if there is none. A task that failed
        is kept, so that it is not tried again while larger executables serve.
        """
        task = self._preparing.get(kind)
        if task is None or task.cancelled() or not (task.done() or task in self._under_way()):
            task = asyncio.create_task(self._prepare(kind))
            task.add_done_callback(_note_failure)
            self._preparing[kind] = task
        return task

    def _under_way(self) -> list[asyncio.Task[None]]:
        """Returns the tasks that are compiling on this event loop; another loop may have ended."""
        loop = asyncio.get_running_loop()
        tasks = self._preparing.values()
        return [task for task in tasks if not task.done() and task.get_loop() is loop]

    async def _prepare(self, kind: _Kind) -> None:
        if kind.shape not in self._executables:
            self._executables[kind.shape] = self.backend.compile(self.program, kind.shape)
        executable = self._executables[kind.shape]
        await executable.ready(kind.is_plain)
        if self.host_sampler:
            await executable.ready(is_plain=False)  # to sample again
        self._ready[kind] = executable

    def _serves(self, larger: _Kind, kind: _Kind) -> bool:
        """Whether `larger` runs steps of `kind` with the same bits: prefill always runs the GEMM
        kernels and decode the GEMV kernels, which round differently.
        """
        shape, least = kind.shape, self.backend.min_prefill_tokens
        return (
            larger.is_plain == kind.is_plain
            and larger.shape.holds(shape)
            and (larger.shape.max_tokens < least) == (shape.max_tokens < least)
            and larger.shape.decodes == shape.decodes
        )

    def _shape(self, num_tokens: int, num_seqs: int) -> BatchShape:
        """Returns the smallest compiled shape; each sequence has at most one output."""
        return BatchShape(
            max_tokens=min(_rounded(num_tokens), self.limits.max_tokens),
            max_seqs=min(_rounded(num_seqs), self.limits.max_seqs),
            max_outputs=min(_rounded(num_seqs), self.limits.max_outputs),
            max_blocks=self.limits.max_blocks,
        )

    def _make_kind(self, num_tokens: int, num_seqs: int, is_prefill: bool, is_plain: bool) -> _Kind:
        if is_prefill:
            num_tokens = max(num_tokens, self.backend.min_prefill_tokens)
        return _Kind(self._shape(num_tokens, num_seqs), is_plain)

    async def settle(self) -> None:
        """Waits until nothing is being compiled, which uses the device."""
        if under_way := self._under_way():
            await asyncio.wait(under_way)

    async def close(self) -> None:
        """Closes the device once nothing is being compiled on it."""
        try:
            await self.settle()
        finally:
            self._in_flight.clear()
            self._executables.clear()
            self._ready.clear()
            self.backend.close()


def _note_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        _log.warning("a batch shape cannot be prepared: %s", error)


def _rounded(count: int) -> int:
    """Rounds up to a power of two, or to a multiple of 8 between 8 and 64, where the work grows
    with every eight rows: few shapes are compiled, and little of each is wasted.
    """
    if 8 < count <= 64:
        return -(-count // 8) * 8
    return 1 << (count - 1).bit_length()
