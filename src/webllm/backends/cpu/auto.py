"""Chooses where the kernels run: the CPU backend's one fork between browser and native."""

from __future__ import annotations

import sys

from webllm.backends.cpu.host import Host


async def open_host(num_threads: int | None = None) -> Host:
    """`num_threads` None: as many as pay. A browser has one where a page may not have threads.

    Raises DeviceNotFoundError if no kernels run here.
    """
    if sys.platform == "emscripten":
        from webllm.backends.cpu.browser_threads import open_browser_host

        return await open_browser_host(num_threads)

    from webllm.backends.cpu.native import NativeHost

    return NativeHost(num_threads)
