"""Attention where every sequence has one token: the context is split over workgroups."""

from __future__ import annotations

from dataclasses import dataclass

from webllm.gpu.device import Device, Dispatch, Slice
from webllm.kernels.activation import GROUP, Encoded
from webllm.kernels.rope_kv import BLOCK_SIZE, KVSlices, kv_snippet
from webllm.kernels.step_buffer import StepBuffer
from webllm.kernels.target import Target
from webllm.kernels.team import team
from webllm.kernels.template import snippet, source

_THREADS = 128
_MAX_UNITS = 512  # of the q heads of a workgroup, in its memory
_WORKGROUPS = 1024  # enough to fill a large GPU
_MAX_SPLITS = 64


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """head_dim: a multiple of 16, at most 256; window: positions a token sees, None for all."""

    num_q: int
    num_kv: int
    head_dim: int
    scale: float
    window: int | None = None

    @property
    def heads_per_kv(self) -> int:
        return self.num_q // self.num_kv

    @property
    def units(self) -> int:
        """Four dimensions are a unit."""
        return self.head_dim // 4

    def heads_together(self) -> int:
        """q heads of one KV head that a workgroup takes, so as to load keys and values once."""
        most = min(8, _MAX_UNITS // self.units, self.heads_per_kv)
        return max(n for n in range(1, most + 1) if self.heads_per_kv % n == 0)


@dataclass(frozen=True, slots=True)
class Partial:
    """Results of shares of the context, before they are put together: scratch."""

    out: Slice  # f32 [tokens, num_q, splits, head_dim]
    softmax: Slice  # f32 [tokens, num_q, splits, 2]: maximum, sum


def decode_splits(target: Target, shape: AttentionShape, step: StepBuffer) -> int:
    """Shares the context is cut into at most."""
    if not target.barriers:
        return 4
    workgroups = step.max_tokens * shape.num_q // shape.heads_together()
    longest = -(-step.max_blocks * BLOCK_SIZE // _tile(shape.heads_together()))
    return max(1, min(_MAX_SPLITS, longest, _WORKGROUPS // workgroups))


def partial_bytes(shape: AttentionShape, step: StepBuffer, splits: int = 1) -> tuple[int, int]:
    """Sizes of the two slices of `Partial`; splits: `decode_splits(...)`, or 1 for prefill."""
    rows = step.max_tokens * shape.num_q * splits
    return rows * shape.head_dim * 4, rows * 8


def attention_decode(
    device: Device,
    target: Target,
    *,
    step: StepBuffer,
    shape: AttentionShape,
    qkv: Slice,
    kv: KVSlices,
    partial: Partial,
    out: Encoded,
) -> list[Dispatch]:
    """Right for any batch, fast where every sequence has one token.

    qkv: f32 [tokens, (num_q + 2 * num_kv) * head_dim], q rotated; out: [tokens, num_q * head_dim].
    """
    splits = decode_splits(target, shape, step)
    if not target.barriers:
        return attention_simple(device, target, step, shape, splits, (qkv, kv, partial, out))
    heads = shape.heads_together()
    tile = _tile(heads)
    code = source(
        "attention_decode_split",
        heads=f"{heads}u",
        pairs=f"{-(-heads * tile // _THREADS)}u",
        share=snippet("attention_decode_share"),
        kv=kv_snippet(target),
    )
    constants = attention_constants(shape, step) | share_constants(shape, step, splits, tile)
    constants["SEQ_IDS"] = step.layout.seq_ids
    split = Dispatch(
        device.pipeline(code, constants, "attention_decode_split", proven=True),
        (step.words, qkv, kv.keys, kv.values, partial.out, partial.softmax),
        (splits, shape.num_q // heads, step.max_tokens),
        "attention_decode_split",
    )
    return [split, combine(device, target, step, shape, splits, tile, partial, out)]


def attention_simple(
    device: Device,
    target: Target,
    step: StepBuffer,
    shape: AttentionShape,
    splits: int,
    bound: tuple[Slice, KVSlices, Partial, Encoded],
) -> list[Dispatch]:
    """One thread a head and share, without barriers."""
    qkv, kv, partial, out = bound
    tile = BLOCK_SIZE
    code = source(
        "attention_decode_simple",
        units=f"{shape.units}u",
        share=snippet("attention_decode_share"),
        kv=kv_snippet(target),
    )
    constants = attention_constants(shape, step) | share_constants(shape, step, splits, tile)
    constants["SEQ_IDS"] = step.layout.seq_ids
    simple = Dispatch(
        device.pipeline(code, constants, "attention_simple", proven=True),
        (step.words, qkv, kv.keys, kv.values, partial.out, partial.softmax),
        (-(-shape.num_q * splits // 8), step.max_tokens, 1),
        "attention_simple",
    )
    return [simple, combine(device, target, step, shape, splits, tile, partial, out)]


def combine(
    device: Device,
    target: Target,
    step: StepBuffer,
    shape: AttentionShape,
    splits: int,
    tile: int,
    partial: Partial,
    out: Encoded,
) -> Dispatch:
    """Puts the shares together and encodes; num_q * head_dim is a multiple of 32."""
    cols = shape.num_q * shape.head_dim
    assert cols % GROUP == 0, cols
    reduce, constants = team(target, 128)
    cols_per_team = 128 if target.barriers else GROUP
    constants |= share_constants(shape, step, splits, tile)
    constants |= {"COLS": cols_per_team, "UNITS": shape.units}
    code = source(
        "attention_decode_combine",
        team=reduce,
        share=snippet("attention_decode_share"),
        store=out.store,
    )
    return Dispatch(
        device.pipeline(code, constants, "attention_decode_combine", proven=True),
        (step.words, partial.out, partial.softmax, *out.slices),
        (-(-cols // cols_per_team), step.max_tokens, 1),
        "attention_decode_combine",
    )


def attention_constants(shape: AttentionShape, step: StepBuffer) -> dict[str, float]:
    return {
        "NUM_KV": shape.num_kv,
        "UNITS": shape.units,
        "HEADS_PER_KV": shape.heads_per_kv,
        "BLOCK_TABLES": step.layout.block_tables,
        "MAX_BLOCKS": step.max_blocks,
        "SCALE": shape.scale,
    }


def share_constants(
    shape: AttentionShape, step: StepBuffer, splits: int, tile: int
) -> dict[str, float]:
    """Constants of attention_decode_share.wgsl."""
    return {
        "NUM_TOKENS": step.tokens.word,
        "POSITIONS": step.layout.positions,
        "NUM_Q": shape.num_q,
        "SPLITS": splits,
        "TILE": tile,
        "WINDOW": shape.window or 0,
    }


def _tile(heads: int) -> int:
    """Positions scored at a time: about one (head, position) pair a thread."""
    return max(16, 1 << (_THREADS // heads).bit_length() - 1)
