"""Floats that the CPU's kernels quantize have the bits of the package `gguf`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from cpu_cases import KERNELS, FakeCheckpoint, KernelsUnderTest, Runner, program_of_fused_rows

from storage_cases import FLOAT_TYPES, QUANTIZED, quantizable, quantized_rows
from webllm.artifacts.checkpoint import StorageType
from webllm.backends.cpu import weights
from webllm.backends.cpu.formats import Format, packed_bytes
from webllm.backends.cpu.native import NativeKernels
from webllm.backends.cpu.structs import PackingStruct
from webllm.errors import CheckpointError
from webllm.ops.step import Step, StepSequence

HEAD_DIM = 6
ROWS, COLS = 7 * HEAD_DIM, 96  # the last panel is not full


@pytest.fixture(params=KERNELS)
def kernels(request: pytest.FixtureRequest) -> Iterator[KernelsUnderTest]:
    made = KERNELS[request.param]()
    yield made
    made.close()


def packed(
    kernels: KernelsUnderTest,
    dtype: StorageType,
    quantized: StorageType | None,
    rows: np.ndarray,
    format: Format,
) -> tuple[bytes, bool]:
    """Returns the panels of rows in pairs, and whether f16 cannot hold a scale."""
    num_bytes = -(-ROWS // 16) * format.panel_bytes(COLS)
    packing, panels = kernels.allocate(PackingStruct.SIZE), kernels.allocate(num_bytes)
    struct = PackingStruct(panels.address, dtype, quantized, format, ROWS, COLS, 0, HEAD_DIM)
    with ExitStack() as stack:
        source = stack.enter_context(kernels.source(memoryview(rows.tobytes())))
        packing.write(0, struct.pack([source]))
        kernels.pack(packing.address)
    is_out_of_range = any(packing.read(PackingStruct.OUT_OF_RANGE, 4))
    return bytes(panels.read(0, num_bytes)), is_out_of_range


@pytest.mark.parametrize("quantized", QUANTIZED, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("dtype", FLOAT_TYPES, ids=lambda dtype: dtype.name)
def test_panels_have_the_bits_of_a_quantized_file(
    kernels: KernelsUnderTest, dtype: StorageType, quantized: StorageType
) -> None:
    stored = quantizable(np.random.default_rng(5), dtype, ROWS, COLS)
    rows = quantized_rows(dtype, stored, quantized)
    formats = [Format(flags) for flags in range(8)]
    for format in formats if quantized is StorageType.Q4_0 else formats[1::2]:
        panels, is_out_of_range = packed(kernels, dtype, quantized, stored, format)
        assert not is_out_of_range
        assert panels == packed(kernels, quantized, None, rows, format)[0], format


@pytest.mark.parametrize("quantized", QUANTIZED, ids=lambda dtype: dtype.name)
def test_scales_that_f16_cannot_hold_are_told(
    kernels: KernelsUnderTest, quantized: StorageType
) -> None:
    largest = 65504 * (8 if quantized is StorageType.Q4_0 else 127)
    for value in (largest + 1, -largest - 1, np.inf, -np.inf, np.nan, largest, -largest, 1e-45):
        rows = np.zeros((ROWS, COLS), "<f4")
        rows[-1, -1] = value
        told = packed(kernels, StorageType.F32, quantized, rows, Format.BITS8)[1]
        assert told is not bool(abs(value) <= largest), value


def test_a_tensor_with_such_scales_is_refused() -> None:
    checkpoint = FakeCheckpoint()
    program = program_of_fused_rows(checkpoint, StorageType.F32)
    data = bytearray(checkpoint.bytes_of["v"])
    data[-4:] = np.float32(1e9).tobytes()
    checkpoint.bytes_of["v"] = bytes(data)
    checkpoint.quantize(StorageType.Q4_0)
    with pytest.raises(CheckpointError, match="v has scales beyond 65504"):
        Runner(NativeKernels(1), program, checkpoint)


@pytest.mark.parametrize("quantized", QUANTIZED, ids=lambda dtype: dtype.name)
def test_logits_are_those_of_a_quantized_file(
    quantized: StorageType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of rows of a fused tensor, in pairs and of an odd number, loaded in pieces."""
    monkeypatch.setattr(weights, "_PIECE_BYTES", 1)
    floats = FakeCheckpoint()
    program = program_of_fused_rows(floats, StorageType.F16)
    file = floats.as_quantized_file(quantized)
    floats.quantize(quantized)
    assert packed_bytes(program, floats) == packed_bytes(program, file)
    step = Step([StepSequence([3, 1, 4, 1, 5], 5, [2], range(5))])
    logits = []
    for checkpoint in (floats, file):
        with Runner(NativeKernels(1), program, checkpoint) as runner:
            logits.append(runner.logits(step))
    np.testing.assert_array_equal(logits[0], logits[1])


def test_only_matrices_of_floats_are_quantized() -> None:
    checkpoint = FakeCheckpoint()
    put = checkpoint.put
    put("vector", StorageType.F32, (64,), bytes(256))
    put("stored", StorageType.Q6_K, (1, 256), bytes(210))
    before = checkpoint.fingerprint, dict(checkpoint.tensors)
    checkpoint.quantize(StorageType.Q4_0)
    assert (checkpoint.fingerprint, checkpoint.tensors) == before
    put("matrix", StorageType.BF16, (1, 64), bytes(128))
    put("lm_head.weight", StorageType.BF16, (1, 64), bytes(128))
    checkpoint.quantize(StorageType.Q4_0)
    assert checkpoint.fingerprint == f"{before[0]}+q4_0"
    assert {name: tensor.quantized for name, tensor in checkpoint.tensors.items()} == {
        "vector": None,
        "stored": None,
        "matrix": StorageType.Q4_0,
        "lm_head.weight": StorageType.Q8_0,
    }
