"""Which device runs a model: the one place where backends are chosen."""

from __future__ import annotations

from webllm.cpu.backend import CPUBackend
from webllm.errors import DeviceNotFoundError
from webllm.gpu import native
from webllm.gpu.device import AdapterKind
from webllm.ops.backend import Backend
from webllm.ops.webgpu import WebGPUBackend


def open_backend(device: str, num_threads: int | None = None) -> Backend:
    """`device` is "auto", "cpu", "webgpu" or part of an adapter's name.

    "auto" takes a real GPU, else the CPU; a software adapter runs only when asked for by
    "webgpu" or by name. Raises DeviceNotFoundError.
    """
    if device == "cpu":
        return CPUBackend(num_threads)
    if device != "auto":
        return WebGPUBackend(native.open_device(device))
    try:
        has_gpu = any(a.info.kind is not AdapterKind.SOFTWARE for a in native.adapters())
        return WebGPUBackend(native.open_device("webgpu")) if has_gpu else CPUBackend(num_threads)
    except DeviceNotFoundError:
        return CPUBackend(num_threads)
