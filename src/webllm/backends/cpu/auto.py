"""Opens the kernels and finds memory: the CPU backend's one choice between browser and native."""

from __future__ import annotations

from webllm.backends.cpu.kernels import Kernels
from webllm.host import THIS_HOST


def available_bytes() -> int | None:
    """Returns the memory that a model may take here; None if that is not known, as in a browser."""
    if THIS_HOST.is_browser:
        return None

    from webllm.backends.cpu import system_memory

    return system_memory.available_bytes()


async def open_kernels(num_threads: int | None = None) -> Kernels:
    """Opens the fastest kernels that compute correctly here.

    `num_threads`: None for the number of cores, up to a limit. A browser page that is not
    isolated from other origins gets one thread. Raises DeviceNotFoundError if no kernels run here.
    """
    if THIS_HOST.is_browser:
        from webllm.backends.cpu.browser_threads import open_browser_kernels

        return await open_browser_kernels(num_threads)

    from webllm.backends.cpu.native import NativeKernels

    return NativeKernels(num_threads)
