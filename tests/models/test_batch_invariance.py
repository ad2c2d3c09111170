"""On the CPU a sequence's logits are the same bits in any batch and however its tokens are cut."""

from __future__ import annotations

import random
from array import array
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from golden import compare
from webllm.artifacts.local_files import open_local
from webllm.backends.cpu.backend import CPUBackend
from webllm.backends.cpu.native import NativeKernels
from webllm.models import registry
from webllm.ops.program import BatchShape
from webllm.ops.step import Step, StepSequence

LENGTH = 600  # more than two spans of attention
SEQUENCE_BLOCKS = 64  # of 16 positions
LIMITS = BatchShape(max_tokens=640, max_seqs=16, max_outputs=16, max_blocks=SEQUENCE_BLOCKS)


class Logits:
    """Runs chunks of made-up sequences; sequence k has its own blocks."""

    def __init__(self, backend: CPUBackend, path: Path) -> None:
        self.backend, self.path = backend, path
        rng = random.Random(1)
        self.sequences = [
            array("I", [rng.randrange(40_000) for _ in range(length)])
            for length in (LENGTH, *range(40, 340, 20))
        ]

    async def load(self) -> None:
        with open_local(self.path) as checkpoint:
            program = registry.record(checkpoint, 16 * SEQUENCE_BLOCKS)
            num_blocks = SEQUENCE_BLOCKS * len(self.sequences)
            await self.backend.load(program, checkpoint, num_blocks, LIMITS, lambda *_: None)
        self.executable = self.backend.compile(program, LIMITS)

    def share(self, k: int, begin: int, end: int) -> StepSequence:
        blocks = array("I", range(k * SEQUENCE_BLOCKS, k * SEQUENCE_BLOCKS + -(-end // 16)))
        return StepSequence(self.sequences[k][begin:end], end, blocks, (end - begin - 1,))

    def last(self, k: int) -> StepSequence:
        length = len(self.sequences[k])
        return self.share(k, length - 1, length)

    async def run(self, *shares: StepSequence) -> np.ndarray:
        """Returns the logits of the last chunk's last token."""
        self.executable.submit(Step(shares))
        await self.executable.sampled()
        flat = np.frombuffer(await self.executable.logits(), np.float32)
        last: np.ndarray = flat.reshape(len(shares), -1)[-1]
        return last.copy()


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("model", ["smollm2-135m", "gemma3-270m"])
async def test_logits_do_not_depend_on_the_batch(model: str, num_threads: int) -> None:
    backend = CPUBackend(NativeKernels(num_threads))
    logits = Logits(backend, await compare.model_path(model))
    await logits.load()
    try:
        expected = await logits.run(logits.share(0, 0, LENGTH))
        for cuts in ([0, 599, 600], [0, 16, 300, 600], [0, 592, *range(593, 601)]):
            for begin, end in pairwise(cuts):
                found = await logits.run(logits.share(0, begin, end))
            assert np.array_equal(found, expected), cuts
        others = range(1, len(logits.sequences))
        for k in others:
            await logits.run(logits.share(k, 0, len(logits.sequences[k]) - 1))
        for count in (1, 2, 7, 8, 15):
            batch = [logits.last(k) for k in others[:count]]
            found = await logits.run(*batch, logits.last(0))
            assert np.array_equal(found, expected), count
        decoding = [logits.last(k) for k in others]
        found = await logits.run(*decoding, logits.share(0, 200, LENGTH))
        assert np.array_equal(found, expected), "beside decoding sequences"
    finally:
        backend.close()
