"""A backend without a device: token t is followed by t + 1, and every rule of a step is checked."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from webllm.ops.program import BatchShape, Program
from webllm.ops.step import Step


class FakeBackend:
    name = "fake"

    def __init__(self, vocab_size: int = 1000, steps_in_flight: int = 2) -> None:
        self.vocab_size = vocab_size
        self.steps_in_flight = steps_in_flight
        self.sampled: list[int] = []
        self.kv_cache: dict[tuple[int, int], int] = {}  # (block, offset) -> token
        self.steps: list[Step] = []
        self.error: Exception | None = None

    def compile(self, program: Program, shape: BatchShape) -> FakeExecutable:
        return FakeExecutable(self, shape, program.kv_cache.block_size)

    def run(self, step: Step, block_size: int) -> list[int]:
        self.steps.append(step)
        outputs = []
        for row, sequence in enumerate(step.sequences):
            token_ids = [self.sampled[row]] if step.chained else list(sequence.token_ids)
            first = sequence.context_len - len(token_ids)
            for position, token_id in enumerate(token_ids, first):
                slot = (sequence.blocks[position // block_size], position % block_size)
                self.kv_cache[slot] = token_id
            outputs += [(token_ids[output] + 1) % self.vocab_size for output in sequence.outputs]
        self.sampled = outputs
        return outputs

    def context(self, blocks: Sequence[int], num_positions: int, block_size: int) -> list[int]:
        return [
            self.kv_cache[blocks[p // block_size], p % block_size] for p in range(num_positions)
        ]

    def close(self) -> None:
        self.kv_cache.clear()


class FakeExecutable:
    def __init__(self, backend: FakeBackend, shape: BatchShape, block_size: int) -> None:
        self.backend, self.shape, self.block_size = backend, shape, block_size
        self.results: deque[list[int]] = deque()

    def submit(self, step: Step) -> None:
        assert step.num_tokens <= self.shape.max_tokens
        assert len(step.sequences) <= self.shape.max_seqs
        assert step.num_outputs <= self.shape.max_outputs
        self.results.append(self.backend.run(step, self.block_size))
        assert len(self.results) <= self.backend.steps_in_flight

    async def tokens(self) -> Sequence[int]:
        tokens = self.results.popleft()
        await asyncio.sleep(0)
        if self.backend.error:
            raise self.backend.error
        return tokens
