"""`webllm devices`: lists the GPUs and the CPU, and marks the one that `--device auto` uses."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

from webllm.cli.terminal import say, size
from webllm.errors import DeviceNotFoundError

if TYPE_CHECKING:
    from webllm.backends.webgpu.device.protocol import Adapter, Features


def devices() -> None:
    """List the GPUs and the CPU, and show which one is used."""
    from webllm.backends.webgpu.device.native_adapters import adapters

    try:
        found = adapters()
    except DeviceNotFoundError as error:
        found = []
        say(f"No GPU: {error}\n")
    chosen = next((adapter for adapter in found if adapter.reason is None), None)
    for adapter in found:
        remark = "chosen by --device auto" if adapter is chosen else adapter.reason
        say(_describe_gpu(adapter, remark or "choose it with --device and part of its name"))
    say(_describe_cpu(chosen is None))


def _describe_gpu(adapter: Adapter, remark: str) -> str:
    info, limits = adapter.info, adapter.limits
    driver = f", {info.driver}" if info.driver else ""
    return (
        f"{info.name}: {remark}\n"
        f"  kind        {info.kind.value}, {info.api}{driver}\n"
        f"  features    {_features(adapter.features)}\n"
        f"  buffers     up to {size(limits.max_buffer_bytes)} each, "
        f"{size(limits.max_binding_bytes)} per binding, "
        f"{limits.max_storage_buffers} per shader stage\n"
        f"  workgroups  up to {limits.max_workgroup_threads} threads, "
        f"{limits.max_workgroup_bytes} bytes\n"
    )


def _features(features: Features) -> str:
    if not features.subgroups:
        return "none that webllm uses"
    sizes = {features.subgroup_min, features.subgroup_max}
    return f"subgroups of {' to '.join(map(str, sorted(sizes)))}"


def _describe_cpu(is_chosen: bool) -> str:
    from webllm.backends.cpu.native_library import variants
    from webllm.backends.cpu.system_memory import available_bytes

    try:
        kernels = f"kernels for {variants()[-1]}"
    except DeviceNotFoundError as error:
        return f"CPU: cannot be used: {error}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    remark = (
        "chosen by --device auto, since there is no GPU"
        if is_chosen
        else "choose it with --device cpu"
    )
    return (
        f"CPU: {remark}\n"
        f"  kind        {platform.machine()}, {cores} cores\n"
        f"  features    {kernels}\n"
        f"  memory      {size(available_bytes())} available"
    )
