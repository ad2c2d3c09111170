"""Loading, memory and the choice of a variant."""

import asyncio
from pathlib import Path

import pytest
from cpu_cases import WASM, FakeCheckpoint, ProgramBuilder, Runner
from cpu_wasm_kernels import WasmKernels

from webllm.artifacts.checkpoint import StorageType, TensorInfo
from webllm.backends.cpu.backend import CPUBackend
from webllm.backends.cpu.formats import Format, runs_of
from webllm.backends.cpu.native import NativeKernels
from webllm.backends.cpu.native_library import open_library, variants
from webllm.backends.cpu.system_memory import available_bytes
from webllm.errors import (
    ConfigError,
    DeviceError,
    DeviceMemoryError,
    UnsupportedModelError,
    WebLLMError,
)
from webllm.ops.program import BatchShape, Linear, Norm, Program
from webllm.ops.sampling import SamplingParams
from webllm.ops.step import Step, StepSequence
from webllm.ops.values import Weight


def wide_program(checkpoint: FakeCheckpoint) -> Program:
    """A program with about 4 MB of weights."""
    build = ProgramBuilder(checkpoint, 1024)
    x, out = build.activation(1024), build.value(1024)
    build.ops += [
        Norm(build.x, checkpoint.weight(StorageType.F32, 1024), 1e-5, x),
        Linear(x, checkpoint.weight(StorageType.F32, 1024, 1024), out),
    ]
    return build.program(out)


def resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmRSS:")[1].split()[0])


def test_loading_again_and_again_leaks_nothing() -> None:
    checkpoint = FakeCheckpoint()
    program = wide_program(checkpoint)
    sizes = []
    for _ in range(12):
        with Runner(NativeKernels(2), program, checkpoint) as runner:
            runner.tokens(Step([StepSequence([1], 1, [0], [0])]))
        sizes.append(resident_bytes())
    assert sizes[-1] - sizes[3] < 4 << 20


def test_reports_loaded_bytes() -> None:
    checkpoint = FakeCheckpoint()
    program = wide_program(checkpoint)
    backend, seen = CPUBackend(NativeKernels(1)), list[tuple[int, int]]()
    limits = BatchShape(1, 1, 1, 1)
    asyncio.run(backend.load(program, checkpoint, 1, limits, lambda *s: seen.append(s)))
    backend.close()
    matrices = 4 * 1024 * (1024 + ProgramBuilder.VOCAB)
    assert seen[-1] == (matrices, matrices)
    assert sorted(seen) == seen


def test_refuses_what_does_not_fit() -> None:
    checkpoint = FakeCheckpoint()
    program = wide_program(checkpoint)
    backend = CPUBackend(NativeKernels(1))
    backend.check_fits(program, checkpoint, num_blocks=1)
    with pytest.raises(DeviceMemoryError, match=r"needs \d+ MiB .* \d+ MiB are available"):
        backend.check_fits(program, checkpoint, num_blocks=1 << 40)
    backend.close()


def test_a_step_beyond_the_window_is_refused_and_the_next_one_runs() -> None:
    """C indexes block tables and rotary tables by position without a check."""
    checkpoint = FakeCheckpoint()
    program = wide_program(checkpoint)
    limits = BatchShape(max_tokens=8, max_seqs=1, max_outputs=1, max_blocks=2)
    with Runner(NativeKernels(1), program, checkpoint, limits) as runner:
        before = runner.tokens(Step([StepSequence([1], 32, [0, 1], [0])]))
        for beyond in (
            StepSequence([1], 33, [0, 1, 2], [0]),
            StepSequence([1], 1 << 20, range(1 << 16), [0]),
            StepSequence([1], 1, [1 << 20], [0]),
            StepSequence([program.num_token_ids], 1, [0], [0]),
        ):
            with pytest.raises(WebLLMError):
                runner.tokens(Step([beyond]))
        assert runner.tokens(Step([StepSequence([1], 32, [0, 1], [0])])) == before


@pytest.mark.parametrize("num_bytes", [0, 4, 4 * 1024 - 4, 4 * 1024 + 4, 1 << 26])
def test_logits_of_another_size_are_not_written(num_bytes: int) -> None:
    checkpoint = FakeCheckpoint()
    program = wide_program(checkpoint)
    step = Step([StepSequence([1], 1, [0], [0])])
    with Runner(NativeKernels(1), program, checkpoint) as runner:
        before = runner.tokens(step)
        with pytest.raises(DeviceError, match="expected 1 of 1024 floats"):
            runner.executable.resample(step, [bytes(num_bytes)])
        assert runner.tokens(step) == before


def test_activations_that_are_not_finite() -> None:
    """Sampling still returns a token of the vocabulary."""
    checkpoint = FakeCheckpoint()
    program = wide_program(checkpoint)
    table = checkpoint.bytes_of["tensor.0"]
    for bits in (0x7F800000, 0xFF800000, 0x7FC00000, 0x7F7FFFFF):
        row = bits.to_bytes(4, "little") * 512 + table[: 4 * 512]
        checkpoint.bytes_of["tensor.0"] = row + table[len(row) :]
        for variant in variants():
            with Runner(NativeKernels(1, variant), program, checkpoint) as runner:
                sampling = SamplingParams(
                    temperature=1.0, top_k=3, top_p=0.5, min_p=0.1, num_logprobs=5
                )
                step = Step([StepSequence([0, 1], 2, [0], [0, 1], sampling)])
                assert all(token < program.vocab_size for token in runner.tokens(step))


def test_available_memory_is_known_here() -> None:
    assert (available_bytes() or 0) > 1 << 20


def test_the_environment_chooses_a_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBLLM_CPU_ISA", "baseline")
    kernels = NativeKernels(1)
    assert kernels.isa == "baseline"
    kernels.close()
    monkeypatch.setenv("WEBLLM_CPU_ISA", "mmx")
    with pytest.raises(ConfigError, match="mmx"):
        open_library()


def test_each_variant_knows_its_name_and_works() -> None:
    for name in variants():
        kernels = NativeKernels(1, name)
        assert kernels.isa == name
        assert open_library(name).self_test()
        kernels.close()


@pytest.mark.parametrize("name", WASM)
def test_wasm_works(name: str) -> None:
    assert WasmKernels(WASM[name]).call("self_test")


def test_unknown_tensor_types_are_refused() -> None:
    checkpoint = FakeCheckpoint()
    checkpoint.tensors["odd"] = TensorInfo("odd", (32, 256), StorageType.IQ2_S, ())
    with pytest.raises(UnsupportedModelError, match="odd is stored as IQ2_S"):
        runs_of(Weight.of("odd", 32, 256), checkpoint)


def test_parts_on_panel_borders_keep_their_formats() -> None:
    checkpoint = FakeCheckpoint()
    parts = [
        checkpoint.weight(dtype, rows, 256)
        for dtype, rows in ((StorageType.Q4_K, 32), (StorageType.Q4_1, 16), (StorageType.Q6_K, 8))
    ]
    runs = runs_of(Weight.concat(parts), checkpoint)
    assert [(run.rows, run.format) for run in runs] == [
        (48, Format.MINS),
        (8, Format.BITS8 | Format.GROUPS_OF_16),
    ]


def test_formats_unite() -> None:
    assert Format.BITS4.union(Format.MINS) == Format.MINS
    assert (Format.BITS8 | Format.MINS).union(Format.GROUPS_OF_16) == Format(7)
    assert Format.F16.union(Format.F16) == Format.F16
    assert Format.F16.union(Format.BITS8) == Format.F32
