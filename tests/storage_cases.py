"""The values of weights as files store them: of GGUF's types by the package `gguf`."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from webllm.artifacts.checkpoint import StorageType, TensorInfo

Array = np.ndarray

TYPES = [dtype for dtype in StorageType if dtype.supported]
GGUF_TYPES = [dtype for dtype in TYPES if dtype.is_ggml]
PLANE_TYPES = [dtype for dtype in TYPES if len(dtype.plane_bytes) > 1]
FLOAT_TYPES = [dtype for dtype in TYPES if dtype.storage.is_float]
QUANTIZED = [StorageType.Q4_0, StorageType.Q8_0]  # what floats may become on a device


def quantizable(rng: np.random.Generator, dtype: StorageType, rows: int, cols: int) -> Array:
    """Returns floats of many sizes as a file stores them, uint8 [rows, bytes].

    Some groups are zeros, or have numbers halfway between two codes.
    """
    sizes = 10.0 ** rng.uniform(-6, 4, (rows, cols // 32, 1))
    values = rng.standard_normal((rows, cols // 32, 32)) * sizes
    values[0, 0] = 0
    values[1, 0, :17] = np.arange(17) - 7.5
    values[1, 0, 17:] = 8
    values[2, 0] = np.arange(32) * 4 - 63.5
    values[2, 0, 9] = -127
    floats = values.reshape(rows, cols).astype("<f4")
    return floats.view(np.uint8) if dtype is StorageType.F32 else plane_floats(dtype, floats)


def quantized_rows(dtype: StorageType, stored: Array, quantized: StorageType) -> Array:
    """Returns rows of floats as the package `gguf` quantizes them, uint8 [rows, bytes]."""
    rows: Array = quantize(values_of(dtype, [stored]), GGMLQuantizationType(quantized))
    return rows


def plane_floats(dtype: StorageType, values: Array) -> Array:
    """Returns f32 values as the bytes of a plane of scales or minimums."""
    if not dtype.storage.bf16:
        return values.astype("<f2").view(np.uint8)
    return (values.astype("<f4").view("<u4") >> 16).astype("<u2").view(np.uint8)


def random_planes(
    rng: np.random.Generator, dtype: StorageType, rows: int, cols: int
) -> list[Array]:
    """Returns random planes of a type that has several, uint8 [rows, bytes]: all codes are valid.

    A code of 15 is rare in MLC_Q4: its writers do not emit it.
    """
    blocks = cols // dtype.block_elements
    codes = rng.integers(0, 16, (rows, cols), np.uint8)
    if dtype.storage.zero == 7:
        codes = np.where(rng.random((rows, 1)) < 0.7, np.minimum(codes, 14), codes)
    numbers = [
        rng.uniform(0.001, 0.05, (rows, blocks)) * rng.choice([-1, 1], (rows, blocks))
        for _ in dtype.plane_bytes[1:]
    ]
    return [codes[:, ::2] | codes[:, 1::2] << 4, *(plane_floats(dtype, each) for each in numbers)]


def as_q4_0(planes: Sequence[Array]) -> Array:
    """Returns rows of MLC_Q4 whose codes are below 15 as rows of Q4_0: [rows, bytes]."""
    rows = len(planes[0])
    codes = (planes[0][:, :, None] >> np.array([0, 4], np.uint8) & 15).reshape(rows, -1, 32) + 1
    scales = planes[1].reshape(rows, -1, 2)
    nibbles = codes[:, :, :16] | codes[:, :, 16:] << 4
    return np.concatenate([scales, nibbles.astype(np.uint8)], axis=-1).reshape(rows, -1)


def planes_in(tensor: TensorInfo, data: bytes | memoryview) -> list[Array]:
    """Returns the planes of a tensor whose file is `data`, uint8 [rows, bytes]."""
    rows = prod(tensor.shape[:-1])
    return [
        np.frombuffer(data, np.uint8, rows * size, plane.offset).reshape(rows, size)
        for plane, size in zip(tensor.planes, tensor.row_bytes, strict=True)
    ]


def values_of(dtype: StorageType, planes: Sequence[Array]) -> Array:
    """Returns the values of rows that are stored in these planes: f32 [rows, cols]."""
    if len(planes) == 1:
        stored: Array = dequantize(planes[0], GGMLQuantizationType(dtype))
        return stored
    codes = np.stack([planes[0] & 15, planes[0] >> 4], axis=-1).reshape(len(planes[0]), -1)
    scale, *minimum = (_repeated(dtype, plane) for plane in planes[1:])
    values: Array = (codes.astype(np.float32) - dtype.storage.zero) * scale
    return values + minimum[0] if minimum else values


def _repeated(dtype: StorageType, plane: Array) -> Array:
    if dtype.storage.bf16:
        numbers = (np.ascontiguousarray(plane).view("<u2").astype("<u4") << 16).view("<f4")
    else:
        numbers = np.ascontiguousarray(plane).view("<f2").astype("<f4")
    repeated: Array = np.repeat(numbers, dtype.block_elements, axis=1)
    return repeated
