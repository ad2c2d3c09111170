"""Compares each op with numpy, on every variant of the kernels that this machine runs."""

from collections.abc import Iterator

import numpy as np
import pytest
from cpu_cases import (
    KERNELS,
    FakeCheckpoint,
    ProgramBuilder,
    Runner,
    program_of_fused_rows,
    relative_error,
)
from cpu_reference import Reference

from storage_cases import TYPES
from webllm.artifacts.checkpoint import StorageType
from webllm.backends.cpu import weights
from webllm.backends.cpu.kernels import Kernels
from webllm.backends.cpu.native import NativeKernels
from webllm.backends.cpu.native_library import variants
from webllm.errors import UnsupportedModelError
from webllm.ops.program import (
    Activation,
    Attention,
    BatchShape,
    Embed,
    GatedLinear,
    Heads,
    KVCacheShape,
    Linear,
    Norm,
    Program,
    RopeKV,
)
from webllm.ops.step import Step, StepSequence
from webllm.ops.values import Part, RopeTable, RowOrder, Weight

FLOATS = (StorageType.F32, StorageType.F16, StorageType.BF16)
MODEL_TYPES = (StorageType.Q4_1, StorageType.Q8_0, StorageType.F16)


@pytest.fixture(params=KERNELS)
def kernels(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    kernels = KERNELS[request.param]()
    yield kernels
    kernels.close()


def prompt(count: int, first_block: int = 0, vocab: int = ProgramBuilder.VOCAB) -> StepSequence:
    """A prompt of `count` tokens, each of them an output."""
    ids = np.random.default_rng(count).integers(0, vocab, count).tolist()
    num_blocks = -(-count // 16)
    return StepSequence(ids, count, range(first_block, first_block + num_blocks), range(count))


def check(
    kernels: Kernels,
    program: Program,
    checkpoint: FakeCheckpoint,
    *steps: Step,
    within: float = 2e-3,
) -> None:
    limits = BatchShape(max_tokens=64, max_seqs=4, max_outputs=64, max_blocks=64)
    reference = Reference(program, checkpoint, int8=True)
    with Runner(kernels, program, checkpoint, limits, num_blocks=96) as runner:
        for step in steps:
            expected, got = reference.logits(step), runner.logits(step)
            error = relative_error(expected, got)
            assert error < within, f"off by {error:.1e}; were the kernels compiled after a change?"


# ------------------------------------------------------------------------------------- products


def linear_program(
    checkpoint: FakeCheckpoint, weight: Weight, bias: bool = False, accumulate: bool = False
) -> Program:
    build = ProgramBuilder(checkpoint, weight.cols)
    x = build.activation(weight.cols)
    build.ops.append(Norm(build.x, checkpoint.weight(StorageType.F32, weight.cols), 1e-5, x))
    out = build.x if accumulate else build.value(weight.rows)
    vector = checkpoint.weight(StorageType.F32, weight.rows) if bias else None
    build.ops.append(Linear(x, weight, out, vector, accumulate))
    return build.program(out)


@pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: dtype.name)
def test_linear(kernels: Kernels, dtype: StorageType) -> None:
    checkpoint = FakeCheckpoint()
    program = linear_program(checkpoint, checkpoint.weight(dtype, 72, 512))
    check(kernels, program, checkpoint, *(Step([prompt(n)]) for n in (1, 2, 3, 7, 33)))


@pytest.mark.parametrize("dtype", MODEL_TYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("rows", [1, 15, 16, 50])
def test_linear_with_odd_rows_and_bias(kernels: Kernels, dtype: StorageType, rows: int) -> None:
    checkpoint = FakeCheckpoint()
    program = linear_program(checkpoint, checkpoint.weight(dtype, rows, 32), bias=True)
    check(kernels, program, checkpoint, Step([prompt(1)]), Step([prompt(9)]))


def test_linear_accumulates(kernels: Kernels) -> None:
    checkpoint = FakeCheckpoint()
    program = linear_program(
        checkpoint, checkpoint.weight(StorageType.Q4_1, 96, 96), bias=True, accumulate=True
    )
    check(kernels, program, checkpoint, Step([prompt(1)]), Step([prompt(13)]))


@pytest.mark.parametrize("rows", [(32, 16, 16), (24, 40, 8), (5, 6, 7)])
@pytest.mark.parametrize(
    "dtypes",
    [
        (StorageType.Q5_K, StorageType.Q5_K, StorageType.Q6_K),
        (StorageType.Q4_0, StorageType.Q4_1, StorageType.Q8_0),
        (StorageType.Q3_K, StorageType.Q2_K, StorageType.Q4_0),
        (StorageType.Q4_K, StorageType.F16, StorageType.Q4_K),
    ],
    ids=lambda dtypes: "-".join(dtype.name for dtype in dtypes),
)
def test_parts_of_several_types(
    kernels: Kernels, dtypes: tuple[StorageType, ...], rows: tuple[int, ...]
) -> None:
    checkpoint = FakeCheckpoint()
    weight = Weight.concat(
        [checkpoint.weight(dtype, r, 256) for dtype, r in zip(dtypes, rows, strict=True)]
    )
    program = linear_program(checkpoint, weight)
    check(kernels, program, checkpoint, Step([prompt(1)]), Step([prompt(6)]), within=8e-3)


def test_halves_to_pairs(kernels: Kernels) -> None:
    checkpoint = FakeCheckpoint()
    tensors = [checkpoint.add(StorageType.Q8_0, 96, 64) for _ in range(2)]
    parts = (
        Part(tensors[0], 96, RowOrder.HALVES_TO_PAIRS, head_dim=24),
        Part(tensors[1], 96, RowOrder.HALVES_TO_PAIRS, head_dim=32),
    )
    check(kernels, linear_program(checkpoint, Weight(parts, 64)), checkpoint, Step([prompt(4)]))


@pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: dtype.name)
def test_rows_of_a_fused_tensor(dtype: StorageType, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces that end inside a panel."""
    monkeypatch.setattr(weights, "_PIECE_BYTES", 1)
    checkpoint = FakeCheckpoint()
    program = program_of_fused_rows(checkpoint, dtype)
    check(NativeKernels(2), program, checkpoint, Step([prompt(1)]), Step([prompt(9)]))


@pytest.mark.parametrize("activation", Activation)
@pytest.mark.parametrize("dtype", MODEL_TYPES, ids=lambda dtype: dtype.name)
def test_gated_linear(kernels: Kernels, dtype: StorageType, activation: Activation) -> None:
    checkpoint = FakeCheckpoint()
    build = ProgramBuilder(checkpoint, 64)
    x, wide, out = build.activation(64), build.activation(96), build.value(48)
    up = StorageType.Q4_0 if dtype is StorageType.Q4_1 else dtype
    build.ops += [
        Norm(build.x, checkpoint.weight(StorageType.F32, 64), 1e-5, x),
        GatedLinear(
            x, checkpoint.weight(dtype, 96, 64), checkpoint.weight(up, 96, 64), activation, wide
        ),
        Linear(wide, checkpoint.weight(dtype, 48, 96), out),
    ]
    steps = (Step([prompt(n)]) for n in (1, 5, 40))
    check(kernels, build.program(out), checkpoint, *steps, within=6e-3)


def test_refuses_odd_columns() -> None:
    checkpoint = FakeCheckpoint()
    program = linear_program(checkpoint, checkpoint.weight(StorageType.F32, 16, 48))
    with pytest.raises(UnsupportedModelError, match="48 columns"):
        Runner(NativeKernels(1), program, checkpoint)


# ----------------------------------------------------------------------------------------- rows


def test_norm_with_branch(kernels: Kernels) -> None:
    checkpoint = FakeCheckpoint()
    build = ProgramBuilder(checkpoint, 96)
    x, branch, out = build.activation(96), build.value(96), build.value(96)
    gammas = [checkpoint.weight(StorageType.F32, 96) for _ in range(3)]
    build.ops += [
        Norm(build.x, gammas[0], 1e-6, x),
        Linear(x, checkpoint.weight(StorageType.F32, 96, 96), branch),
        Norm(build.x, gammas[1], 1e-6, out, branch, gammas[2]),
    ]
    check(kernels, build.program(out), checkpoint, Step([prompt(3)]), within=1e-5)


@pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: dtype.name)
def test_embeds_from_packed_rows(dtype: StorageType) -> None:
    checkpoint = FakeCheckpoint()
    build = ProgramBuilder(checkpoint, 256)
    table = checkpoint.weight(dtype, build.VOCAB, 256)
    build.ops[0] = Embed(table, 2.5, build.x)
    check(NativeKernels(1), build.program(build.x), checkpoint, Step([prompt(20)]), within=1e-3)


def test_outputs_are_rows_of_the_batch(kernels: Kernels) -> None:
    checkpoint = FakeCheckpoint()
    build = ProgramBuilder(checkpoint, 32)
    first = StepSequence([1, 2, 3], 3, [0], [0, 2])
    second = StepSequence([4, 5], 2, [1], [1])
    check(kernels, build.program(build.x), checkpoint, Step([first, second]), within=1e-6)


# ------------------------------------------------------------------------------------ attention


def attention_program(
    checkpoint: FakeCheckpoint,
    heads: Heads,
    window: int | None = None,
    norms: bool = False,
    rope_dim: int | None = None,
) -> Program:
    build = ProgramBuilder(checkpoint, 32, KVCacheShape(2, heads.num_kv, heads.head_dim))
    inv_freq = [10000 ** (-i / heads.head_dim) for i in range((rope_dim or heads.head_dim) // 2)]
    rope = RopeTable.build(inv_freq, 1024)
    x, qkv = build.activation(32), build.value(heads.qkv_cols)
    out = build.value(heads.num_q * heads.head_dim)
    gammas = [
        checkpoint.weight(StorageType.F32, heads.head_dim) if norms else None for _ in range(2)
    ]
    build.ops += [
        Norm(build.x, checkpoint.weight(StorageType.F32, 32), 1e-5, x),
        Linear(x, checkpoint.weight(StorageType.F32, heads.qkv_cols, 32), qkv),
        RopeKV(qkv, heads, rope, 1, gammas[0], gammas[1], eps=1e-6),
        Attention(qkv, heads, 1, 0.1 * heads.head_dim**-0.5, out, window),
    ]
    return build.program(out)


def chunked(count: int, *sizes: int) -> list[Step]:
    """One sequence in chunks, on scattered blocks."""
    whole = prompt(count)
    blocks = np.random.default_rng(0).permutation(64)[: -(-count // 16)].tolist()
    steps, first = [], 0
    for size in sizes:
        ids = whole.token_ids[first : first + size]
        first += size
        steps.append(Step([StepSequence(ids, first, blocks, range(size))]))
    return steps


@pytest.mark.parametrize(
    "heads",
    [
        Heads(4, 4, 16),
        Heads(6, 2, 48),
        Heads(9, 3, 64),
        Heads(4, 2, 80),
        Heads(8, 1, 96),
        Heads(5, 1, 128),
        Heads(4, 1, 256),
        Heads(40, 1, 16),
    ],
    ids=lambda h: f"{h.num_q}x{h.num_kv}x{h.head_dim}",
)
def test_attention(kernels: Kernels, heads: Heads) -> None:
    checkpoint = FakeCheckpoint()
    steps = chunked(120, 1, 37, 64, 2, 1, 15)
    check(kernels, attention_program(checkpoint, heads), checkpoint, *steps, within=3e-3)


@pytest.mark.parametrize("window", [1, 16, 50])
def test_attention_window_norms_and_partial_rope(kernels: Kernels, window: int) -> None:
    checkpoint = FakeCheckpoint()
    program = attention_program(checkpoint, Heads(4, 2, 32), window, norms=True, rope_dim=16)
    check(kernels, program, checkpoint, *chunked(130, 60, 1, 1, 64, 4), within=3e-3)


def test_attention_over_a_long_context(kernels: Kernels) -> None:
    """The context is long enough for decode to divide it into splits."""
    checkpoint = FakeCheckpoint()
    steps = chunked(900, *[64] * 14, 1, 1, 2)
    check(kernels, attention_program(checkpoint, Heads(3, 1, 32)), checkpoint, *steps, within=3e-3)


def test_attention_of_several_sequences(kernels: Kernels) -> None:
    checkpoint = FakeCheckpoint()
    a, b, c = prompt(20, 0), prompt(33, 10), prompt(1, 20)
    together = Step([a, b, c])
    more = Step(
        [
            StepSequence([7], 21, [0, 1], [0]),
            StepSequence([8, 9], 35, [10, 11, 12], [0, 1]),
            StepSequence([1], 2, [20], [0]),
        ]
    )
    program = attention_program(checkpoint, Heads(6, 3, 32))
    check(kernels, program, checkpoint, together, more, within=3e-3)


# -------------------------------------------------------------------------------------- threads


@pytest.mark.parametrize("variant", variants())
def test_threads_do_not_change_a_bit(variant: str) -> None:
    checkpoint = FakeCheckpoint()
    heads = Heads(6, 2, 32)
    build = ProgramBuilder(checkpoint, 128, KVCacheShape(1, 2, 32))
    rope = RopeTable.build([0.5**i for i in range(16)], 512)
    x, qkv, out = build.activation(128), build.value(heads.qkv_cols), build.activation(192)
    build.ops += [
        Norm(build.x, checkpoint.weight(StorageType.F32, 128), 1e-5, x),
        Linear(x, checkpoint.weight(StorageType.Q4_1, heads.qkv_cols, 128), qkv),
        RopeKV(qkv, heads, rope, 0),
        Attention(qkv, heads, 0, 0.2, out),
        Linear(out, checkpoint.weight(StorageType.Q8_0, 128, 192), build.x, accumulate=True),
    ]
    program = build.program(build.x)
    limits = BatchShape(64, 1, 64, 32)
    results = []
    for num_threads in (1, 2, 5):
        with Runner(NativeKernels(num_threads, variant), program, checkpoint, limits, 64) as runner:
            results.append([runner.logits(step) for step in chunked(400, *[64] * 6, 1, 1, 14)])
    for other in results[1:]:
        for expected, got in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(got, expected)
