"""The device on `navigator.gpu`, under Pyodide; browser.js does the work of every step."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from typing import Any

from js import Object, navigator
from pyodide.ffi import JsException, to_js

from webllm import errors
from webllm.backends.webgpu.device.protocol import (
    Adapter,
    AdapterInfo,
    AdapterKind,
    Data,
    Dispatch,
    Features,
    Limits,
    Recording,
    Slice,
)
from webllm.browser_javascript import browser_module, handled, settled
from webllm.errors import DeviceError, DeviceNotFoundError

_SOFTWARE = ("swiftshader", "llvmpipe", "lavapipe", "microsoft basic render")
_SUBGROUPS = {"nvidia": 32, "apple": 32}  # vendors with one subgroup size
_FEATURES = ("subgroups",)
_LIMITS = {
    "max_buffer_bytes": "maxBufferSize",
    "max_binding_bytes": "maxStorageBufferBindingSize",
    "max_storage_buffers": "maxStorageBuffersPerShaderStage",
    "max_workgroup_bytes": "maxComputeWorkgroupStorageSize",
    "max_workgroup_threads": "maxComputeInvocationsPerWorkgroup",
    "max_workgroups": "maxComputeWorkgroupsPerDimension",
}
_MORE_LIMITS = ("maxComputeWorkgroupSizeX", "maxComputeWorkgroupSizeY")


class BrowserAdapter:
    """An `Adapter` of the browser; `handle` is the GPUAdapter."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.info = _info(handle.info)
        self.limits = Limits(
            **{name: int(getattr(handle.limits, key)) for name, key in _LIMITS.items()}
        )
        self.features = _features(handle)

    @property
    def reason(self) -> str | None:
        """Why the adapter is used only when it is asked for; None if it may be chosen."""
        if self.info.kind is AdapterKind.SOFTWARE:
            return "a software adapter, used only when asked for"
        return None


async def find_adapter(device: str = "webgpu") -> BrowserAdapter:
    """Returns the adapter that the browser prefers; `device` is "webgpu" or part of its name.

    Raises DeviceNotFoundError.
    """
    gpu = getattr(navigator, "gpu", None)
    if gpu is None:
        raise DeviceNotFoundError(
            "this browser has no WebGPU, or the page is not served over https or from localhost; "
            "use the CPU backend"
        )
    handle = await settled(gpu.requestAdapter(_to_js({"powerPreference": "high-performance"})))
    if not handle:  # null, which is not None
        raise DeviceNotFoundError(
            "the browser offers no GPU: it may be on its block list, or hardware acceleration "
            "switched off; use the CPU backend"
        )
    adapter = BrowserAdapter(handle)
    if device != "webgpu" and device.lower() not in adapter.info.name.lower():
        raise DeviceNotFoundError(
            f"no adapter named {device!r}; the browser offers {adapter.info.name!r}"
        )
    return adapter


async def open_device(adapter: Adapter) -> BrowserDevice:
    """Returns the device of an adapter; raises DeviceError."""
    module = await _module()
    names = [name for name in _FEATURES if adapter.handle.features.has(name)]
    limits = [*_LIMITS.values(), *_MORE_LIMITS]
    try:
        gpu = await module.Gpu.open(adapter.handle, to_js(names), to_js(limits))
    except JsException as error:
        raise DeviceError(f"{adapter.info.name}: the browser gave no device: {error}") from error
    return BrowserDevice(adapter, gpu)


async def _module() -> Any:
    try:
        return await browser_module("webllm_gpu", __package__, "browser.js")
    except ImportError as error:
        raise DeviceNotFoundError(f"{error}; or use the CPU backend") from error


def _info(raw: Any) -> AdapterInfo:
    names = [str(getattr(raw, key, "")) for key in ("vendor", "architecture", "description")]
    vendor, architecture, description = names
    described = " ".join(names).lower()
    software = getattr(raw, "isFallbackAdapter", False) or any(n in described for n in _SOFTWARE)
    kind = AdapterKind.SOFTWARE if software else AdapterKind.UNKNOWN
    name = description or f"{vendor} {architecture}".strip() or "a GPU"
    return AdapterInfo(name, vendor, "", "WebGPU", kind, compiler=_browser())


def _browser() -> str:
    """Returns the browser's name and version from its user agent, such as "Chrome/141.0.0.0"."""
    agent = str(navigator.userAgent)
    found = re.search(r"(Edg|OPR|Chrome|Firefox|Version)/[\d.]+", agent)
    return found.group() if found else agent


