"""Rotates q and k and writes k and v to the KV cache; the KV cache's layout.

The KV cache of one layer is two buffers, keys and values, in blocks of 16 positions. Four
dimensions of a head are one unit, f32 or f16 (`rope_kv_f32.wgsl`, `rope_kv_f16.wgsl`):

    keys    [block, kv head, unit, position in block]   one thread a position reads side by side
    values  [block, kv head, position in block, unit]   one thread a unit reads side by side
"""

from __future__ import annotations

from dataclasses import dataclass

from webllm.backends.webgpu.device.protocol import Device, Dispatch, Slice
from webllm.backends.webgpu.kernels.step_buffer import StepBuffer
from webllm.backends.webgpu.kernels.target import Target
from webllm.backends.webgpu.kernels.team import team
from webllm.backends.webgpu.kernels.template import snippet, source

BLOCK_SIZE = 16  # positions


@dataclass(frozen=True, slots=True)
class KVSlices:
    """Keys and values of one layer."""

    keys: Slice
    values: Slice


@dataclass(frozen=True, slots=True)
class Rope:
    """A RopeTable on the device: f32 [256, rotary_dim / 2, 2], [coarse rows, rotary_dim / 2, 2].

    The first `rotary_dim` dimensions of a head are rotated, a multiple of 4.
    """

    fine: Slice
    coarse: Slice
    rotary_dim: int


def kv_bytes(target: Target, num_blocks: int, num_kv: int, head_dim: int) -> int:
    """Bytes of the keys of one layer, and as many of its values."""
    return num_blocks * num_kv * BLOCK_SIZE * head_dim * (2 if target.kv_f16 else 4)


def kv_snippet(target: Target) -> str:
    """Element type and layout: `KV`, `kv_pack`, `kv_unpack`, `key_at`, `value_at`."""
    return snippet("rope_kv_f16" if target.kv_f16 else "rope_kv_f32") + snippet("rope_kv_layout")


def rope_kv(
    device: Device,
    target: Target,
    *,
    step: StepBuffer,
    qkv: Slice,
    num_q: int,
    num_kv: int,
    head_dim: int,
    rope: Rope,
    kv: KVSlices,
    q_gamma: Slice | None = None,
    k_gamma: Slice | None = None,
    eps: float = 0.0,
) -> Dispatch:
    """Rotates q in place, writes rotated k, and v, to the step's slots.

    qkv: f32 [tokens, (num_q + 2 * num_kv) * head_dim]; gammas: f32 [head_dim], of an RMS norm of
    each q or k head before the rotation. head_dim is a multiple of 4, at most 1024.
    """
    assert (head_dim % 4, rope.rotary_dim % 4) == (0, 0), (head_dim, rope.rotary_dim)
    units = head_dim // 4
    reduce, constants = team(target, 1 << (units - 1).bit_length())
    constants |= {
        "NUM_TOKENS": step.tokens.word,
        "POSITIONS": step.layout.positions,
        "SLOTS": step.layout.slot_mapping,
        "NUM_Q": num_q,
        "NUM_KV": num_kv,
        "UNITS": units,
        "ROTARY_UNITS": rope.rotary_dim // 4,
        "NORM_Q": q_gamma is not None,
        "NORM_K": k_gamma is not None,
        "EPS": eps,
    }
    code = source("rope_kv", team=reduce, kv=kv_snippet(target))
    gammas = (q_gamma or rope.fine, k_gamma or rope.fine)  # bound, not read, where absent
    return Dispatch(
        device.pipeline(code, constants, "rope_kv", proven=True),
        (step.words, qkv, rope.fine, rope.coarse, kv.keys, kv.values, *gammas),
        (num_q + 2 * num_kv, step.max_tokens, 1),
        "rope_kv",
    )
