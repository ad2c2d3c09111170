"""Attention of batches with one token a sequence."""

from __future__ import annotations

from webllm.backends.webgpu.device.protocol import Device, Dispatch, Slice
from webllm.backends.webgpu.kernels.activation import Encoded
from webllm.backends.webgpu.kernels.attention import (
    AttentionJob,
    AttentionShape,
    Partial,
    combine,
    min_scalar_splits,
    scalar,
)
from webllm.backends.webgpu.kernels.kv_cache import BLOCK_SIZE, KVSlices, kv_access
from webllm.backends.webgpu.kernels.step_buffer import StepBuffer
from webllm.backends.webgpu.kernels.variant import KernelVariant

_THREADS = 128
_WORKGROUPS = 1024  # enough to fill a large GPU
_MAX_SPLITS = 64
_MAX_PARTIAL_COLS = 1 << 19  # so that 64 tokens of f32 fit into any binding


def decode_splits(variant: KernelVariant, shape: AttentionShape, step: StepBuffer) -> int:
    """Returns the number of context splits.

    It does not depend on the batch, so that a token's result does not either.
    """
    if not variant.barriers:
        return max(4, min_scalar_splits(shape, step))
    workgroups = shape.num_q // shape.heads_together  # of one token
    longest = -(-step.max_blocks * BLOCK_SIZE // _tile(shape.heads_together))
    fitting = _MAX_PARTIAL_COLS // (shape.num_q * shape.head_dim)
    return max(1, min(_MAX_SPLITS, longest, _WORKGROUPS // workgroups, fitting))


def attention_decode(
    device: Device,
    variant: KernelVariant,
    *,
    step: StepBuffer,
    shape: AttentionShape,
    qkv: Slice,
    kv: KVSlices,
    partial: Partial,
    out: Encoded,
) -> list[Dispatch]:
    """Correct for any batch, fast where every sequence has one token.

    qkv: f32 [tokens, (num_q + 2 * num_kv) * head_dim], q rotated; out: [tokens, num_q * head_dim],
    a multiple of 32 columns. partial: of `partial_bytes(shape, step, decode_splits(...))`.
    """
    splits = decode_splits(variant, shape, step)
    heads = shape.heads_together
    if not variant.barriers:
        return scalar(AttentionJob(device, variant, step, shape, splits), qkv, kv, partial, out)
    job = AttentionJob(device, variant, step, shape, splits, _tile(heads))
    decode = job.dispatch(
        "attention/decode",
        (splits, shape.num_q // heads, step.max_tokens),
        (qkv, kv.keys, kv.values, partial.out, partial.softmax),
        job.constants | {"SEQ_IDS": step.layout.seq_ids},
        heads=f"{heads}u",
        units=f"{shape.units}u",
        tile=f"{job.tile}u",
        kv_cache=kv_access(variant),
    )
    return [decode, combine(job, partial, out)]


def _tile(heads: int) -> int:
    """Positions scored at a time: about one (head, position) pair a thread."""
    return max(16, 1 << (_THREADS // heads).bit_length() - 1)
