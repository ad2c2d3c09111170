"""`webllm devices` on made-up machines."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from webllm.backends.webgpu.device import native_adapters
from webllm.backends.webgpu.device.native_adapters import NativeAdapter
from webllm.backends.webgpu.device.protocol import AdapterInfo, AdapterKind, Features, Limits
from webllm.cli.main import app
from webllm.errors import DeviceNotFoundError

SOFTWARE = NativeAdapter(
    info=AdapterInfo("llvmpipe", "Mesa", "Mesa 22", "Vulkan", AdapterKind.SOFTWARE),
    limits=Limits(2**31, 2**27, 8, 32768, 1024, 65535),
    features=Features(True, 4, 4),
    reason="a software adapter, used only when asked for",
    handle=None,
)
GPU = replace(
    SOFTWARE,
    info=AdapterInfo("H200", "NVIDIA", "", "Vulkan", AdapterKind.DISCRETE),
    features=Features(True, 32, 64),
    reason=None,
)


@pytest.fixture(autouse=True)
def _cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webllm.backends.cpu.native_library.variants", lambda: ("baseline", "avx2"))
    monkeypatch.setattr("webllm.backends.cpu.system_memory.available_bytes", lambda: 2_500_000_000)


def devices(monkeypatch: pytest.MonkeyPatch, *adapters: NativeAdapter) -> str:
    monkeypatch.setattr(
        "webllm.backends.webgpu.device.native_adapters.adapters", lambda: list(adapters)
    )
    result = CliRunner().invoke(app, ["devices"])
    assert result.exit_code == 0
    return result.stdout


def test_a_real_gpu_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = devices(monkeypatch, GPU, SOFTWARE)
    assert "H200: chosen by --device auto\n  kind        discrete GPU, Vulkan\n" in shown
    assert "features    subgroups of 32 to 64\n" in shown
    assert "llvmpipe: a software adapter, used only when asked for" in shown
    assert "features    subgroups of 4\n" in shown
    assert "buffers     up to 2.1 GB each, 134 MB per binding, 8 per shader stage" in shown
    assert "CPU: choose it with --device cpu\n" in shown


def test_the_cpu_is_chosen_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = devices(monkeypatch, SOFTWARE)
    assert "CPU: chosen by --device auto, since there is no GPU\n" in shown
    assert "features    kernels for avx2\n  memory      2.5 GB available\n" in shown


def test_an_unknown_name_is_answered_with_those_that_can_be_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opengl = replace(GPU, info=replace(GPU.info, name="H200/OpenGL", api="OpenGL"), reason="no")
    monkeypatch.setattr(native_adapters, "adapters", lambda: [GPU, opengl, SOFTWARE])
    with pytest.raises(DeviceNotFoundError) as caught:
        native_adapters.find_adapter("radeon")
    assert "adapters: H200 (Vulkan); llvmpipe (Vulkan). " in str(caught.value)
    for name, adapter in (("h200", GPU), ("llvmpipe", SOFTWARE)):
        assert native_adapters.find_adapter(name) is adapter


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_wgpu() -> list[NativeAdapter]:
        raise DeviceNotFoundError("wgpu is not installed")

    def no_kernels() -> tuple[str, ...]:
        raise DeviceNotFoundError("no CPU kernels for this machine")

    monkeypatch.setattr("webllm.backends.webgpu.device.native_adapters.adapters", no_wgpu)
    monkeypatch.setattr("webllm.backends.cpu.native_library.variants", no_kernels)
    shown = CliRunner().invoke(app, ["devices"]).stdout
    assert shown == (
        "No GPU: wgpu is not installed\n\nCPU: cannot be used: no CPU kernels for this machine\n"
    )
