"""Sums and maxima over the threads of a workgroup; the interface is in parts/reduction.wgsl."""

from __future__ import annotations

from webllm.backends.webgpu.kernels.template import part
from webllm.backends.webgpu.kernels.variant import KernelVariant

_MAX_THREADS = 256  # without subgroups, to save workgroup memory


def reduction(variant: KernelVariant, threads: int) -> tuple[str, dict[str, float]]:
    """Returns the WGSL and its constants for workgroups of `threads`, a power of two.

    `threads` is at most 256, or 1024 with subgroups where the device allows it. Scalar variants
    run one thread whatever is asked for.
    """
    assert threads.bit_count() == 1, threads
    if not variant.barriers:
        return part("parts/reduction#single"), {"THREADS": 1}
    if variant.subgroup and threads >= variant.subgroup:
        return part("parts/reduction#subgroup"), {"THREADS": threads, "SUBGROUP": variant.subgroup}
    assert threads <= _MAX_THREADS, threads
    return part("parts/reduction#workgroup"), {"THREADS": threads}
