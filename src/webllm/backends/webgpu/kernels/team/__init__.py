"""Teams: the threads that share one piece of work, and how they add up what they found.

The three snippets have one interface (see workgroup.wgsl), so that a kernel is written once and
runs with subgroups, with workgroup memory alone, or as a single thread without barriers.
"""

from __future__ import annotations

from webllm.backends.webgpu.kernels.target import Target
from webllm.backends.webgpu.kernels.template import snippet

_MAX_THREADS = 256  # without subgroups, for the sake of workgroup memory


def team(target: Target, threads: int) -> tuple[str, dict[str, float]]:
    """The snippet, and its constants, for teams of `threads`, a power of two.

    At most 256, and 1024 with subgroups where the device allows it.
    """
    assert threads.bit_count() == 1, threads
    if not target.barriers:
        return snippet("team/single"), {"THREADS": 1}
    if target.subgroup and threads >= target.subgroup:
        return snippet("team/subgroup"), {"THREADS": threads, "SUBGROUP": target.subgroup}
    assert threads <= _MAX_THREADS, threads
    return snippet("team/workgroup"), {"THREADS": threads}
