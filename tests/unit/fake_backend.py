"""A backend for tests of the engine, without a device or a model.

It asserts that each step keeps the rules of a step. Its KV cache stores token ids. It samples the
last token plus one; with `hashes`, a hash of the whole context in the KV cache, so that one wrong
block changes every token after it.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from webllm.errors import DeviceLostError
from webllm.ops.program import BatchShape, Program
from webllm.ops.sampled import Logits, Sampled, TokenLogprobs
from webllm.ops.step import FROM_SAMPLED, Step, StepLayout


class FakeBackend:
    name = "fake"
    max_step_tokens = 32
    max_prefill_tokens_with_decode = 8
    min_prefill_tokens = 1

    def __init__(
        self, vocab_size: int = 1000, max_steps_in_flight: int = 2, *, hashes: bool = False
    ) -> None:
        self.vocab_size = vocab_size
        self.max_steps_in_flight = max_steps_in_flight
        self.hashes = hashes
        self.sampled: list[int] = []  # of the newest step, as a device would keep them
        self.kv_cache: dict[tuple[int, int], int] = {}  # (block, offset) -> token
        self.steps: list[Step] = []
        self.error: Exception | None = None
        self.is_closed = False
        self._num_lost = 0  # steps that were submitted before the device was lost

    def compile(self, program: Program, shape: BatchShape) -> FakeExecutable:
        return FakeExecutable(self, shape, program.kv_cache.block_size)

    def run(self, step: Step, block_size: int) -> list[int]:
        self.steps.append(step)
        outputs: list[int] = []
        for sequence in step.sequences:
            token_ids = [self._resolved(token_id) for token_id in sequence.token_ids]
            first = sequence.context_len - len(token_ids)
            for position, token_id in enumerate(token_ids, first):
                slot = (sequence.block_table[position // block_size], position % block_size)
                self.kv_cache[slot] = token_id
            for output in sequence.outputs:
                length = first + output + 1
                context = self.context(sequence.block_table, length, block_size)
                outputs.append(self._next_token(context))
        self.sampled[: len(outputs)] = outputs
        return outputs

    def context(self, blocks: Sequence[int], num_positions: int, block_size: int) -> list[int]:
        """Returns the tokens of a sequence as its blocks hold them."""
        return [
            self.kv_cache[blocks[p // block_size], p % block_size] for p in range(num_positions)
        ]

    def recover(self) -> None:
        """Brings a failed device back: later steps work, those already submitted are lost."""
        self.error = None
        self._num_lost = len(self.steps)

    def check(self, step: Step) -> None:
        """Raises the error of a step, if it failed."""
        if self.error:
            raise self.error
        if any(lost is step for lost in self.steps[: self._num_lost]):
            raise DeviceLostError("this step was in flight when the device went away")

    def close(self) -> None:
        self.kv_cache.clear()
        self.is_closed = True

    def _resolved(self, token_id: int) -> int:
        """Returns a token id of a step; the device knows those that refer to the last sampling."""
        return self.sampled[token_id - FROM_SAMPLED] if token_id & FROM_SAMPLED else token_id

    def _next_token(self, context: list[int]) -> int:
        return (hash(tuple(context)) if self.hashes else context[-1] + 1) % self.vocab_size


class FakeExecutable:
    def __init__(self, backend: FakeBackend, shape: BatchShape, block_size: int) -> None:
        self.backend, self.shape, self.block_size = backend, shape, block_size
        self.results: deque[list[int]] = deque()  # tokens of the steps in flight
        self.steps: deque[Step] = deque()  # in flight
        self.read: list[int] = []  # tokens of the last step that was read

    async def ready(self, is_plain: bool = True) -> None: ...

    def submit(self, step: Step) -> None:
        assert step.num_tokens <= self.shape.max_tokens
        assert len(step.sequences) <= self.shape.max_seqs
        assert step.num_outputs <= self.shape.max_outputs
        # A token may refer to an output of an earlier, larger step.
        limits = replace(self.shape, max_outputs=1 << 16)
        layout = StepLayout(limits, self.block_size, 1 << 27, self.backend.vocab_size)
        layout.pack(step)  # checks the step
        self.steps.append(step)
        self.results.append(self.backend.run(step, self.block_size))
        assert len(self.results) <= self.backend.max_steps_in_flight

    async def sampled(self) -> Sampled:
        self.read, step = self.results.popleft(), self.steps.popleft()
        await asyncio.sleep(0)
        self.backend.check(step)
        return Sampled(self.read, _logprobs(step, self.read))

    async def logits(self) -> memoryview:
        """Returns logits of 0, and of 1 for the token that was sampled."""
        size = self.backend.vocab_size
        logits = array("f", bytes(4 * size * len(self.read)))
        for output, token_id in enumerate(self.read):
            logits[output * size + token_id] = 1.0
        return memoryview(logits)

    def resample(self, step: Step, logits: Sequence[Logits]) -> None:
        """Samples the token of the largest logit."""
        rows = [memoryview(row).cast("B").cast("f").tolist() for row in logits]
        self.backend.sampled = [row.index(max(row)) for row in rows]
        self.steps.append(step)
        self.results.append(self.backend.sampled)


def _logprobs(step: Step, token_ids: list[int]) -> list[TokenLogprobs | None]:
    """Returns -0.5 for the sampled token t, and as alternatives -0.5 - i for t + i."""
    wanted = [s.sampling.num_logprobs for s in step.sequences for _ in s.outputs]
    return [
        None if num is None else TokenLogprobs(-0.5, tuple((t + i, -0.5 - i) for i in range(num)))
        for num, t in zip(wanted, token_ids, strict=True)
    ]
