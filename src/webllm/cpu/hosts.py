"""Chooses where the kernels run: the CPU backend's one fork between browser and native."""

from __future__ import annotations

import sys

from webllm.cpu.host import Host


def open_host(num_threads: int | None = None) -> Host:
    """Raises DeviceNotFoundError if no kernels run here. A browser has one thread."""
    if sys.platform == "emscripten":
        from webllm.cpu.browser import BrowserHost

        return BrowserHost()

    from webllm.cpu.native import NativeHost

    return NativeHost(num_threads)
