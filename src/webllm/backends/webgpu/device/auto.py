"""Chooses the driver of the GPU: `navigator.gpu` in a browser, else wgpu."""

from __future__ import annotations

import asyncio

from webllm.backends.webgpu.device.protocol import Adapter, Device
from webllm.host import THIS_HOST


async def find_adapter(device: str = "webgpu") -> Adapter:
    """Returns the best adapter ("webgpu"), or one with `device` in its name.

    Raises DeviceNotFoundError.
    """
    if THIS_HOST.is_browser:
        from webllm.backends.webgpu.device import browser

        return await browser.find_adapter(device)

    from webllm.backends.webgpu.device import native_adapters

    return await asyncio.to_thread(native_adapters.find_adapter, device)


async def memory_bytes(adapter: Adapter) -> int | None:
    """Returns the memory of an adapter; None if that is not known, as in a browser."""
    if THIS_HOST.is_browser:
        return None

    from webllm.backends.webgpu.device import native_adapters

    return await asyncio.to_thread(native_adapters.memory_bytes, adapter.info)


async def open_device(adapter: Adapter) -> Device:
    """Returns the device of an adapter; raises DeviceError.

    If the caller is cancelled, waits for the device and closes it: no driver can be interrupted.
    """
    opening = asyncio.ensure_future(_opened(adapter))
    try:
        await asyncio.wait([opening])
    except asyncio.CancelledError:
        opening.add_done_callback(_close)
        await asyncio.wait([opening])
        raise
    return opening.result()


async def _opened(adapter: Adapter) -> Device:
    if THIS_HOST.is_browser:
        from webllm.backends.webgpu.device import browser

        return await browser.open_device(adapter)

    from webllm.backends.webgpu.device.native import NativeDevice

    return await asyncio.to_thread(NativeDevice, adapter)


def _close(opening: asyncio.Future[Device]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
