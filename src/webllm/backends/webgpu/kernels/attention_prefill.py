"""Attention of batches with several tokens a sequence: tiles of queries."""

from __future__ import annotations

from webllm.backends.webgpu.device.protocol import Device, Dispatch, Slice
from webllm.backends.webgpu.kernels.activation import Encoded
from webllm.backends.webgpu.kernels.attention_decode import (
    MAX_HEAD_DIM,
    AttentionShape,
    Job,
    Partial,
    attention_simple,
    combine,
    prefill_splits,
)
from webllm.backends.webgpu.kernels.rope_kv import KVSlices, kv_snippet
from webllm.backends.webgpu.kernels.step_buffer import StepBuffer
from webllm.backends.webgpu.kernels.target import Target

_ROWS = 64  # query rows of a workgroup
_STAGE = 512  # units of values staged
_POSITIONS = 32  # of a tile of keys


def attention_prefill(
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
    """Right for any batch, fast where sequences have many tokens; see `attention_decode`.

    partial: of `partial_bytes(shape, step, prefill_splits(...))`.
    """
    if not target.barriers:
        splits = prefill_splits(target, shape, step)
        return attention_simple(Job(device, target, step, shape, splits), qkv, kv, partial, out)
    assert shape.head_dim in range(16, MAX_HEAD_DIM + 1, 16), shape.head_dim
    heads = shape.heads_together()
    job = Job(device, target, step, shape, 1)
    tiles = min(step.max_tokens, step.max_tokens // (_ROWS // heads) + step.max_seqs)
    tiled = job.dispatch(
        "attention_prefill",
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
        kv=kv_snippet(target),
    )
    return [tiled, combine(job, partial, out)]
