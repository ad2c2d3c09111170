"""Chooses who drives the GPU: its one fork between browser and native."""

from __future__ import annotations

import asyncio
import sys
from typing import Protocol

from webllm.gpu.device import AdapterInfo, Device, Features, Limits


class Adapter(Protocol):
    """A GPU as a driver offers it."""

    @property
    def info(self) -> AdapterInfo: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def features(self) -> Features: ...
    @property
    def reason(self) -> str | None:
        """Why it is not chosen by itself, if it is not."""


async def find_adapter(device: str = "webgpu") -> Adapter:
    """The best adapter ("webgpu"), or one with `device` in its name; DeviceNotFoundError."""
    if sys.platform == "emscripten":
        from webllm.gpu import browser

        return await browser.find_adapter(device)

    from webllm.gpu import native_adapters

    return await asyncio.to_thread(native_adapters.find_adapter, device)


async def open_device(device: str = "webgpu") -> Device:
    """The device of `find_adapter`; raises DeviceNotFoundError or DeviceError."""
    if sys.platform == "emscripten":
        from webllm.gpu import browser

        return await browser.open_device(device)

    from webllm.gpu import native

    return await asyncio.to_thread(native.open_device, device)
