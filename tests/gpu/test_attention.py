"""Attention against numpy: decode and prefill, over scattered blocks and ragged batches."""

from dataclasses import dataclass

import numpy as np
import pytest
from kernel_case import Array, Bench, close, variants

import reference
from webllm.backends.webgpu.device.protocol import Device
from webllm.backends.webgpu.kernels.activation import ActivationFormat
from webllm.backends.webgpu.kernels.attention import AttentionShape, Partial, partial_bytes
from webllm.backends.webgpu.kernels.attention.decode import attention_decode, decode_splits
from webllm.backends.webgpu.kernels.attention.prefill import attention_prefill, prefill_splits
from webllm.backends.webgpu.kernels.kv_cache import BLOCK_SIZE, KVSlices
from webllm.ops.program import BatchShape, Heads
from webllm.ops.step import Step, StepSequence

# Few shapes, because kernels are compiled for each.
HEADS = [(4, 4), (9, 3), (14, 2), (16, 1)]
MAX_BLOCKS = 200
FEW_TOKENS = BatchShape(8, 8, 1, MAX_BLOCKS)
MANY_TOKENS = BatchShape(128, 6, 1, MAX_BLOCKS)


@dataclass(frozen=True)
class Case:
    """Sequences as (new tokens, context after them)."""

    heads: Heads
    sequences: tuple[tuple[int, int], ...]
    window: int | None = None

    @property
    def scale(self) -> float:
        scale: float = self.heads.head_dim**-0.5
        return scale


def check(device: Device, case: Case, format: ActivationFormat, decode: bool) -> None:
    bench = Bench(device)
    random = np.random.default_rng(len(case.sequences) + case.heads.head_dim)
    heads = case.heads
    tokens = sum(new for new, _ in case.sequences)
    shape = FEW_TOKENS if tokens <= FEW_TOKENS.max_tokens else MANY_TOKENS
    blocks = scattered_blocks(case, random)
    num_blocks = 1 + max(max(table) for table in blocks)
    qkv = random.normal(0, 1.5, (tokens, heads.qkv_cols)).astype(np.float32)
    cached = random.normal(0, 1, (2, num_blocks * BLOCK_SIZE, heads.num_kv, heads.head_dim))
    step = bench.step(
        Step([StepSequence([1] * new, context, table, [])
              for (new, context), table in zip(case.sequences, blocks, strict=True)]),
        shape,
    )  # fmt: skip
    positions = np.concatenate([np.arange(c - n, c) for n, c in case.sequences])
    seq_ids = np.repeat(np.arange(len(blocks)), [n for n, _ in case.sequences])
    q = reference.split_heads(qkv, heads)[0]
    what = AttentionShape(heads.num_q, heads.num_kv, heads.head_dim, case.scale, case.window)
    for variant in variants(device):
        keys, values = cached.astype(np.float16 if variant.kv_f16 else np.float32)
        want = reference.attention(
            q, keys, values, positions, seq_ids, blocks, case.scale, case.window
        )
        splits = (decode_splits if decode else prefill_splits)(variant, what, step)
        scratch = Partial(*(bench.poisoned(size) for size in partial_bytes(what, step, splits)))
        out = bench.encoded(format, tokens, heads.num_q * heads.head_dim)
        kv = KVSlices(
            bench.upload(key_layout(keys, heads)), bench.upload(value_layout(values, heads))
        )
        run = attention_decode if decode else attention_prefill
        bench.run(
            run(
                device, variant, step=step, shape=what, qkv=bench.upload(qkv), kv=kv,
                partial=scratch, out=out,
            )
        )  # fmt: skip
        close(format, bench.decoded(out, tokens, want.shape[1]), want)


def scattered_blocks(case: Case, random: np.random.Generator) -> list[list[int]]:
    counts = [-(-context // BLOCK_SIZE) for _, context in case.sequences]
    order = random.permutation(sum(counts) + 3).tolist()
    return [[order.pop() for _ in range(count)] for count in counts]


def key_layout(keys: Array, heads: Heads) -> Array:
    units = keys.reshape(-1, BLOCK_SIZE, heads.num_kv, heads.head_dim // 4, 4)
    return units.transpose(0, 2, 3, 1, 4)


def value_layout(values: Array, heads: Heads) -> Array:
    units = values.reshape(-1, BLOCK_SIZE, heads.num_kv, heads.head_dim // 4, 4)
    return units.transpose(0, 2, 1, 3, 4)


DECODE = ((1, 1), (1, 16), (1, 17), (1, 300))
PREFILL = ((37, 37), (1, 50), (5, 90), (16, 16))


@pytest.mark.parametrize(("num_q", "num_kv"), HEADS)
@pytest.mark.parametrize("decode", [True, False], ids=["decode", "prefill"])
def test_heads(device: Device, num_q: int, num_kv: int, decode: bool) -> None:
    case = Case(Heads(num_q, num_kv, 64), DECODE if decode else PREFILL)
    check(device, case, ActivationFormat.F32, decode)


@pytest.mark.parametrize("head_dim", [80, 96, 128, 256])
@pytest.mark.parametrize("decode", [True, False], ids=["decode", "prefill"])
def test_head_dims(device: Device, head_dim: int, decode: bool) -> None:
    case = Case(Heads(6, 2, head_dim), ((1, 40), (1, 70)) if decode else ((20, 20), (3, 70)))
    check(device, case, ActivationFormat.F32, decode)


@pytest.mark.parametrize("format", list(ActivationFormat))
@pytest.mark.parametrize("decode", [True, False], ids=["decode", "prefill"])
def test_formats(device: Device, format: ActivationFormat, decode: bool) -> None:
    case = Case(Heads(6, 2, 80), ((1, 40), (1, 70)) if decode else ((20, 20), (3, 70)))
    check(device, case, format, decode)


@pytest.mark.parametrize("window", [1, 33])
@pytest.mark.parametrize("decode", [True, False], ids=["decode", "prefill"])
def test_windows(device: Device, window: int, decode: bool) -> None:
    case = Case(Heads(4, 4, 64), DECODE if decode else PREFILL, window)
    check(device, case, ActivationFormat.F32, decode)


@pytest.mark.parametrize("decode", [True, False], ids=["decode", "prefill"])
def test_long_context(device: Device, decode: bool) -> None:
    case = Case(Heads(4, 4, 64), ((1, 3000),) if decode else ((9, 3000),))
    check(device, case, ActivationFormat.F32, decode)


def test_decode_is_right_for_any_batch(device: Device) -> None:
    check(device, Case(Heads(4, 4, 64), PREFILL), ActivationFormat.F32, True)
