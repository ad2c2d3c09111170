"""The memory of an adapter, by operating system."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import current_thread

import pytest

from webllm.backends.webgpu.device import auto, native_adapters
from webllm.backends.webgpu.device.native_adapters import memory_bytes
from webllm.backends.webgpu.device.protocol import AdapterInfo, AdapterKind, Dispatch, Limits
from webllm.errors import DeviceError, DeviceMemoryError

INFO = AdapterInfo("NVIDIA H200", "nvidia", "580", "Vulkan", AdapterKind.DISCRETE)


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        "echo '0x1EB810DE, 15360, NVIDIA T4'\n"
        "echo '0x233510DE, 143771, NVIDIA H200'\n"
        "echo '0x233110DE, [N/A], NVIDIA H100'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return program


@pytest.mark.usefixtures("nvidia_smi")
def test_nvidia_is_found_by_name(tmp_path: Path) -> None:
    assert memory_bytes(INFO) == 143771 << 20
    assert memory_bytes(replace(INFO, name="NVIDIA A1"), tmp_path) is None
    assert memory_bytes(replace(INFO, name="NVIDIA H100"), tmp_path) is None


@pytest.mark.usefixtures("nvidia_smi")
def test_nvidia_is_found_by_id_where_there_is_one() -> None:
    known = replace(INFO, name="NVIDIA H200 (by its driver)", pci_id=0x2335_10DE)
    assert memory_bytes(known) == 143771 << 20
    assert memory_bytes(replace(known, name="NVIDIA H200", pci_id=0x2336_10DE)) is None


def test_nvidia_smi_that_hangs_is_not_waited_for(
    nvidia_smi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(native_adapters, "_NVIDIA_TIMEOUT_S", 0.2)
    assert memory_bytes(INFO) is None


def test_without_nvidia_smi_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert memory_bytes(INFO) is None


def test_amd_says_in_sysfs(tmp_path: Path) -> None:
    card = tmp_path / "class" / "drm" / "card0" / "device"
    card.mkdir(parents=True)
    (card / "mem_info_vram_total").write_text("17163091968\n")
    info = replace(INFO, name="AMD Radeon RX 7800")
    assert memory_bytes(info, tmp_path) == 17163091968


def test_amd_cards_are_told_apart(tmp_path: Path) -> None:
    for number, device in enumerate((0x747E, 0x744C)):
        card = tmp_path / "class" / "drm" / f"card{number}" / "device"
        card.mkdir(parents=True)
        (card / "mem_info_vram_total").write_text(f"{number + 1}000\n")
        (card / "device").write_text(f"{device:#06x}\n")
        (card / "vendor").write_text("0x1002\n")
    info = replace(INFO, name="AMD Radeon RX 7800")
    assert memory_bytes(replace(info, pci_id=0x747E_1002), tmp_path) == 1000
    assert memory_bytes(replace(info, pci_id=0x744C_1002), tmp_path) == 2000
    assert memory_bytes(replace(info, pci_id=0x1234_1002), tmp_path) is None


def test_shared_memory_is_the_host_s() -> None:
    for kind in (AdapterKind.SOFTWARE, AdapterKind.INTEGRATED):
        found = memory_bytes(replace(INFO, kind=kind))
        assert found is not None
        assert found > 1 << 30


LIMITS = Limits(1024, 1024, 8, 32768, 256, max_workgroups=7)


@pytest.mark.parametrize(("asked", "size"), [(0, 256), (1, 256), (256, 256), (1000, 1024)])
def test_the_size_of_a_buffer(asked: int, size: int) -> None:
    assert LIMITS.buffer_bytes(asked, "keys", "H200") == size


def test_a_buffer_that_is_too_large() -> None:
    said = "keys takes 1280 bytes; H200 allows 1024 a buffer"
    with pytest.raises(DeviceMemoryError, match=said):
        LIMITS.buffer_bytes(1025, "keys", "H200")


def test_a_dispatch_of_too_many_workgroups() -> None:
    LIMITS.check_workgroups(Dispatch("kernel", (), (7, 1, 1), "gemv"), "H200")
    with pytest.raises(DeviceError, match=r"gemv: \(1, 8, 1\) workgroups, H200 allows 7"):
        LIMITS.check_workgroups(Dispatch("kernel", (), (1, 8, 1), "gemv"), "H200")


async def test_the_event_loop_does_not_wait_for_drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits neither for the search for adapters nor for opening one, which runs nvidia-smi."""
    threads = []

    def note_thread(_: object) -> None:
        threads.append(current_thread())

    monkeypatch.setattr("webllm.backends.webgpu.device.native_adapters.find_adapter", note_thread)
    monkeypatch.setattr("webllm.backends.webgpu.device.native.NativeDevice", note_thread)
    adapter = await auto.find_adapter("webgpu")
    await auto.open_device(adapter)
    assert len(threads) == 2
    assert current_thread() not in threads
