"""How much memory an adapter has. WebGPU does not tell, so each system is asked in its own way."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from webllm.gpu.device import AdapterInfo, AdapterKind

_AMD_TOTALS = "class/drm/card*/device/mem_info_vram_total"


def memory_bytes(info: AdapterInfo, sysfs: Path = Path("/sys")) -> int | None:
    """Total bytes, not those free now; None if the system does not say."""
    if info.kind in (AdapterKind.SOFTWARE, AdapterKind.INTEGRATED):
        return _host_bytes()
    if "nvidia" in info.name.lower():
        return _nvidia_bytes(info.name)
    totals = [int(path.read_text()) for path in sysfs.glob(_AMD_TOTALS)]
    return max(totals, default=None)


def _host_bytes() -> int | None:
    if not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _nvidia_bytes(name: str) -> int | None:
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    for line in done.stdout.splitlines():
        gpu, _, mebibytes = line.rpartition(", ")
        if gpu == name and mebibytes.strip().isdigit():
            return int(mebibytes) << 20
    return None
