"""Memory of an adapter, by system."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from webllm.gpu.device import AdapterInfo, AdapterKind
from webllm.gpu.native_memory import memory_bytes

INFO = AdapterInfo("NVIDIA H200", "nvidia", "580", "Vulkan", AdapterKind.DISCRETE)


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA T4, 15360'\necho 'NVIDIA H200, 143771'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return program


@pytest.mark.usefixtures("nvidia_smi")
def test_nvidia_is_found_by_name(tmp_path: Path) -> None:
    assert memory_bytes(INFO) == 143771 << 20
    assert memory_bytes(replace(INFO, name="NVIDIA A1"), tmp_path) is None


def test_without_nvidia_smi_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert memory_bytes(INFO) is None


def test_amd_says_in_sysfs(tmp_path: Path) -> None:
    card = tmp_path / "class" / "drm" / "card0" / "device"
    card.mkdir(parents=True)
    (card / "mem_info_vram_total").write_text("17163091968\n")
    assert memory_bytes(replace(INFO, name="AMD Radeon RX 7800"), tmp_path) == 17163091968


def test_shared_memory_is_the_host_s() -> None:
    for kind in (AdapterKind.SOFTWARE, AdapterKind.INTEGRATED):
        found = memory_bytes(replace(INFO, kind=kind))
        assert found is not None
        assert found > 1 << 30
