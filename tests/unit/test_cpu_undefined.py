"""Numbers in model files cause no undefined behaviour in C: UBSan would abort."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
from cpu_cases import FakeCheckpoint, Runner, program_of_every_op
from sanitized_kernels import FLAGS

from storage_cases import TYPES
from webllm.backends.cpu import native_library
from webllm.backends.cpu.native import NativeKernels
from webllm.ops.sampling import SamplingParams, edit
from webllm.ops.step import Step, StepSequence

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


def run_odd_numbers() -> None:
    sampling = SamplingParams(1.0, 0.5, 0.1, 3, 1, 1.1, 0.1, 0.1, num_logprobs=20)
    for dtype in TYPES:
        for odd in ODD:
            checkpoint = FakeCheckpoint()
            program = program_of_every_op(checkpoint, dtype)
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
