"""Runs batches on a backend: one executable per batch shape, compiled once, replayed per step."""

from __future__ import annotations

from collections import deque
from contextlib import suppress

from webllm.engine.processing import Drawn, HostSampler
from webllm.engine.scheduler import Batch
from webllm.ops.backend import Backend, Executable
from webllm.ops.program import BatchShape, Program


class Runner:
    """`limits` is the largest batch there will be; `host_sampler` has a hand in every draw."""

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
        self._in_flight: deque[tuple[Batch, Executable]] = deque()

    @property
    def num_in_flight(self) -> int:
        return len(self._in_flight)

    @property
    def has_room(self) -> bool:
        """Whether the device takes another step before one has been read."""
        most = 1 if self.host_sampler else self.backend.steps_in_flight
        return len(self._in_flight) < most

    def submit(self, batch: Batch) -> None:
        executable = self.executable(batch)
        step = batch.step.without_sampling() if self.host_sampler else batch.step
        executable.submit(step)
        self._in_flight.append((batch, executable))

    async def oldest(self) -> tuple[Batch, Drawn]:
        """The oldest batch in flight and the tokens it sampled, in order of its outputs."""
        batch, executable = self._in_flight.popleft()
        sampled = await executable.sampled()
        if self.host_sampler and batch.sampled:
            return batch, await self.host_sampler.resample(executable, batch.step)
        return batch, Drawn(sampled)

    async def discard(self) -> None:
        """Waits for the steps in flight and drops what they gave, errors included: the sequences
        they were for have failed.
        """
        while self._in_flight:
            _, executable = self._in_flight.popleft()
            with suppress(Exception):
                await executable.sampled()

    def compile(self, num_tokens: int, num_seqs: int) -> Executable:
        """The executable for up to so many tokens and sequences; outputs are at most one each."""
        shape = BatchShape(
            max_tokens=min(_rounded(num_tokens), self.limits.max_tokens),
            max_seqs=min(_rounded(num_seqs), self.limits.max_seqs),
            max_outputs=min(_rounded(num_seqs), self.limits.max_outputs),
            max_blocks=self.limits.max_blocks,
        )
        if shape not in self._executables:
            self._executables[shape] = self.backend.compile(self.program, shape)
        return self._executables[shape]

    def executable(self, batch: Batch) -> Executable:
        num_tokens = batch.step.num_tokens
        if batch.reads_prompts:
            num_tokens = max(num_tokens, self.backend.least_prompt_tokens)
        return self.compile(num_tokens, len(batch.step.sequences))

    def close(self) -> None:
        self._in_flight.clear()
        self._executables.clear()
        self.backend.close()


def _rounded(count: int) -> int:
    """Up to a power of two, or between 8 and 64, where work grows with every eight rows, to eight:
    few shapes are compiled, and little of each goes to waste.
    """
    if 8 < count <= 64:
        return -(-count // 8) * 8
    return 1 << (count - 1).bit_length()
