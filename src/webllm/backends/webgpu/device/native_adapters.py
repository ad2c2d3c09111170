"""Adapters through `wgpu` (wgpu-native): what GPUs there are, the best first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from webllm.backends.webgpu.device.protocol import AdapterInfo, AdapterKind, Features, Limits
from webllm.errors import DeviceNotFoundError

_KINDS = {
    "DiscreteGPU": AdapterKind.DISCRETE,
    "IntegratedGPU": AdapterKind.INTEGRATED,
    "VirtualGPU": AdapterKind.VIRTUAL,
    "CPU": AdapterKind.SOFTWARE,
}
_SUBGROUPS = {0x10DE: 32, 0x106B: 32}  # vendors that make one size only: NVIDIA, Apple
_KIND_ORDER = list(AdapterKind)
_APIS = ("Metal", "Vulkan", "D3D12")  # best first
FEATURES = ("shader-f16", "subgroup", "timestamp-query")
LIMITS = {
    "max_buffer_bytes": "max-buffer-size",
    "max_binding_bytes": "max-storage-buffer-binding-size",
    "max_storage_buffers": "max-storage-buffers-per-shader-stage",
    "max_workgroup_bytes": "max-compute-workgroup-storage-size",
    "max_workgroup_threads": "max-compute-invocations-per-workgroup",
    "max_workgroups": "max-compute-workgroups-per-dimension",
}


@dataclass(frozen=True, slots=True)
class NativeAdapter:
    """An `Adapter` of wgpu; `handle` is the wgpu.GPUAdapter."""

    info: AdapterInfo
    limits: Limits
    features: Features
    reason: str | None
    handle: Any


def adapters() -> list[NativeAdapter]:
    """Every adapter, the preferred one first; DeviceNotFoundError without wgpu."""
    wgpu = load_wgpu()
    with _without_device_select():
        handles = wgpu.gpu.enumerate_adapters_sync()
    return sorted(map(_adapter, handles), key=_preference)


def find_adapter(device: str = "webgpu") -> NativeAdapter:
    """The best adapter there is ("webgpu"), or the best of those with `device` in their name.

    Raises DeviceNotFoundError, which lists the adapters there are.
    """
    offered = adapters()
    for adapter in offered:
        named = device == "webgpu" or device.lower() in adapter.info.name.lower()
        if named and adapter.info.api in _APIS:
            return adapter
    listing = "; ".join(f"{a.info.name} ({a.info.api})" for a in offered) or "none"
    wanted = "GPU" if device == "webgpu" else f"adapter named {device!r}"
    raise DeviceNotFoundError(
        f"found no {wanted} to run on; adapters: {listing}. Install a Vulkan driver, choose "
        f"one of these, or use the CPU backend"
    )


def load_wgpu() -> Any:
    try:
        import wgpu  # type: ignore[import-untyped]
    except ImportError as error:
        raise DeviceNotFoundError(
            f"wgpu is not installed ({error}): pip install 'webllm[gpu]'"
        ) from error
    return wgpu


@contextmanager
def _without_device_select() -> Iterator[None]:
    """Mesa's device-select layer only reorders adapters, and writes to stderr without a desktop.

    Vulkan reads the variable when it is started, which is when wgpu first looks for adapters; the
    program's environment is otherwise its own.
    """
    if "NODEVICE_SELECT" in os.environ:
        yield
        return
    os.environ["NODEVICE_SELECT"] = "1"
    try:
        yield
    finally:
        os.environ.pop("NODEVICE_SELECT", None)


def _adapter(handle: Any) -> NativeAdapter:
    raw = handle.info
    kind = _KINDS.get(raw["adapter_type"], AdapterKind.UNKNOWN)
    api = raw["backend_type"]
    pci_id = raw["device_id"] << 16 | raw["vendor_id"] if raw["device_id"] else 0
    info = AdapterInfo(raw["device"], raw["vendor"], raw["description"], api, kind, pci_id)
    limits = Limits(**{name: handle.limits[key] for name, key in LIMITS.items()})
    return NativeAdapter(info, limits, _features(handle), _reason(kind, api), handle)


def _reason(kind: AdapterKind, api: str) -> str | None:
    if api not in _APIS:
        return f"{api} lacks what the kernels need"
    if kind is AdapterKind.SOFTWARE:
        return "a software adapter, used only when asked for"
    return None


def _preference(adapter: NativeAdapter) -> tuple[int, int]:
    api = adapter.info.api
    return (
        _KIND_ORDER.index(adapter.info.kind),
        _APIS.index(api) if api in _APIS else len(_APIS),
    )


def _features(handle: Any) -> Features:
    names, raw = handle.features, handle.info
    subgroups = "subgroup" in names
    fixed = _SUBGROUPS.get(raw["vendor_id"])
    # wgpu 0.32 spells the sizes "stackgroup", and says 4 and 128 for every Vulkan adapter.
    sizes = [
        fixed or int(raw.get(f"subgroup_{end}_size", raw.get(f"stackgroup_{end}_size", 0)))
        for end in ("min", "max")
    ]
    return Features(
        shader_f16="shader-f16" in names,
        subgroups=subgroups,
        subgroup_min=sizes[0] if subgroups else 0,
        subgroup_max=sizes[1] if subgroups else 0,
        timestamps="timestamp-query" in names,
    )
