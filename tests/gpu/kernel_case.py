"""Shared by the kernel tests: device buffers filled from numpy arrays, steps, kernel variants."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from webllm.backends.webgpu.device.protocol import Device, Dispatch, Slice
from webllm.backends.webgpu.kernels.activation import GROUP, ActivationFormat, Encoded, row_bytes
from webllm.backends.webgpu.kernels.step_buffer import StepBuffer
from webllm.backends.webgpu.kernels.variant import SCALAR, KernelVariant
from webllm.ops.program import BatchShape
from webllm.ops.step import Step, StepLayout

Array = NDArray[Any]
POISON = 0x7FC0DEAD  # a NaN
I8, F32 = ActivationFormat


def variants(device: Device) -> list[KernelVariant]:
    """Returns every variant that runs here: workgroup memory, scalar, subgroups."""
    found = [KernelVariant(I8, kv_f16=True, subgroup=0, barriers=True), SCALAR]
    if device.features.subgroups:
        found.append(variant_of(device, "subgroup"))
    return found


def variant_of(
    device: Device, name: str, activation: ActivationFormat = ActivationFormat.I8
) -> KernelVariant:
    match name:
        case "scalar":
            return SCALAR
        case "workgroup":
            return KernelVariant(activation, kv_f16=True, subgroup=0, barriers=True)
        case "workgroup f32":
            return KernelVariant(F32, kv_f16=True, subgroup=0, barriers=True)
        case "subgroup":
            return KernelVariant(activation, True, subgroup_size(device), barriers=True)
    raise ValueError(name)


def subgroup_size(device: Device) -> int:
    """Returns the subgroup size; lavapipe reports 4 to 128 and always runs 8 (256-bit vectors)."""
    features = device.features
    fixed = features.subgroup_min == features.subgroup_max
    return features.subgroup_max if fixed else 8


class Bench:
    """Uploads data, runs kernels and reads results back."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def upload(self, data: Array) -> Slice:
        raw = np.ascontiguousarray(data).tobytes()
        raw += bytes(-len(raw) % 4)
        buffer = self.device.buffer(len(raw))
        part = Slice(buffer, 0, buffer.size)
        self.device.write(part, raw)
        return part

    def poisoned(self, num_bytes: int) -> Slice:
        """Returns memory filled with POISON, and some more after its end."""
        return self.upload(np.full(-(-num_bytes // 256) * 64 + 64, POISON, np.uint32))

    def encoded(self, format: ActivationFormat, rows: int, cols: int) -> Encoded:
        return Encoded(format, *(self.poisoned(rows * size) for size in row_bytes(format, cols)))

    def step(self, step: Step, shape: BatchShape) -> StepBuffer:
        layout = StepLayout(shape, 16, num_blocks=1 << 27, num_token_ids=1 << 31)
        words = np.full(layout.num_words, POISON, np.uint32)
        packed = np.frombuffer(layout.pack(step), np.uint32)
        words[: len(packed)] = packed
        return StepBuffer(
            self.upload(words),
            layout,
            shape.max_tokens,
            shape.max_seqs,
            shape.max_outputs,
            shape.max_blocks,
        )

    def run(self, dispatches: Sequence[Dispatch] | Dispatch) -> None:
        if isinstance(dispatches, Dispatch):
            dispatches = [dispatches]
        asyncio.run(_replay(self.device, dispatches))

    def read(self, part: Slice, dtype: Any = np.float32) -> Array:
        return np.frombuffer(asyncio.run(_read(self.device, part)), dtype)

    def decoded(self, out: Encoded, rows: int, cols: int) -> Array:
        """Returns the first `rows` rows as floats; checks that nothing else was written."""
        sizes = row_bytes(out.format, cols)
        values = self.written(out.values, rows * sizes[0])
        if out.format is F32:
            return values.view(np.float32).reshape(rows, cols)
        assert out.scales is not None
        q = values.view(np.int8).reshape(rows, -1, GROUP).astype(np.float32)
        scales = self.written(out.scales, rows * sizes[1]).view(np.float32).reshape(rows, -1, 2)
        np.testing.assert_allclose(scales[..., 1], scales[..., 0] * q.sum(-1), rtol=1e-5, atol=1e-6)
        return (q * scales[..., :1]).reshape(rows, cols)

    def written(self, part: Slice, num_bytes: int) -> Array:
        """Returns the first bytes; checks that the words after them are still POISON."""
        words = self.read(part, np.uint32)
        assert (words[num_bytes // 4 :] == POISON).all(), "written past the end"
        return words[: num_bytes // 4]


async def _replay(device: Device, dispatches: Sequence[Dispatch]) -> None:
    await device.replay(device.record(dispatches), None)


async def _read(device: Device, part: Slice) -> bytes:
    return await device.read(part)


def close(format: ActivationFormat, got: Array, want: Array, kv_f16: bool = False) -> None:
    """Compares decoded values of an activation format with exact ones."""
    want = want.astype(np.float64)
    if format is I8:
        groups = np.abs(want).reshape(len(want), -1, GROUP).max(-1, keepdims=True)
        allowed = np.repeat(groups / 127 * 0.51, GROUP, -1).reshape(want.shape) + 2e-5
    else:
        allowed = np.abs(want) * 2e-5 + 2e-5
    if kv_f16:
        allowed = allowed + 2e-3
    worst = np.max(np.abs(got - want) - allowed)
    assert worst <= 0, f"off by {worst} more than allowed"
