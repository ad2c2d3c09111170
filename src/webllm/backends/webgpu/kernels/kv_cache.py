"""The KV cache's layout in device memory.

The KV cache of one layer is two buffers, keys and values, in blocks of 16 positions. Four
dimensions of a head are one unit, of f32 or f16:

    keys    [block, kv head, unit, position in block]   threads of neighbouring positions coalesce
    values  [block, kv head, position in block, unit]   threads of neighbouring units coalesce
"""

from __future__ import annotations

from dataclasses import dataclass

from webllm.backends.webgpu.device.protocol import Slice
from webllm.backends.webgpu.kernels.template import part, source
from webllm.backends.webgpu.kernels.variant import KernelVariant

BLOCK_SIZE = 16  # positions


@dataclass(frozen=True, slots=True)
class KVSlices:
    """Keys and values of one layer."""

    keys: Slice
    values: Slice


def kv_bytes(variant: KernelVariant, num_blocks: int, num_kv: int, head_dim: int) -> int:
    """Returns the bytes of one layer's keys; its values take as many."""
    return num_blocks * num_kv * BLOCK_SIZE * head_dim * (2 if variant.kv_f16 else 4)


def kv_access(variant: KernelVariant) -> str:
    """Returns the WGSL of `KV`, `kv_pack`, `kv_unpack`, `key_at` and `value_at`."""
    element = "parts/kv_cache#f16" if variant.kv_f16 else "parts/kv_cache#f32"
    return source("parts/kv_cache", element=part(element))
