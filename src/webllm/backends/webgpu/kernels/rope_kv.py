"""Rotates q and k, and writes k and v to the KV cache."""

from __future__ import annotations

from dataclasses import dataclass

from webllm.backends.webgpu.device.protocol import Device, Dispatch, Slice
from webllm.backends.webgpu.kernels.kv_cache import KVSlices, kv_access
from webllm.backends.webgpu.kernels.reduction import reduction
from webllm.backends.webgpu.kernels.step_buffer import StepBuffer
from webllm.backends.webgpu.kernels.template import source
from webllm.backends.webgpu.kernels.variant import KernelVariant


@dataclass(frozen=True, slots=True)
class Rope:
    """A RopeTable on the device: f32 [256, rotary_dim / 2, 2], [coarse rows, rotary_dim / 2, 2].

    The first `rotary_dim` dimensions of a head, a multiple of 4, are rotated.
    """

    fine: Slice
    coarse: Slice
    rotary_dim: int


def rope_kv(
    device: Device,
    variant: KernelVariant,
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
    """Rotates q in place; writes rotated k, and v, to the step's slots.

    qkv: f32 [tokens, (num_q + 2 * num_kv) * head_dim]; gammas: f32 [head_dim], of an RMS norm of
    each q or k head before the rotation. head_dim is a multiple of 4, at most 1024.
    """
    assert (head_dim % 4, rope.rotary_dim % 4) == (0, 0), (head_dim, rope.rotary_dim)
    units = head_dim // 4
    reduce, constants = reduction(variant, 1 << (units - 1).bit_length())
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
    code = source("rope_kv", reduction=reduce, kv_cache=kv_access(variant))
    gammas = (q_gamma or rope.fine, k_gamma or rope.fine)  # absent gammas are bound, but not read
    return Dispatch(
        device.pipeline(code, constants, "rope_kv", proven=True),
        (step.words, qkv, rope.fine, rope.coarse, kv.keys, kv.values, *gammas),
        (num_q + 2 * num_kv, step.max_tokens, 1),
        "rope_kv",
    )
