"""GGML blocks to our layout and back to numbers, against the `gguf` package."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import gguf
import numpy as np
import pytest
from made_up_models import halves_of

from webllm.artifacts.checkpoint import StorageType
from webllm.backends.webgpu.device.native import NativeDevice
from webllm.backends.webgpu.device.protocol import Dispatch, Slice
from webllm.backends.webgpu.kernels.matrix import (
    WEIGHT_FORMATS,
    Matrix,
    WeightFormat,
    allocate,
    common_format,
    format_of,
    reader,
)
from webllm.backends.webgpu.kernels.repack import Chunk, repack
from webllm.errors import UnsupportedModelError

VALUES = """
@group(0) @binding(0) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> scales: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;
%s
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  _ = scales[0];
  if id.x < arrayLength(&out) / 8u {
    let group = load_group(id.x);
    for (var j = 0u; j < 8u; j++) { out[8u * id.x + j] = group_value(group, j); }
  }
}
"""


def random_blocks(
    dtype: StorageType, rows: int, cols: int, seed: int = 0, largest: float = 0.01
) -> np.ndarray:
    """Returns bytes [rows, row bytes]: any bits, except f16 scales of largest / 10 and up."""
    rng = np.random.default_rng(seed)
    kind = gguf.GGMLQuantizationType(int(dtype))
    if dtype.block_elements == 1:
        values = rng.standard_normal((rows, cols)).astype(np.float32)
        return gguf.quants.quantize(values, kind).view(np.uint8).reshape(rows, -1)
    blocks = rng.integers(0, 256, (rows, cols // dtype.block_elements, dtype.block_bytes), np.uint8)
    for offset in halves_of(dtype):
        scales = rng.uniform(largest / 10, largest, blocks.shape[:2]).astype(np.float16)
        blocks[:, :, offset : offset + 2] = scales.view(np.uint8).reshape(*blocks.shape[:2], 2)
    return blocks.reshape(rows, -1)


def expected(dtype: StorageType, blocks: np.ndarray) -> np.ndarray:
    return gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType(int(dtype)))


def upload(
    device: NativeDevice, dtype: StorageType, blocks: np.ndarray, matrix: Matrix, chunk: Chunk
) -> None:
    data = blocks.tobytes()
    data += bytes(-len(data) % 4)
    staged = Slice(device.buffer(len(data)), 0, len(data))
    device.write(staged, data)
    for shard in matrix.shards:
        params = Slice(device.buffer(32), 0, 32)
        device.write(params, chunk.params(matrix, shard))
        device.replay(
            device.record([repack(device, dtype, matrix, shard, params, staged, chunk.rows)])
        )


async def values_of(device: NativeDevice, matrix: Matrix) -> np.ndarray:
    pipeline = device.pipeline(VALUES % reader(matrix.format))
    parts = []
    for shard in matrix.shards:
        size = shard.rows * matrix.cols * 4
        out = Slice(device.buffer(size), 0, size)
        groups = (-(-shard.rows * matrix.groups // 64), 1, 1)
        recording = device.record([Dispatch(pipeline, (shard.quants, shard.scales, out), groups)])
        data = await device.replay(recording, out)
        parts.append(np.frombuffer(data, np.float32).reshape(shard.rows, matrix.cols))
    return np.concatenate(parts)


def tolerance(format: WeightFormat, values: np.ndarray) -> float:
    # f16 scale times a small integer is rounded to f16 again.
    return 0.0 if format.is_float else float(np.abs(values).max()) * 2.0**-10


@pytest.mark.parametrize("dtype", list(WEIGHT_FORMATS), ids=lambda dtype: dtype.name)
async def test_every_type_against_gguf(device: NativeDevice, dtype: StorageType) -> None:
    rows, cols = 5, 768
    blocks = random_blocks(dtype, rows, cols)
    matrix = allocate(device, rows, cols, format_of(dtype))
    upload(device, dtype, blocks, matrix, Chunk(0, rows, 0, 0, 1))
    want = expected(dtype, blocks)
    got = await values_of(device, matrix)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=tolerance(matrix.format, want))
    if dtype.block_elements <= 32 and not matrix.format.mins:  # the scale is the file's own f16
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (StorageType.Q4_K, StorageType.Q6_K),
        (StorageType.Q4_0, StorageType.Q8_0),
        (StorageType.Q5_0, StorageType.Q4_0),
        (StorageType.Q3_K, StorageType.Q5_K),
        (StorageType.Q6_K, StorageType.Q8_0),
        (StorageType.F16, StorageType.Q4_1),
        (StorageType.BF16, StorageType.F32),
    ],
    ids=lambda dtype: dtype.name,
)
async def test_parts_of_two_types_join(
    device: NativeDevice, first: StorageType, second: StorageType
) -> None:
    a, b = random_blocks(first, 3, 512, 1), random_blocks(second, 4, 512, 2)
    matrix = allocate(device, 7, 512, common_format([first, second]))
    upload(device, first, a, matrix, Chunk(0, 3, 0, 0, 1))
    upload(device, second, b, matrix, Chunk(0, 4, 0, 3, 1))
    want = np.concatenate([expected(first, a), expected(second, b)])
    got = await values_of(device, matrix)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=tolerance(matrix.format, want))


async def test_halves_become_pairs_chunk_by_chunk(device: NativeDevice) -> None:
    rows, head_dim, cols = 24, 8, 96
    blocks = random_blocks(StorageType.Q4_0, rows, cols)
    matrix = allocate(device, rows, cols, format_of(StorageType.Q4_0))
    for first, count in ((0, 10), (10, 6), (16, 8)):
        chunk = Chunk(first, count, head_dim, 0, 1)
        upload(device, StorageType.Q4_0, blocks[first : first + count], matrix, chunk)
    halves = expected(StorageType.Q4_0, blocks).reshape(-1, 2, head_dim // 2, cols)
    want = halves.transpose(0, 2, 1, 3).reshape(rows, cols)
    np.testing.assert_array_equal(await values_of(device, matrix), want)


async def test_gate_and_up_interleave(device: NativeDevice) -> None:
    gate, up = (random_blocks(StorageType.Q8_0, 9, 96, seed) for seed in (1, 2))
    matrix = allocate(device, 18, 96, format_of(StorageType.Q8_0))
    upload(device, StorageType.Q8_0, gate, matrix, Chunk(0, 9, 0, 0, 2))
    upload(device, StorageType.Q8_0, up, matrix, Chunk(0, 9, 0, 1, 2))
    got = await values_of(device, matrix)
    np.testing.assert_array_equal(got[0::2], expected(StorageType.Q8_0, gate))
    np.testing.assert_array_equal(got[1::2], expected(StorageType.Q8_0, up))


async def test_a_matrix_larger_than_a_binding_is_split_by_rows(
    device: NativeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    low = replace(device.limits, max_binding_bytes=1 << 15)
    monkeypatch.setattr(device, "limits", low)
    blocks = random_blocks(StorageType.Q4_0, 700, 96)
    matrix = allocate(device, 700, 96, format_of(StorageType.Q4_0))
    assert [(s.first_row, s.rows) for s in matrix.shards] == [(0, 512), (512, 188)]
    for first in range(0, 700, 300):
        part = blocks[first : first + 300]
        upload(device, StorageType.Q4_0, part, matrix, Chunk(first, len(part), 0, 0, 1))
    np.testing.assert_array_equal(
        await values_of(device, matrix), expected(StorageType.Q4_0, blocks)
    )


def test_formats_are_the_narrowest() -> None:
    assert common_format([StorageType.Q4_K, StorageType.Q6_K]) == WeightFormat(6, 16, mins=True)
    assert common_format([StorageType.Q4_0] * 3) == WeightFormat(4, 32)
    for bits, group, mins in product((4, 5, 6, 8), (16, 32), (False, True)):
        format = WeightFormat(bits, group, mins)
        assert format.scales_bytes(8) >= 8 * (4 * format.high_words + 2 * 32 // group)


def test_odd_columns_are_refused(device: NativeDevice) -> None:
    with pytest.raises(UnsupportedModelError, match="33"):
        allocate(device, 4, 33, format_of(StorageType.F32))
