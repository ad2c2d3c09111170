"""Attention where every sequence has one token: the context is split over workgroups."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from webllm.backends.webgpu.device.protocol import Device, Dispatch, Slice
from webllm.backends.webgpu.kernels.activation import GROUP, Encoded
from webllm.backends.webgpu.kernels.rope_kv import BLOCK_SIZE, KVSlices, kv_snippet
from webllm.backends.webgpu.kernels.step_buffer import StepBuffer
from webllm.backends.webgpu.kernels.target import Target
from webllm.backends.webgpu.kernels.team import team
from webllm.backends.webgpu.kernels.template import snippet, source

MAX_HEAD_DIM = 256
_THREADS = 128
_MAX_UNITS = 256  # of the q heads of a workgroup, in its memory
_WORKGROUPS = 1024  # enough to fill a large GPU
_MAX_SPLITS = 64
_MAX_PARTIAL_COLS = 1 << 19  # so that 64 tokens of f32 fit into any binding
_MOST_ROUNDS = 60000


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """head_dim: a multiple of 16 up to MAX_HEAD_DIM; window: positions a token sees, None: all."""

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
    """Shares the context is cut into at most, when decoding: so many for any batch, or a token's
    result would depend on the others.
    """
    if not target.barriers:
        return max(4, _least_splits(shape, step))
    workgroups = shape.num_q // shape.heads_together()  # of one token
    longest = -(-step.max_blocks * BLOCK_SIZE // _tile(shape.heads_together()))
    fitting = _MAX_PARTIAL_COLS // (shape.num_q * shape.head_dim)
    return max(1, min(_MAX_SPLITS, longest, _WORKGROUPS // workgroups, fitting))


def prefill_splits(target: Target, shape: AttentionShape, step: StepBuffer) -> int:
    """Shares the context is cut into, in prefill."""
    return 1 if target.barriers else _least_splits(shape, step)


def _least_splits(shape: AttentionShape, step: StepBuffer) -> int:
    """Shares small enough for Mesa's lavapipe, which ends every loop of a thread, without an
    error, once the thread has gone round 65535 times in all.
    """
    longest = min(step.max_blocks * BLOCK_SIZE, shape.window or sys.maxsize)
    return -(-longest * (2 * shape.units + 1) // _MOST_ROUNDS)


def partial_bytes(shape: AttentionShape, step: StepBuffer, splits: int) -> tuple[int, int]:
    """Sizes of the two slices of `Partial`; splits: of decode or prefill."""
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

    qkv: f32 [tokens, (num_q + 2 * num_kv) * head_dim], q rotated; out: [tokens, num_q * head_dim],
    a multiple of 32 columns. partial: of `partial_bytes(shape, step, decode_splits(...))`.
    """
    splits = decode_splits(target, shape, step)
    heads = shape.heads_together()
    if not target.barriers:
        return attention_simple(Job(device, target, step, shape, splits), qkv, kv, partial, out)
    job = Job(device, target, step, shape, splits, _tile(heads))
    split = job.dispatch(
        "attention_decode_split",
        (splits, shape.num_q // heads, step.max_tokens),
        (qkv, kv.keys, kv.values, partial.out, partial.softmax),
        job.constants | {"SEQ_IDS": step.layout.seq_ids},
        heads=f"{heads}u",
        units=f"{shape.units}u",
        tile=f"{job.tile}u",
        kv=kv_snippet(target),
    )
    return [split, combine(job, partial, out)]


@dataclass(frozen=True, slots=True)
class Job:
    """What all dispatches of one attention share; a share is a multiple of `tile` positions."""

    device: Device
    target: Target
    step: StepBuffer
    shape: AttentionShape
    splits: int
    tile: int = BLOCK_SIZE

    @property
    def share_constants(self) -> dict[str, float]:
        """Constants of attention_decode_share.wgsl."""
        return {
            "NUM_TOKENS": self.step.tokens.word,
            "POSITIONS": self.step.layout.positions,
            "NUM_Q": self.shape.num_q,
            "SPLITS": self.splits,
            "TILE": self.tile,
            "WINDOW": self.shape.window or 0,
        }

    @property
    def constants(self) -> dict[str, float]:
        return self.share_constants | {
            "NUM_KV": self.shape.num_kv,
            "UNITS": self.shape.units,
            "HEADS_PER_KV": self.shape.heads_per_kv,
            "BLOCK_TABLES": self.step.layout.block_tables,
            "MAX_BLOCKS": self.step.max_blocks,
            "SCALE": self.shape.scale,
        }

    def dispatch(
        self,
        name: str,
        workgroups: tuple[int, int, int],
        bound: tuple[Slice, ...],
        constants: dict[str, float],
        **snippets: str,
    ) -> Dispatch:
        code = source(name, share=snippet("attention_decode_share"), **snippets)
        pipeline = self.device.pipeline(code, constants, name, proven=True)
        return Dispatch(pipeline, (self.step.words, *bound), workgroups, name)


def attention_simple(
    job: Job, qkv: Slice, kv: KVSlices, partial: Partial, out: Encoded
) -> list[Dispatch]:
    """One thread a head and share, without barriers."""
    simple = job.dispatch(
        "attention_decode_simple",
        (-(-job.shape.num_q * job.splits // 8), job.step.max_tokens, 1),
        (qkv, kv.keys, kv.values, partial.out, partial.softmax),
        job.constants | {"SEQ_IDS": job.step.layout.seq_ids},
        units=f"{job.shape.units}u",
        kv=kv_snippet(job.target),
    )
    return [simple, combine(job, partial, out)]


def combine(job: Job, partial: Partial, out: Encoded) -> Dispatch:
    """Puts the shares together and encodes."""
    cols = job.shape.num_q * job.shape.head_dim
    assert cols % GROUP == 0, cols
    cols_per_team = 128 if job.target.barriers else GROUP
    reduce, constants = team(job.target, cols_per_team)
    return job.dispatch(
        "attention_decode_combine",
        (-(-cols // cols_per_team), job.step.max_tokens, 1),
        (partial.out, partial.softmax, *out.slices),
        constants | job.share_constants | {"COLS": cols_per_team, "UNITS": job.shape.units},
        ahead=f"{min(8, job.splits)}u",
        team=reduce,
        store=out.store,
    )


def _tile(heads: int) -> int:
    """Positions scored at a time: about one (head, position) pair a thread."""
    return max(16, 1 << (_THREADS // heads).bit_length() - 1)
