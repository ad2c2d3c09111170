"""Which device runs a model: the one place where backends are chosen.

A backend is imported when it is opened: the GPU's takes a megabyte that the CPU does not need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webllm.errors import DeviceNotFoundError

if TYPE_CHECKING:
    from webllm.gpu.hosts import Adapter
    from webllm.ops.backend import Backend


async def open_backend(device: str, num_threads: int | None = None) -> Backend:
    """`device` is "auto", "cpu", "webgpu" or part of an adapter's name.

    "auto" takes a real GPU, else the CPU. A software adapter runs only when asked for: by
    "webgpu" where there is no real GPU, or by name. A GPU's kernels are the fastest that compute
    rightly on it. Raises DeviceNotFoundError, DeviceError.
    """
    if device == "cpu" or (device == "auto" and not await _has_gpu()):
        from webllm.cpu.backend import CPUBackend
        from webllm.cpu.hosts import open_host

        return CPUBackend(await open_host(num_threads))

    from webllm.gpu import hosts
    from webllm.kernels.target import Target
    from webllm.ops.webgpu import WebGPUBackend
    from webllm.ops.webgpu_self_test import working_target

    gpu = await hosts.open_device("webgpu" if device == "auto" else device)
    try:
        return WebGPUBackend(gpu, await working_target(gpu, Target.for_device(gpu)))
    except BaseException:
        gpu.close()
        raise


async def find_adapter(device: str) -> Adapter:
    """The GPU that `device` names, or the best there is for "auto" and "cpu".

    Raises DeviceNotFoundError.
    """
    from webllm.gpu import hosts

    return await hosts.find_adapter("webgpu" if device in ("auto", "cpu") else device)


async def _has_gpu() -> bool:
    from webllm.gpu import hosts

    try:
        return (await hosts.find_adapter()).reason is None
    except DeviceNotFoundError:
        return False
