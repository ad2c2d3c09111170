"""Embedding rows against numpy, some by the output that sampled them, over shards of the table."""

import numpy as np
import pytest
from kernel_case import Array, Bench

import reference
from webllm.artifacts.checkpoint import StorageType
from webllm.backends.webgpu.device.protocol import Device
from webllm.backends.webgpu.kernels.embed import embed
from webllm.backends.webgpu.kernels.matrix import Matrix, Shard, format_of
from webllm.ops.program import BatchShape
from webllm.ops.step import Step, StepSequence, sampled_by

SHAPE = BatchShape(max_tokens=6, max_seqs=2, max_outputs=6, max_blocks=2)
VOCAB, COLS = 70, 96


def upload_shard(
    bench: Bench, kind: StorageType, random: np.random.Generator, rows: int, first_row: int
) -> tuple[Shard, Array]:
    """Uploads a shard; returns it with the numbers it holds."""
    groups = rows * COLS // 32
    if kind is StorageType.Q4_0:
        nibbles = random.integers(0, 16, (groups, 32), np.uint8)
        scales = random.normal(0, 1, (groups, 1)).astype(np.float16)
        quants = (nibbles[:, :16] | (nibbles[:, 16:] << 4)).astype(np.uint8)
        numbers = scales.astype(np.float32) * (nibbles.astype(np.float32) - 8)
        shard = Shard(first_row, rows, bench.upload(quants), bench.upload(scales))
    else:
        dtype = np.float32 if kind is StorageType.F32 else np.float16
        numbers = random.normal(0, 1, (groups, 32)).astype(dtype)
        unused = bench.upload(np.zeros(1, np.uint32))
        shard = Shard(first_row, rows, bench.upload(numbers), unused)
    return shard, numbers.reshape(rows, COLS)


@pytest.mark.parametrize("kind", [StorageType.F32, StorageType.F16, StorageType.Q4_0])
def test_embed(device: Device, kind: StorageType) -> None:
    bench = Bench(device)
    random = np.random.default_rng(5)
    shards, numbers = zip(
        *(upload_shard(bench, kind, random, rows, first) for first, rows in ((0, 40), (40, 30))),
        strict=True,
    )
    table = Matrix(VOCAB, COLS, format_of(kind.storage), shards)
    step = bench.step(
        Step(
            [
                StepSequence([3, 39, sampled_by(2)], 3, [0], []),
                StepSequence([sampled_by(1)], 1, [1], []),
            ]
        ),
        SHAPE,
    )
    sampled = np.array([0, 68, 41, 7, 1, 1], np.uint32)
    out = bench.poisoned(6 * COLS * 4)
    bench.run(
        embed(device, step=step, sampled=bench.upload(sampled), table=table, scale=1.5, out=out)
    )
    want = reference.embed(np.concatenate(numbers), np.array([3, 39, 41, 68]), 1.5)
    got = bench.written(out, 4 * COLS * 4).view(np.float32).reshape(4, COLS)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
