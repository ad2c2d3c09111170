"""Chooses the device that runs a model, and so the backend.

A backend is imported when it is opened: the GPU's takes a megabyte that the CPU does not need.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from webllm.errors import DeviceNotFoundError

if TYPE_CHECKING:
    from webllm.backends.protocol import Backend
    from webllm.backends.webgpu.device.protocol import Adapter


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What is known of a device before it is opened."""

    name: str
    features: frozenset[str] | None  # WebGPU's names of a GPU's features; None for the CPU
    memory_bytes: int | None  # of the GPU, or available to the CPU; None if that is not known


async def device_facts(device: str) -> DeviceFacts:
    """Returns the facts of the device that `open_backend` opens. Raises DeviceNotFoundError."""
    adapter = await _chosen_adapter(device)
    if adapter is None:
        from webllm.backends.cpu.auto import available_bytes

        return DeviceFacts("CPU", None, available_bytes())

    from webllm.backends.webgpu.device.auto import memory_bytes

    return DeviceFacts(adapter.info.name, adapter.features.names, await memory_bytes(adapter))


async def open_backend(device: str, num_threads: int | None = None) -> Backend:
    """Opens a backend; `device` is "auto", "cpu", "webgpu" or part of an adapter's name.

    "auto" takes a real GPU, else the CPU. A software adapter runs only when asked for: by
    "webgpu" where there is no real GPU, or by name. Raises DeviceNotFoundError, DeviceError.
    """
    adapter = await _chosen_adapter(device)
    return await (_open_cpu(num_threads) if adapter is None else _open_webgpu(adapter))


async def find_adapter(device: str) -> Adapter:
    """Returns the GPU that `device` names, or the best one for "auto" and "cpu".

    Raises DeviceNotFoundError.
    """
    from webllm.backends.webgpu.device import auto

    return await auto.find_adapter("webgpu" if device in ("auto", "cpu") else device)


async def _chosen_adapter(device: str) -> Adapter | None:
    """Returns the GPU to run on; None for the CPU."""
    if device == "cpu":
        return None
    if device != "auto":
        return await find_adapter(device)
    try:
        adapter = await find_adapter("auto")
    except DeviceNotFoundError:
        return None
    return adapter if adapter.reason is None else None


async def _open_cpu(num_threads: int | None) -> Backend:
    from webllm.backends.cpu.auto import open_kernels
    from webllm.backends.cpu.backend import CPUBackend

    return CPUBackend(await open_kernels(num_threads))


async def _open_webgpu(adapter: Adapter) -> Backend:
    """Opens the GPU with the fastest kernels that compute correctly on it."""
    from webllm.backends.webgpu.backend import WebGPUBackend
    from webllm.backends.webgpu.device import auto
    from webllm.backends.webgpu.kernels.variant import KernelVariant
    from webllm.backends.webgpu.self_test import working_variant

    device = await auto.open_device(adapter)
    try:
        variant = await working_variant(device, KernelVariant.for_device(device))
        return WebGPUBackend(device, variant)
    except BaseException:
        device.close()
        raise
