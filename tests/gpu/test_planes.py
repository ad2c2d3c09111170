"""Weights of several planes, loaded in chunks: MLC's, MLX's and those of compressed-tensors."""

from __future__ import annotations

import numpy as np
import pytest
from cpu_cases import FakeCheckpoint, program_of_fused_rows
from cpu_reference import Reference
from kernel_case import variant_of

from storage_cases import PLANE_TYPES, plane_floats
from webllm.artifacts.checkpoint import StorageType
from webllm.backends.webgpu import weights
from webllm.backends.webgpu.backend import WebGPUBackend
from webllm.backends.webgpu.device.native import NativeDevice
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


async def test_scales_that_f16_cannot_hold_are_refused(device: NativeDevice) -> None:
    checkpoint = FakeCheckpoint()
    program = program_of_fused_rows(checkpoint, StorageType.AFFINE4_BF16)
    data = bytearray(checkpoint.bytes_of["v"])
    data[-2:] = plane_floats(StorageType.AFFINE4_BF16, np.array([-1e5])).tobytes()
    checkpoint.bytes_of["v"] = bytes(data)
    backend = WebGPUBackend(device, variant_of(device, "scalar"))
    with pytest.raises(CheckpointError, match="v has scales beyond 65504"):
        await backend.load(program, checkpoint, 2, LIMITS, lambda *_: None)
