"""Weights that files store in several planes: MLC's, MLX's and those of compressed-tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import numpy as np
import pytest
from cpu_cases import (
    KERNELS,
    FakeCheckpoint,
    KernelsUnderTest,
    Runner,
    program_of_fused_rows,
)

from storage_cases import PLANE_TYPES, as_q4_0, plane_floats, random_planes, values_of
from webllm.artifacts.checkpoint import StorageType
from webllm.backends.cpu.formats import Format, format_of
from webllm.backends.cpu.native import NativeKernels
from webllm.backends.cpu.structs import PackingStruct
from webllm.errors import CheckpointError

ROWS, COLS = 37, 256


def packed(
    kernels: KernelsUnderTest,
    dtype: StorageType,
    planes: Sequence[np.ndarray],
    format: Format,
    quantized: StorageType | None = None,
) -> tuple[bytes, bool]:
    """Returns the panels of all rows, and whether f16 cannot hold a scale."""
    num_bytes = -(-ROWS // 16) * format.panel_bytes(COLS)
    packing, panels = kernels.allocate(PackingStruct.SIZE), kernels.allocate(num_bytes)
    struct = PackingStruct(panels.address, dtype, quantized, format, ROWS, COLS, 0, 0)
    with ExitStack() as stack:
        sources = [
            stack.enter_context(kernels.source(memoryview(plane.tobytes()))) for plane in planes
        ]
        packing.write(0, struct.pack(sources))
        kernels.pack(packing.address)
    is_out_of_range = any(packing.read(PackingStruct.OUT_OF_RANGE, 4))
    return bytes(panels.read(0, num_bytes)), is_out_of_range


def values_in(panels: bytes, format: Format) -> np.ndarray:
    """Returns what panels of four bits hold, as formats.h describes them: f32 [ROWS, COLS]."""
    blocks = np.frombuffer(panels, np.uint8).reshape(-1, COLS // 32, format.panel_bytes(32))
    both = blocks[:, :, :256].reshape(*blocks.shape[:2], 4, 16, 4)
    q = np.stack([both & 15, both >> 4], axis=4).astype(np.float32)  # [..., chunk, row, half, j]
    numbers = np.ascontiguousarray(blocks[:, :, 256:]).view("<f2").astype(np.float32)
    scale = numbers[:, :, None, :16, None, None]
    minimum = numbers[:, :, None, 16:, None, None] if format & Format.MINS else -8 * scale
    values: np.ndarray = (scale * q + minimum).transpose(0, 3, 1, 2, 4, 5)
    return values.reshape(-1, COLS)[:ROWS]


@pytest.fixture(params=KERNELS)
def kernels(request: pytest.FixtureRequest) -> Iterator[KernelsUnderTest]:
    made = KERNELS[request.param]()
    yield made
    made.close()


@pytest.mark.parametrize("dtype", PLANE_TYPES, ids=lambda dtype: dtype.name)
def test_four_bits_hold_every_value_exactly(kernels: KernelsUnderTest, dtype: StorageType) -> None:
    """Also MLC's code 15, which its writers do not emit."""
    planes = random_planes(np.random.default_rng(2), dtype, ROWS, COLS)
    assert (planes[0] >> 4 == 15).any()
    for format in {format_of(dtype.storage), Format.MINS}:
        panels, is_out_of_range = packed(kernels, dtype, planes, format)
        np.testing.assert_array_equal(values_in(panels, format), values_of(dtype, planes))
        assert not is_out_of_range


@pytest.mark.parametrize("format", [Format(flags) for flags in range(8)])
def test_mlc_has_the_bits_of_q4_0(kernels: KernelsUnderTest, format: Format) -> None:
    planes = random_planes(np.random.default_rng(3), StorageType.MLC_Q4, ROWS, COLS)
    low, high = np.minimum(planes[0] & 15, 14), np.minimum(planes[0] >> 4, 14)
    planes[0] = low | high << 4
    got = packed(kernels, StorageType.MLC_Q4, planes, format)
    assert got == packed(kernels, StorageType.Q4_0, [as_q4_0(planes)], format)


@pytest.mark.parametrize("dtype", PLANE_TYPES, ids=lambda dtype: dtype.name)
def test_scales_that_f16_cannot_hold_are_told(
    kernels: KernelsUnderTest, dtype: StorageType
) -> None:
    values = (65536.0, -65536.0, np.inf, np.nan) if dtype.storage.bf16 else (np.inf, np.nan)
    for plane in range(1, len(dtype.plane_bytes)):
        for value in values:
            planes = random_planes(np.random.default_rng(4), dtype, ROWS, COLS)
            planes[plane][ROWS - 1, -2:] = plane_floats(dtype, np.array([value]))
            assert packed(kernels, dtype, planes, format_of(dtype.storage))[1], (plane, value)
            assert packed(kernels, dtype, planes, Format.F32)[1], (plane, value)


def test_a_tensor_with_such_scales_is_refused() -> None:
    checkpoint = FakeCheckpoint()
    program = program_of_fused_rows(checkpoint, StorageType.MLC_Q4_BF16)
    data = bytearray(checkpoint.bytes_of["v"])
    data[-2:] = plane_floats(StorageType.MLC_Q4_BF16, np.array([1e5])).tobytes()
    checkpoint.bytes_of["v"] = bytes(data)
    with pytest.raises(CheckpointError, match="v has scales beyond 65504"):
        Runner(NativeKernels(1), program, checkpoint)
