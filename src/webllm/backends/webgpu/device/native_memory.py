"""How much memory an adapter has. WebGPU does not tell, so each system is asked in its own way."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from webllm.backends.webgpu.device.protocol import AdapterInfo, AdapterKind

_AMD_TOTALS = "class/drm/card*/device/mem_info_vram_total"
_NVIDIA_QUERY = "--query-gpu=pci.device_id,memory.total,name"
_NVIDIA_TIMEOUT_S = 3.0


def memory_bytes(info: AdapterInfo, sysfs: Path = Path("/sys")) -> int | None:
    """Total bytes, not those free now; None if the system does not say. Not for an event loop.

    A card is known by its PCI id, or by its name where there is no id.
    """
    if info.kind in (AdapterKind.SOFTWARE, AdapterKind.INTEGRATED):
        return _host_bytes()
    if "nvidia" in info.name.lower():
        return _nvidia_bytes(info)
    cards = {path.parent: int(path.read_text()) for path in sysfs.glob(_AMD_TOTALS)}
    same = [total for card, total in cards.items() if _pci_id(card) in (0, info.pci_id)]
    return max(same if info.pci_id else cards.values(), default=None)


def _pci_id(card: Path) -> int:
    """0 if sysfs does not say."""
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
