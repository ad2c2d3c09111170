"""The GPUs that `wgpu` (wgpu-native) offers, the preferred one first, and their memory.

WebGPU does not tell how much memory a GPU has, so each operating system is asked in its own way.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from webllm.backends.webgpu.device.protocol import AdapterInfo, AdapterKind, Features, Limits
from webllm.errors import DeviceNotFoundError

_KINDS = {
    "DiscreteGPU": AdapterKind.DISCRETE,
    "IntegratedGPU": AdapterKind.INTEGRATED,
    "VirtualGPU": AdapterKind.VIRTUAL,
    "CPU": AdapterKind.SOFTWARE,
}
_SUBGROUPS = {0x10DE: 32, 0x106B: 32}  # vendors with one subgroup size: NVIDIA, Apple
_KIND_ORDER = list(AdapterKind)
_APIS = ("Metal", "Vulkan", "D3D12")  # best first
_AMD_TOTALS = "class/drm/card*/device/mem_info_vram_total"
_NVIDIA_QUERY = "--query-gpu=pci.device_id,memory.total,name"
_NVIDIA_TIMEOUT_S = 3.0
FEATURES = ("subgroup",)
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
    """Returns every adapter, the preferred one first.

    Raises DeviceNotFoundError if wgpu is not installed.
    """
    wgpu = load_wgpu()
    with _without_device_select():
        handles = wgpu.gpu.enumerate_adapters_sync()
    return sorted(map(_adapter, handles), key=_preference)


def find_adapter(device: str = "webgpu") -> NativeAdapter:
    """Returns the best adapter ("webgpu"), or the best of those with `device` in their name.

    Raises DeviceNotFoundError, which lists the adapters that can be chosen.
    """
    usable = [adapter for adapter in adapters() if adapter.info.api in _APIS]
    for adapter in usable:
        if device == "webgpu" or device.lower() in adapter.info.name.lower():
            return adapter
    listing = "; ".join(f"{a.info.name} ({a.info.api})" for a in usable) or "none"
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
    """Switches off Mesa's device-select layer while Vulkan starts.

    It only reorders adapters, and writes to stderr without a desktop. Vulkan reads the variable
    when wgpu first enumerates adapters; the environment of the program is restored after that.
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
    compiler = f"wgpu {load_wgpu().__version__}"
    pci_id = raw["device_id"] << 16 | raw["vendor_id"] if raw["device_id"] else 0
    info = AdapterInfo(
        raw["device"], raw["vendor"], raw["description"], api, kind, pci_id, compiler
    )
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
    # wgpu 0.32 spells the sizes "stackgroup", and gives 4 and 128 for every Vulkan adapter.
    sizes = [
        fixed or int(raw.get(f"subgroup_{end}_size", raw.get(f"stackgroup_{end}_size", 0)))
        for end in ("min", "max")
    ]
    return Features(
        subgroups=subgroups,
        subgroup_min=sizes[0] if subgroups else 0,
        subgroup_max=sizes[1] if subgroups else 0,
        names=frozenset(names) | ({"subgroups"} if subgroups else set()),  # WebGPU's spelling
    )


def memory_bytes(info: AdapterInfo, sysfs: Path = Path("/sys")) -> int | None:
    """Returns an adapter's total memory; None if the system does not tell it.

    It may run nvidia-smi, so it blocks. A card is found by its PCI id, or by its name without one.
    """
    if info.kind in (AdapterKind.SOFTWARE, AdapterKind.INTEGRATED):
        return _host_bytes()
    if "nvidia" in info.name.lower():
        return _nvidia_bytes(info)
    cards = {path.parent: int(path.read_text()) for path in sysfs.glob(_AMD_TOTALS)}
    same = [total for card, total in cards.items() if _pci_id(card) in (0, info.pci_id)]
    return max(same if info.pci_id else cards.values(), default=None)


def _pci_id(card: Path) -> int:
    """Returns device << 16 | vendor; 0 if sysfs does not tell it."""
    try:
        device, vendor = (int((card / name).read_text(), 16) for name in ("device", "vendor"))
    except (OSError, ValueError):
        return 0
    return device << 16 | vendor


def _host_bytes() -> int | None:
    if not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _nvidia_bytes(info: AdapterInfo) -> int | None:
    command = ["nvidia-smi", _NVIDIA_QUERY, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_NVIDIA_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    for line in done.stdout.splitlines():
        pci_id, mebibytes, name = [*line.split(", ", 2), "", ""][:3]
        is_same = pci_id == f"0x{info.pci_id:08X}" if info.pci_id else name == info.name
        if is_same and mebibytes.isdigit():
            return int(mebibytes) << 20
    return None
