"""The bits of the CPU kernels' logits are those stored here, by the forms of the kernels.

A change of kernels, packing or lowering that fails this test changes logits: raise FORMS_VERSION in
`webllm.backends.cpu.backend` and store the bits that the failure shows. Everything in the test is
the same on every machine: the weights come from `random.Random`, the kernels call no libm, and
compilers may not contract or reorder their arithmetic.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable
from functools import partial
from typing import get_args
from zlib import crc32

import pytest
from cpu_cases import KERNELS, FakeCheckpoint, ProgramBuilder, Runner
from made_up_models import halves_of

from webllm.artifacts.checkpoint import StorageType
from webllm.backends.cpu.backend import FORMS_VERSION
from webllm.backends.cpu.kernels import Kernels
from webllm.backends.cpu.native import NativeKernels
from webllm.backends.cpu.native_library import variants
from webllm.ops.program import (
    Activation,
    Attention,
    BatchShape,
    GatedLinear,
    Heads,
    KVCacheShape,
    Linear,
    Norm,
    Op,
    Program,
    RopeKV,
)
from webllm.ops.step import Step, StepSequence
from webllm.ops.values import RopeTable

LENGTH = 300  # attention merges two splits of the context
BLOCKS = array("I", range(19))[::-1]
LIMITS = BatchShape(max_tokens=64, max_seqs=1, max_outputs=4, max_blocks=32)
# One of each kind of product: 4 bits, with minima, 8 bits, groups of 16, floats.
TYPES = (StorageType.Q4_0, StorageType.Q4_K, StorageType.Q8_0, StorageType.Q6_K, StorageType.BF16)

# CRC-32 of the logits, by forms, for each of TYPES.
BITS = {
    "cpu-1-baseline": "c0abb5c6 0c79de6f 50d62326 93c49a24 8edd86ca",
    "cpu-1-avx2": "97bea5ed d3c1eedd 640ba9e7 aa990d2a c08394e0",
    "cpu-1-avxvnni": "97bea5ed d3c1eedd ff5c6a65 ecb13a64 c08394e0",
    "cpu-1-avx512vnni": "4f5875da f925a1e7 1b30e38e 490e3266 23ee9ef3",
    "cpu-1-dotprod": "f84a1143 a9a37918 c586467a f5f2eef0 c25e7d23",
    "cpu-1-relaxed": "30cf8038 d91a9e5d 39c4b588 6304a51e 93fa75d2",
}


class PortableCheckpoint(FakeCheckpoint):
    """A checkpoint of the same bytes on every machine, with values below 1/2."""

    def add(self, dtype: StorageType, rows: int, cols: int = 1) -> str:
        name = f"tensor.{len(self.tensors)}"
        data = _portable_bytes(random.Random(len(self.tensors)), dtype, rows * cols)
        return self.put(name, dtype, (rows, cols) if cols > 1 else (rows,), data)


def _portable_bytes(rng: random.Random, dtype: StorageType, num_weights: int) -> bytes:
    if dtype in (StorageType.F32, StorageType.BF16):
        floats = array("f", (byte / 256 - 0.5 for byte in rng.randbytes(num_weights))).tobytes()
        if dtype is StorageType.F32:
            return floats
        return array("H", array("H", floats)[1::2]).tobytes()
    size = dtype.block_bytes
    data = bytearray(rng.randbytes(num_weights // dtype.block_elements * size))
    if dtype is StorageType.Q8_0:  # no writer emits -128, and relaxed SIMD may not hold it
        data = data.replace(b"\x80", b"\x81")
    for half in halves_of(dtype):
        for at in range(half + 1, len(data), size):
            data[at] = data[at] & 0x83 | 0x10  # 2^-11 to 2^-10
    return bytes(data)


def program_of_every_form(checkpoint: FakeCheckpoint, dtype: StorageType) -> Program:
    """Returns a program with every kind of op and every option of an op that is arithmetic."""
    weight, heads, f32 = checkpoint.weight, Heads(4, 2, 64), StorageType.F32
    build = ProgramBuilder(checkpoint, 256, KVCacheShape(2, 2, 64))
    rope = RopeTable.build([0.75**i for i in range(32)], 512)
    residual = build.x
    for layer, activation in enumerate((Activation.SILU, Activation.GELU_TANH)):
        x, y, z, w = (build.activation(256) for _ in range(4))
        qkv, branch = build.value(heads.qkv_cols), build.value(256)
        q_gamma, k_gamma = (weight(f32, 64) if layer else None for _ in range(2))
        build.ops += [
            Norm(residual, weight(f32, 256), 1e-5, x),
            Linear(x, weight(dtype, heads.qkv_cols, 256), qkv, weight(f32, heads.qkv_cols)),
            RopeKV(qkv, heads, rope, layer, q_gamma, k_gamma, 1e-6),
            Attention(qkv, heads, layer, 0.125, y, window=100 if layer else None),
            Linear(y, weight(dtype, 256, 256), residual, accumulate=True),
            Norm(residual, weight(f32, 256), 1e-5, z),
            GatedLinear(z, weight(dtype, 256, 256), weight(dtype, 256, 256), activation, w),
            Linear(w, weight(dtype, 256, 256), branch),
            Norm(residual, weight(f32, 256), 1e-5, z, branch, weight(f32, 256)),
        ]
        residual = build.x
    out = build.value(48)
    build.ops.append(Linear(z, weight(dtype, 48, 256), out))
    program = build.program(out)
    missing = set(get_args(Op)) - {type(op) for op in program.ops}
    assert not missing, f"add {missing} to the ops of program_of_every_form, in {__file__}"
    return program


def logits_crc(runner: Runner) -> str:
    """Returns the CRC-32 of the logits of a prompt in chunks, then of single tokens."""
    rng = random.Random(1)
    token_ids = array("I", [rng.randrange(ProgramBuilder.VOCAB) for _ in range(LENGTH)])
    crc, begin = 0, 0
    for size in (64, 64, 64, 64, 33, 1, 1, 1, 1, 7):
        end = begin + size
        blocks = BLOCKS[: -(-end // 16)]
        share = StepSequence(token_ids[begin:end], end, blocks, [size - 1])
        crc = crc32(runner.logits(Step([share])).tobytes(), crc)
        begin = end
    assert begin == LENGTH
    return f"{crc:08x}"


ON_TWO = {f"{name} on 2 threads": partial(NativeKernels, 2, name) for name in variants()}
RUNS: dict[str, Callable[[], Kernels]] = {**KERNELS, **ON_TWO}


@pytest.mark.parametrize("name", RUNS)
def test_logits_have_the_bits_of_their_forms(name: str) -> None:
    found = []
    for dtype in TYPES:
        checkpoint = PortableCheckpoint()
        program = program_of_every_form(checkpoint, dtype)
        with Runner(RUNS[name](), program, checkpoint, LIMITS) as runner:
            found.append(logits_crc(runner))
            forms = runner.backend.forms
    assert (forms, " ".join(found)) == (forms, BITS.get(forms))


def test_the_bits_of_this_version_are_stored() -> None:
    assert all(forms.startswith(f"cpu-{FORMS_VERSION}-") for forms in BITS)
