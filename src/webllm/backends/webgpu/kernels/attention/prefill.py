"""Attention of batches with several tokens a sequence: tiles of queries."""

from __future__ import annotations

from webllm.backends.webgpu.device.protocol import Device, Dispatch, Slice
from webllm.backends.webgpu.kernels.activation import Encoded
from webllm.backends.webgpu.kernels.attention import (
    MAX_HEAD_DIM,
    AttentionJob,
    AttentionShape,
    Partial,
    combine,
    min_scalar_splits,
    scalar,
)
from webllm.backends.webgpu.kernels.kv_cache import KVSlices, kv_access
from webllm.backends.webgpu.kernels.step_buffer import StepBuffer
from webllm.backends.webgpu.kernels.variant import KernelVariant

_ROWS = 64  # query rows of a workgroup
_STAGE = 512  # units of values staged
_POSITIONS = 32  # of a tile of keys


def prefill_splits(variant: KernelVariant, shape: AttentionShape, step: StepBuffer) -> int:
    """Returns the number of context splits."""
    return 1 if variant.barriers else min_scalar_splits(shape, step)


def attention_prefill(
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
    """Correct for any batch, fast where sequences have many tokens; see `attention_decode`.

    partial: of `partial_bytes(shape, step, prefill_splits(...))`.
    """
    if not variant.barriers:
        splits = prefill_splits(variant, shape, step)
        return scalar(AttentionJob(device, variant, step, shape, splits), qkv, kv, partial, out)
    assert shape.head_dim in range(16, MAX_HEAD_DIM + 1, 16), shape.head_dim
    heads = shape.heads_together
    job = AttentionJob(device, variant, step, shape, 1)
    tiles = min(step.max_tokens, step.max_tokens // (_ROWS // heads) + step.max_seqs)
    prefill = job.dispatch(
        "attention/prefill",
        (tiles, shape.num_q // heads, 1),
        (qkv, kv.keys, kv.values, partial.out, partial.softmax),
        job.constants
        | {
            "NUM_SEQS": step.layout.header + 1,
            "QUERY_STARTS": step.layout.query_starts,
            "VALUES_STAGED": min(_POSITIONS, 1 << (_STAGE // shape.units).bit_length() - 1),
        },
        heads=f"{heads}u",
        units_per_thread=f"{-(-shape.units // 16)}u",
        kv_cache=kv_access(variant),
    )
    return [prefill, combine(job, partial, out)]
