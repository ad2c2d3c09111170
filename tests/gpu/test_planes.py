"""Weights that are no rows of blocks, loaded in chunks.

Those of several planes (MLC's, MLX's and compressed-tensors'), and floats quantized meanwhile.
"""

from __future__ import annotations

import numpy as np
import pytest
from cpu_cases import FakeCheckpoint, program_of_fused_rows
from cpu_reference import Reference
from kernel_case import variant_of

from storage_cases import PLANE_TYPES, QUANTIZED, plane_floats
from webllm.artifacts.checkpoint import StorageType
from webllm.backends.webgpu import weights
from webllm.backends.webgpu.backend import WebGPUBackend
from webllm.backends.webgpu.device.native import NativeDevice
from webllm.backends.webgpu.weights import weight_bytes
from webllm.errors import CheckpointError
from webllm.ops.program import BatchShape
from webllm.ops.step import Step, StepSequence

LIMITS = BatchShape(max_tokens=16, max_seqs=1, max_outputs=16, max_blocks=2)


@pytest.mark.parametrize("dtype", PLANE_TYPES, ids=lambda dtype: dtype.name)
async def test_rows_of_a_fused_tensor(
    device: NativeDevice, dtype: StorageType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "CHUNK_BYTES", 2048)  # 14 rows or so, never a whole part
    checkpoint = FakeCheckpoint()
    program = program_of_fused_rows(checkpoint, dtype)
    backend, seen = WebGPUBackend(device, variant_of(device, "scalar")), list[tuple[int, int]]()
    await backend.load(program, checkpoint, 2, LIMITS, lambda *both: seen.append(both))
    executable = backend.compile(program, LIMITS)
    step = Step([StepSequence([1, 2, 3, 4, 5], 5, [1], range(5))])
    executable.submit(step)
    await executable.sampled()
    want = Reference(program, checkpoint).logits(step)
    logits = np.array(await executable.logits()).reshape(want.shape)
    assert np.abs(logits - want).max() < 1e-4 * want.std()
    assert len(seen) > 8
    assert seen[-1][0] == seen[-1][1]


@pytest.mark.parametrize("quantized", QUANTIZED, ids=lambda dtype: dtype.name)
async def test_floats_quantized_on_load(
    device: NativeDevice, quantized: StorageType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The logits are those of a quantized file, and so is the memory."""
    monkeypatch.setattr(weights, "CHUNK_BYTES", 8192)
    floats = FakeCheckpoint()
    program = program_of_fused_rows(floats, StorageType.F16)
    file = floats.as_quantized_file(quantized)
    floats.quantize(quantized)
    assert weight_bytes(program, floats) == weight_bytes(program, file)
    step, found = Step([StepSequence([1, 2, 3, 4, 5], 5, [1], range(5))]), []
    for checkpoint in (floats, file):
        backend = WebGPUBackend(device, variant_of(device, "scalar"))
        await backend.load(program, checkpoint, 2, LIMITS, lambda *_: None)
        executable = backend.compile(program, LIMITS)
        executable.submit(step)
        await executable.sampled()
        found.append(np.array(await executable.logits()))
    np.testing.assert_array_equal(found[0], found[1])


async def test_scales_that_f16_cannot_hold_are_refused(device: NativeDevice) -> None:
    checkpoint = FakeCheckpoint()
    program = program_of_fused_rows(checkpoint, StorageType.AFFINE4_BF16)
    data = bytearray(checkpoint.bytes_of["v"])
    data[-2:] = plane_floats(StorageType.AFFINE4_BF16, np.array([-1e5])).tobytes()
    checkpoint.bytes_of["v"] = bytes(data)
    backend = WebGPUBackend(device, variant_of(device, "scalar"))
    with pytest.raises(CheckpointError, match="v has scales beyond 65504"):
        await backend.load(program, checkpoint, 2, LIMITS, lambda *_: None)
