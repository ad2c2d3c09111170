"""Attention in two steps: splits of the context, each by its own workgroups, then their sum.

The kernels of the first step are in `decode.py`, for one token a sequence, and `prefill.py`, for
many. `scalar` does both on software adapters.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from webllm.backends.webgpu.device.protocol import Device, Dispatch, Slice
from webllm.backends.webgpu.kernels.activation import GROUP, Encoded
from webllm.backends.webgpu.kernels.kv_cache import BLOCK_SIZE, KVSlices, kv_access
from webllm.backends.webgpu.kernels.reduction import reduction
from webllm.backends.webgpu.kernels.step_buffer import StepBuffer
from webllm.backends.webgpu.kernels.template import part, source
from webllm.backends.webgpu.kernels.variant import KernelVariant

MAX_HEAD_DIM = 256
_MAX_UNITS = 256  # of the q heads of a workgroup, in workgroup memory
_MAX_ROUNDS = 60000


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
        """Units of four dimensions in a head."""
        return self.head_dim // 4

    @property
    def heads_together(self) -> int:
        """q heads of one KV head in a workgroup, which then loads keys and values only once."""
        limit = min(8, _MAX_UNITS // self.units, self.heads_per_kv)
        return max(n for n in range(1, limit + 1) if self.heads_per_kv % n == 0)


@dataclass(frozen=True, slots=True)
class Partial:
    """Results of the splits, before they are combined: scratch memory."""

    out: Slice  # f32 [tokens, num_q, splits, head_dim]
    softmax: Slice  # f32 [tokens, num_q, splits, 2]: maximum, sum


def partial_bytes(shape: AttentionShape, step: StepBuffer, splits: int) -> tuple[int, int]:
    """Returns the sizes of the two slices of `Partial`; splits: of decode or prefill."""
    rows = step.max_tokens * shape.num_q * splits
    return rows * shape.head_dim * 4, rows * 8


def min_scalar_splits(shape: AttentionShape, step: StepBuffer) -> int:
    """Returns the number of splits that keeps each thread's loops short enough for lavapipe.

    It ends every loop of a thread, without an error, after 65535 iterations in all.
    """
    longest = min(step.max_blocks * BLOCK_SIZE, shape.window or sys.maxsize)
    return -(-longest * (2 * shape.units + 1) // _MAX_ROUNDS)


@dataclass(frozen=True, slots=True)
class AttentionJob:
    """The arguments of one attention's dispatches; a split is a multiple of `tile` positions."""

    device: Device
    variant: KernelVariant
    step: StepBuffer
    shape: AttentionShape
    splits: int
    tile: int = BLOCK_SIZE

    @property
    def split_constants(self) -> dict[str, float]:
        """Constants of parts/split.wgsl."""
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
        return self.split_constants | {
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
        bindings: tuple[Slice, ...],
        constants: dict[str, float],
        **values: str,
    ) -> Dispatch:
        """Returns a dispatch of the kernel in `name`.wgsl."""
        code = source(name, split=part("attention/parts/split"), **values)
        pipeline = self.device.pipeline(code, constants, name, proven=True)
        return Dispatch(pipeline, (self.step.words, *bindings), workgroups, name)


def scalar(
    job: AttentionJob, qkv: Slice, kv: KVSlices, partial: Partial, out: Encoded
) -> list[Dispatch]:
    """Attention with one thread for each head and split, without barriers."""
    splits = job.dispatch(
        "attention/scalar",
        (-(-job.shape.num_q * job.splits // 8), job.step.max_tokens, 1),
        (qkv, kv.keys, kv.values, partial.out, partial.softmax),
        job.constants | {"SEQ_IDS": job.step.layout.seq_ids},
        units=f"{job.shape.units}u",
        kv_cache=kv_access(job.variant),
    )
    return [splits, combine(job, partial, out)]


def combine(job: AttentionJob, partial: Partial, out: Encoded) -> Dispatch:
    """Combines the splits and encodes the result."""
    cols = job.shape.num_q * job.shape.head_dim
    assert cols % GROUP == 0, cols
    cols_at_once = 128 if job.variant.barriers else GROUP
    reduce, constants = reduction(job.variant, cols_at_once)
    return job.dispatch(
        "attention/combine",
        (-(-cols // cols_at_once), job.step.max_tokens, 1),
        (partial.out, partial.softmax, *out.slices),
        constants | job.split_constants | {"COLS": cols_at_once, "UNITS": job.shape.units},
        ahead=f"{min(8, job.splits)}u",
        reduction=reduce,
        write=out.write,
    )
