"""Batch invariance on WebGPU: a token's logits are the same bits in any batch.

This holds for one kind of product; prefill always runs gemm, decode always gemv.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from kernel_case import variant_of
from test_webgpu_backend import BLOCKS, CHECKPOINT, PROGRAM, VOCAB

from webllm.backends.webgpu.backend import WebGPUBackend
from webllm.backends.webgpu.device.native import NativeDevice
from webllm.backends.webgpu.kernels.linear.gemv import MAX_GEMV_ROWS
from webllm.ops.program import BatchShape
from webllm.ops.step import Step, StepSequence

LENGTH = 100
NUM_SEQS = 12
LIMITS = BatchShape(2 * MAX_GEMV_ROWS, 16, 16, BLOCKS)


class Logits:
    """Runs chunks of made-up sequences; sequence k has its own blocks."""

    def __init__(self, backend: WebGPUBackend) -> None:
        self.backend = backend
        self.ids = np.random.default_rng(0).integers(0, VOCAB, (NUM_SEQS, LENGTH)).tolist()

    def share(self, k: int, begin: int, end: int) -> StepSequence:
        blocks = list(range(k * BLOCKS, (k + 1) * BLOCKS))
        return StepSequence(self.ids[k][begin:end], end, blocks, [end - begin - 1])

    async def prompts(self, *shares: StepSequence, shape: BatchShape = LIMITS) -> np.ndarray:
        return await self._last_row(shape, shares)

    async def decoded(self, *shares: StepSequence, rows: int | None = None) -> np.ndarray:
        rows = rows or 1 << (len(shares) - 1).bit_length()
        return await self._last_row(BatchShape(rows, rows, rows, BLOCKS), shares)

    async def _last_row(self, shape: BatchShape, shares: tuple[StepSequence, ...]) -> np.ndarray:
        executable = self.backend.compile(PROGRAM, shape)
        executable.submit(Step(shares))
        await executable.sampled()
        logits = np.array(await executable.logits()).reshape(len(shares), VOCAB)
        last: np.ndarray = logits[-1]
        return last


@pytest.mark.parametrize("name", ["workgroup", "subgroup", "workgroup f32"])
async def test_logits_do_not_depend_on_the_batch(device: NativeDevice, name: str) -> None:
    backend = WebGPUBackend(device, variant_of(device, name))
    assert backend.min_prefill_tokens > MAX_GEMV_ROWS
    assert backend.max_prefill_tokens_with_decode == 0
    await backend.load(PROGRAM, CHECKPOINT, NUM_SEQS * BLOCKS, LIMITS, lambda *_: None)
    logits = Logits(backend)
    whole = await logits.prompts(logits.share(0, 0, LENGTH))
    for cuts in ([0, 99, 100], [0, 33, 100]):
        for begin, end in pairwise(cuts):
            found = await logits.prompts(logits.share(0, begin, end))
        assert np.array_equal(found, whole), cuts
    beside = await logits.prompts(logits.share(1, 0, 70), logits.share(0, 50, LENGTH))
    assert np.array_equal(beside, whole), "beside another prompt"

    for num_seqs in (1, 4):
        shape = BatchShape(LIMITS.max_tokens, num_seqs, num_seqs, BLOCKS)
        found = await logits.prompts(logits.share(0, 0, LENGTH), shape=shape)
        assert np.array_equal(found, whole), "in an executable for fewer sequences"

    others = [logits.share(k, 0, 1) for k in range(1, NUM_SEQS)]
    last = logits.share(0, LENGTH - 1, LENGTH)
    alone = await logits.decoded(last)
    for count in (1, 2, 5, 8, 11):
        assert np.array_equal(await logits.decoded(*others[:count], last), alone), count
    for rows in (2, 8, 16):
        found = await logits.decoded(last, rows=rows)
        assert np.array_equal(found, alone), "in an executable for more sequences"


@pytest.mark.parametrize("name", ["workgroup", "subgroup", "workgroup f32", "scalar"])
async def test_replayed_tokens_are_decoded_as_they_were(device: NativeDevice, name: str) -> None:
    """Several tokens of one sequence are rows of one step."""
    backend = WebGPUBackend(device, variant_of(device, name))
    await backend.load(PROGRAM, CHECKPOINT, NUM_SEQS * BLOCKS, LIMITS, lambda *_: None)
    logits = Logits(backend)
    prompt, rows = logits.share(0, 0, 60), range(60, LENGTH)
    await logits.prompts(prompt)
    for row in rows:
        expected = await logits.decoded(logits.share(0, row, row + 1))
    for num_rows in (4, 16):
        await logits.prompts(prompt)
        for i in range(0, len(rows), num_rows):
            shares = [logits.share(0, row, row + 1) for row in rows[i : i + num_rows]]
            found = await logits.decoded(*shares)
        assert np.array_equal(found, expected), num_rows
