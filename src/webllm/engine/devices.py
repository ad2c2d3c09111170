"""Which device runs a model: the one place where backends are chosen."""

from __future__ import annotations

from webllm.cpu.backend import CPUBackend
from webllm.errors import DeviceNotFoundError
from webllm.gpu import native
from webllm.ops.backend import Backend
from webllm.ops.webgpu import WebGPUBackend


def open_backend(device: str, num_threads: int | None = None) -> Backend:
    """`device` is "auto", "cpu", "webgpu" or part of an adapter's name.

    "auto" takes a real GPU, else the CPU. A software adapter runs only when asked for: by
    "webgpu" where there is no real GPU, or by name. Raises DeviceNotFoundError.
    """
    if device == "cpu" or (device == "auto" and not _has_gpu()):
        return CPUBackend(num_threads)
    return WebGPUBackend(native.open_device("webgpu" if device == "auto" else device))


def _has_gpu() -> bool:
    try:
        return any(adapter.reason is None for adapter in native.adapters())
    except DeviceNotFoundError:
        return False
