"""Numbers in model files cause no undefined behaviour in C: UBSan would abort."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
from cpu_cases import TYPES, FakeCheckpoint, ProgramBuilder, Runner
from sanitized_kernels import FLAGS

from webllm.artifacts.checkpoint import GGMLType
from webllm.backends.cpu import native_library
from webllm.backends.cpu.native import NativeKernels
from webllm.ops.program import (
    Activation,
    Attention,
    GatedLinear,
    Heads,
    KVCacheShape,
    Linear,
    Norm,
    Program,
    RopeKV,
)
from webllm.ops.sampling import SamplingParams, edit
from webllm.ops.step import Step, StepSequence
from webllm.ops.values import RopeTable

ODD = np.array([0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000, 0x7F7FFFFF, 1], "<u4")


def test_no_undefined_behaviour(tmp_path: Path) -> None:
    """Every variant that this machine runs is tested: a compiler's intrinsics may add ints."""
    source = Path(native_library.__file__).parent / "kernels.c"
    command = [*shlex.split(os.environ.get("CC", "cc")), "-fsanitize=undefined"]
    command += ["-fno-sanitize-recover=all", "-std=gnu11", "-O0", "-shared", "-fPIC", "-pthread"]
    for name in (name for name in FLAGS if name in native_library.variants()):
        out = tmp_path / native_library._path(name).name
        subprocess.run([*command, *FLAGS[name], str(source), "-o", str(out)], check=True)
    tests = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": f"{tests}{os.pathsep}{tests / 'fuzz'}"}
    command = [sys.executable, __file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def program_of(checkpoint: FakeCheckpoint, dtype: GGMLType) -> Program:
    """Returns a program with every kind of op."""
    weight, heads = checkpoint.weight, Heads(16, 8, 16)
    build = ProgramBuilder(checkpoint, 256, KVCacheShape(1, 8, 16))
    x, y, z = (build.activation(256) for _ in range(3))
    qkv, out = build.value(heads.qkv_cols), build.value(40)
    rope = RopeTable.build([0.5**i for i in range(8)], 256)
    build.ops += [
        Norm(build.x, weight(GGMLType.F32, 256), 1e-5, x),
        Linear(x, weight(dtype, heads.qkv_cols, 256), qkv),
        RopeKV(qkv, heads, rope, 0),
        Attention(qkv, heads, 0, 0.25, y),
        Linear(y, weight(dtype, 256, 256), build.x, accumulate=True),
        GatedLinear(x, weight(dtype, 256, 256), weight(dtype, 256, 256), Activation.SILU, z),
        Linear(z, weight(dtype, 40, 256), out),
    ]
    return build.program(out)


def run_odd_numbers() -> None:
    sampling = SamplingParams(1.0, 0.5, 0.1, 3, 1, 1.1, 0.1, 0.1, num_logprobs=20)
    for dtype in TYPES:
        for odd in ODD:
            checkpoint = FakeCheckpoint()
            program = program_of(checkpoint, dtype)
            table = np.frombuffer(checkpoint.bytes_of["tensor.0"], "<u4").copy().reshape(40, 256)
            table[0], table[1, ::5], table[2, 17] = odd, odd, odd
            checkpoint.bytes_of["tensor.0"] = table.tobytes()
            tokens = StepSequence([0, 1, 2, 3], 4, [0], range(4), sampling, edit(5, -1.0, 2))
            for variant in native_library.variants():
                with Runner(NativeKernels(1, variant), program, checkpoint) as runner:
                    assert all(token < 40 for token in runner.tokens(Step([tokens])))


if __name__ == "__main__":
    native_library.FOLDER = Path(sys.argv[1])
    run_odd_numbers()
