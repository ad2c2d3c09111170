"""Copying output rows."""

import numpy as np
import pytest
from kernel_case import Bench

from webllm.backends.webgpu.device.protocol import Device
from webllm.backends.webgpu.kernels.take_outputs import take_outputs
from webllm.ops.program import BatchShape
from webllm.ops.step import Step, StepSequence


@pytest.mark.parametrize("row_words", [1, 63, 64, 576])
def test_take_outputs(device: Device, row_words: int) -> None:
    bench = Bench(device)
    shape = BatchShape(max_tokens=9, max_seqs=2, max_outputs=6, max_blocks=2)
    sequences = [
        StepSequence([1, 2, 3], 3, [0], [2]),
        StepSequence([4, 5, 6, 7], 4, [1], [0, 2, 3]),
    ]
    step = bench.step(Step(sequences), shape)
    x = np.random.default_rng(1).integers(0, 2**32, (9, row_words), np.uint32)
    out = bench.poisoned(6 * row_words * 4)
    bench.run(take_outputs(device, step=step, row_words=row_words, x=bench.upload(x), out=out))
    got = bench.written(out, 4 * row_words * 4).reshape(4, row_words)
    np.testing.assert_array_equal(got, x[[2, 3, 5, 6]])