def _features(handle: Any) -> Features:
    subgroups = bool(handle.features.has("subgroups"))
    fixed = _SUBGROUPS.get(str(handle.info.vendor))
    sizes = [
        fixed or int(getattr(handle.info, f"subgroup{end}Size", 0)) if subgroups else 0
        for end in ("Min", "Max")
    ]
    return Features(
        subgroups=subgroups,
        subgroup_min=sizes[0],
        subgroup_max=sizes[1],
        names=frozenset(map(str, handle.features)),
    )


def _to_js(value: object) -> Any:
    """Converts to JavaScript, dicts to plain objects."""
    return to_js(value, dict_converter=Object.fromEntries)


class BrowserBuffer:
    """Device memory; `handle` is the GPUBuffer."""

    def __init__(self, handle: Any, size: int) -> None:
        self.handle = handle
        self.size = size

    def destroy(self) -> None:
        self.handle.destroy()


class BrowserReadback:
    """A submission in flight; awaiting it returns the bytes read back, or raises DeviceError.

    is_step: it reads the tokens of a step, whose await is never cancelled and has to be fast.
    """

    def __init__(self, promise: Any, *, is_step: bool = False) -> None:
        self._promise = promise if is_step else handled(promise)  # a load may be stopped meanwhile
        self._is_step = is_step

    def __await__(self) -> Generator[Any, None, bytes]:
        return self._finish().__await__()

    async def _finish(self) -> bytes:
        try:
            data = await (self._promise if self._is_step else settled(self._promise))
        except JsException as error:
            raise _typed(error) from error
        read: bytes = data.to_bytes()
        return read


def _typed(error: JsException) -> Exception:
    """Returns our error for one of browser.js, which names them after our classes."""
    kind = getattr(errors, str(error.name), DeviceError)
    return kind(str(error.message)) if issubclass(kind, DeviceError) else error


class BrowserDevice:
    """See `webllm.backends.webgpu.device.protocol.Device`.

    Kernels compile in the background, in parallel. A replay waits for its own kernels, and later
    calls wait for it. The failure of a call without an answer is raised by all later answers.
    """

    def __init__(self, adapter: Adapter, gpu: Any) -> None:
        self.info = adapter.info
        self.limits = adapter.limits
        self.features = adapter.features
        self._gpu = gpu
        self._prelude = "enable subgroups;\n" if self.features.subgroups else ""
        self._pipelines: dict[tuple[str, tuple[tuple[str, float], ...]], Any] = {}

    def buffer(self, num_bytes: int, label: str = "") -> BrowserBuffer:
        size = self.limits.buffer_bytes(num_bytes, label, self.info.name)
        return BrowserBuffer(self._gpu.buffer(size, label or "a buffer"), size)

    def pipeline(
        self,
        source: str,
        constants: Mapping[str, float] | None = None,
        label: str = "",
        proven: bool = False,
    ) -> Any:
        values = {name: float(value) for name, value in (constants or {}).items()}
        key = (source, tuple(sorted(values.items())))
        if key not in self._pipelines:
            code = self._prelude + source
            self._pipelines[key] = self._gpu.compile(code, _to_js(values), label or "main")
        return self._pipelines[key]

    def write(self, target: Slice, data: Data) -> None:
        self._gpu.write(_handle(target), target.offset, data)

    def record(self, dispatches: Sequence[Dispatch]) -> Any:
        for dispatch in dispatches:
            self.limits.check_workgroups(dispatch, self.info.name)
        return self._gpu.record(_dispatches(dispatches))

    async def prepare(self, lay_out: Callable[[], Sequence[Dispatch]]) -> Any:
        recording = self.record(lay_out())
        try:
            await settled(recording.ready)
        except JsException as error:
            raise _typed(error) from error
        return recording

    def replay(self, recording: Recording, readback: Slice | None = None) -> Awaitable[bytes]:
        if readback is None:
            return BrowserReadback(self._gpu.replay(recording))
        return BrowserReadback(self._gpu.replay(recording, *_place(readback)), is_step=True)

    async def read(self, source: Slice) -> bytes:
        return await BrowserReadback(self._gpu.replay(None, *_place(source)))

    def memory_bytes(self) -> int | None:
        return None

    def close(self) -> None:
        self._pipelines.clear()
        self._gpu.close()


def _dispatches(dispatches: Sequence[Dispatch]) -> Any:
    return _to_js(
        [
            {
                "kernel": dispatch.pipeline,
                "bindings": [_place(part) for part in dispatch.bindings],
                "workgroups": dispatch.workgroups,
                "label": dispatch.label,
            }
            for dispatch in dispatches
        ]
    )


def _place(part: Slice) -> tuple[Any, int, int]:
    return _handle(part), part.offset, part.size


def _handle(part: Slice) -> Any:
    assert isinstance(part.buffer, BrowserBuffer)
    return part.buffer.handle
