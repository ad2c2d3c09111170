"""Blocks of every storage type to our layout and back to numbers, against the `gguf` package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import gguf
import numpy as np
import pytest
from made_up_models import halves_of

from storage_cases import (
    FLOAT_TYPES,
    PLANE_TYPES,
    QUANTIZED,
    TYPES,
    as_q4_0,
    plane_floats,
    quantizable,
    quantized_rows,
    random_planes,
    values_of,
)
from webllm.artifacts.checkpoint import StorageType
from webllm.backends.webgpu.device.native import NativeDevice
from webllm.backends.webgpu.device.protocol import Dispatch, Slice
from webllm.backends.webgpu.kernels.matrix import (
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


def random_rows(
    dtype: StorageType, rows: int, cols: int, seed: int = 0, largest: float = 0.01
) -> list[np.ndarray]:
    """Returns planes, uint8 [rows, bytes]: any bits, except scales of largest / 10 and up."""
    rng = np.random.default_rng(seed)
    if dtype in PLANE_TYPES:
        return random_planes(rng, dtype, rows, cols)
    if dtype.block_elements == 1:
        kind = gguf.GGMLQuantizationType(int(dtype))
        values = rng.standard_normal((rows, cols)).astype(np.float32)
        return [gguf.quants.quantize(values, kind).view(np.uint8).reshape(rows, -1)]
    blocks = rng.integers(0, 256, (rows, cols // dtype.block_elements, dtype.block_bytes), np.uint8)
    for offset in halves_of(dtype):
        scales = rng.uniform(largest / 10, largest, blocks.shape[:2]).astype(np.float16)
        blocks[:, :, offset : offset + 2] = scales.view(np.uint8).reshape(*blocks.shape[:2], 2)
    return [blocks.reshape(rows, -1)]


def upload(
    device: NativeDevice,
    dtype: StorageType,
    planes: Sequence[np.ndarray],
    matrix: Matrix,
    chunk: Chunk,
    quantized: StorageType | None = None,
) -> Slice:
    """Repacks rows; returns the word that tells of scales that f16 cannot hold."""
    staged, fault = [staged_bytes(device, plane) for plane in planes], Slice(device.buffer(4), 0, 4)
    for shard in matrix.shards:
        params = Slice(device.buffer(32), 0, 32)
        device.write(params, chunk.params(matrix, shard))
        dispatch = repack(
            device, dtype, matrix, shard, params, staged, chunk.rows, fault, quantized
        )
        device.replay(device.record([dispatch]))
    return fault


def staged_bytes(device: NativeDevice, plane: np.ndarray) -> Slice:
    data = plane.tobytes()
    data += bytes(-len(data) % 4)
    staged = Slice(device.buffer(len(data)), 0, len(data))
    device.write(staged, data)
    return staged


async def read_back(device: NativeDevice, matrix: Matrix) -> np.ndarray:
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


@pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: dtype.name)
async def test_every_type_against_gguf(device: NativeDevice, dtype: StorageType) -> None:
    rows, cols = 5, 768
    planes = random_rows(dtype, rows, cols)
    matrix = allocate(device, rows, cols, format_of(dtype.storage))
    fault = upload(device, dtype, planes, matrix, Chunk(0, rows, 0, 0, 1))
    want = values_of(dtype, planes)
    got = await read_back(device, matrix)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=tolerance(matrix.format, want))
    if dtype.block_elements <= 32 and not matrix.format.mins:  # the scale is the file's own f16
        np.testing.assert_array_equal(got, want)
    assert not any(await device.read(fault))


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
        (StorageType.MLC_Q4, StorageType.Q4_0),
        (StorageType.MLC_Q4, StorageType.Q4_1),
        (StorageType.MLC_Q4_BF16, StorageType.Q6_K),
        (StorageType.AFFINE4, StorageType.GROUP4),
        (StorageType.MLC_Q4, StorageType.F16),
    ],
    ids=lambda dtype: dtype.name,
)
async def test_parts_of_two_types_join(
    device: NativeDevice, first: StorageType, second: StorageType
) -> None:
    a, b = random_rows(first, 3, 512, 1), random_rows(second, 4, 512, 2)
    matrix = allocate(device, 7, 512, common_format([first.storage, second.storage]))
    upload(device, first, a, matrix, Chunk(0, 3, 0, 0, 1))
    upload(device, second, b, matrix, Chunk(0, 4, 0, 3, 1))
    want = np.concatenate([values_of(first, a), values_of(second, b)])
    got = await read_back(device, matrix)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=tolerance(matrix.format, want))


@pytest.mark.parametrize(
    "dtype", [StorageType.Q4_0, StorageType.MLC_Q4], ids=lambda dtype: dtype.name
)
async def test_halves_become_pairs_chunk_by_chunk(device: NativeDevice, dtype: StorageType) -> None:
    rows, head_dim, cols = 24, 8, 96
    planes = random_rows(dtype, rows, cols)
    matrix = allocate(device, rows, cols, format_of(dtype.storage))
    for first, count in ((0, 10), (10, 6), (16, 8)):
        chunk = Chunk(first, count, head_dim, 0, 1)
        upload(device, dtype, [plane[first : first + count] for plane in planes], matrix, chunk)
    halves = values_of(dtype, planes).reshape(-1, 2, head_dim // 2, cols)
    want = halves.transpose(0, 2, 1, 3).reshape(rows, cols)
    np.testing.assert_array_equal(await read_back(device, matrix), want)


async def test_gate_and_up_interleave(device: NativeDevice) -> None:
    gate, up = (random_rows(StorageType.Q8_0, 9, 96, seed) for seed in (1, 2))
    matrix = allocate(device, 18, 96, format_of(StorageType.Q8_0.storage))
    upload(device, StorageType.Q8_0, gate, matrix, Chunk(0, 9, 0, 0, 2))
    upload(device, StorageType.Q8_0, up, matrix, Chunk(0, 9, 0, 1, 2))
    got = await read_back(device, matrix)
    np.testing.assert_array_equal(got[0::2], values_of(StorageType.Q8_0, gate))
    np.testing.assert_array_equal(got[1::2], values_of(StorageType.Q8_0, up))


async def test_a_matrix_larger_than_a_binding_is_split_by_rows(
    device: NativeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    low = replace(device.limits, max_binding_bytes=1 << 15)
    monkeypatch.setattr(device, "limits", low)
    [blocks] = random_rows(StorageType.Q4_0, 700, 96)
    matrix = allocate(device, 700, 96, format_of(StorageType.Q4_0.storage))
    assert [(s.first_row, s.rows) for s in matrix.shards] == [(0, 512), (512, 188)]
    for first in range(0, 700, 300):
        part = blocks[first : first + 300]
        upload(device, StorageType.Q4_0, [part], matrix, Chunk(first, len(part), 0, 0, 1))
    np.testing.assert_array_equal(
        await read_back(device, matrix), values_of(StorageType.Q4_0, [blocks])
    )


async def test_mlc_has_the_bits_of_q4_0(device: NativeDevice) -> None:
    planes = random_rows(StorageType.MLC_Q4, 9, 96)
    planes[0] = np.minimum(planes[0] & 15, 14) | np.minimum(planes[0] >> 4, 14) << 4
    found = []
    for dtype, stored in (
        (StorageType.MLC_Q4, planes),
        (StorageType.Q4_0, [as_q4_0(planes)]),
    ):
        matrix = allocate(device, 9, 96, format_of(dtype.storage))
        upload(device, dtype, stored, matrix, Chunk(0, 9, 0, 0, 1))
        [shard] = matrix.shards
        found.append([await device.read(each) for each in (shard.quants, shard.scales)])
    assert found[0] == found[1]


@pytest.mark.parametrize("dtype", PLANE_TYPES, ids=lambda dtype: dtype.name)
async def test_scales_that_f16_cannot_hold_are_told(
    device: NativeDevice, dtype: StorageType
) -> None:
    matrix = allocate(device, 5, 256, format_of(dtype.storage))
    for plane in range(1, len(dtype.plane_bytes)):
        for value in (7e4, -7e4, np.inf, np.nan) if dtype.storage.bf16 else (np.inf, np.nan):
            planes = random_rows(dtype, 5, 256)
            planes[plane][3, -2:] = plane_floats(dtype, np.array([value]))
            fault = upload(device, dtype, planes, matrix, Chunk(0, 5, 0, 0, 1))
            assert any(await device.read(fault)), (plane, value)


async def bits_of(device: NativeDevice, matrix: Matrix) -> list[bytes]:
    [shard] = matrix.shards
    return [bytes(await device.read(each)) for each in (shard.quants, shard.scales)]


@pytest.mark.parametrize("quantized", QUANTIZED, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("dtype", FLOAT_TYPES, ids=lambda dtype: dtype.name)
async def test_quantized_floats_have_the_bits_of_a_quantized_file(
    device: NativeDevice, dtype: StorageType, quantized: StorageType
) -> None:
    """In rows of pairs, also beside a tensor of another type."""
    stored = quantizable(np.random.default_rng(5), dtype, 45, 512)
    rows = quantized_rows(dtype, stored, quantized)
    for format in (format_of(quantized.storage), WeightFormat(8, 16, mins=True)):
        found = []
        for kind, data, becomes in ((dtype, stored, quantized), (quantized, rows, None)):
            matrix = allocate(device, 45, 512, format)
            fault = upload(device, kind, [data], matrix, Chunk(0, 45, 6, 0, 1), becomes)
            found.append(await bits_of(device, matrix))
            assert not any(await device.read(fault))
        assert found[0] == found[1]


@pytest.mark.parametrize("quantized", QUANTIZED, ids=lambda dtype: dtype.name)
async def test_floats_beyond_the_largest_scale_are_told(
    device: NativeDevice, quantized: StorageType
) -> None:
    largest = 65504 * (8 if quantized is StorageType.Q4_0 else 127)
    for value in (largest + 1, -largest - 1, np.inf, np.nan, largest, -largest):
        rows = np.zeros((5, 96), "<f4")
        rows[4, 95] = value
        matrix = allocate(device, 5, 96, format_of(quantized.storage))
        chunk = Chunk(0, 5, 0, 0, 1)
        fault = upload(device, StorageType.F32, [rows], matrix, chunk, quantized)
        assert any(await device.read(fault)) is not bool(abs(value) <= largest), value


def test_formats_are_the_narrowest() -> None:
    assert common_format([StorageType.Q4_K.storage, StorageType.Q6_K.storage]) == WeightFormat(
        6, 16, mins=True
    )
    assert common_format([StorageType.Q4_0.storage] * 3) == WeightFormat(4, 32)
    for bits, group, mins in product((4, 5, 6, 8), (16, 32), (False, True)):
        format = WeightFormat(bits, group, mins)
        assert format.scales_bytes(8) >= 8 * (4 * format.high_words + 2 * 32 // group)


def test_odd_columns_are_refused(device: NativeDevice) -> None:
    with pytest.raises(UnsupportedModelError, match="33"):
        allocate(device, 4, 33, format_of(StorageType.F32.storage))
