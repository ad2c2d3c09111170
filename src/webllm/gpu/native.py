"""The GPU through `wgpu` (wgpu-native): adapters, and `Device` on one of them.

Only this module and `native_submit.py` touch wgpu, and only when a device is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from sys import is_finalizing
from typing import Any
from weakref import WeakSet

from webllm.errors import DeviceError, DeviceMemoryError, DeviceNotFoundError
from webllm.gpu.device import (
    AdapterInfo,
    AdapterKind,
    Data,
    Dispatch,
    Features,
    Limits,
    Recording,
    Slice,
)
from webllm.gpu.native_memory import memory_bytes
from webllm.gpu.native_submit import (
    Command,
    Encoded,
    Readback,
    Source,
    Submitter,
    open_submitter,
)

_ALIGNMENT = 256
_KINDS = {
    "DiscreteGPU": AdapterKind.DISCRETE,
    "IntegratedGPU": AdapterKind.INTEGRATED,
    "VirtualGPU": AdapterKind.VIRTUAL,
    "CPU": AdapterKind.SOFTWARE,
}
_SUBGROUPS = {0x10DE: 32, 0x106B: 32}  # vendors that make one size only: NVIDIA, Apple
_KIND_ORDER = list(AdapterKind)
_APIS = ("Metal", "Vulkan", "D3D12")  # best first
_FEATURES = ("shader-f16", "subgroup", "timestamp-query")
_LIMITS = {
    "max_buffer_bytes": "max-buffer-size",
    "max_binding_bytes": "max-storage-buffer-binding-size",
    "max_storage_buffers": "max-storage-buffers-per-shader-stage",
    "max_workgroup_bytes": "max-compute-workgroup-storage-size",
    "max_workgroup_threads": "max-compute-invocations-per-workgroup",
    "max_workgroups": "max-compute-workgroups-per-dimension",
}


@dataclass(frozen=True, slots=True)
class Adapter:
    """A GPU as a driver offers it. `reason` says why it is not chosen by itself, if it is not."""

    info: AdapterInfo
    limits: Limits
    features: Features
    reason: str | None
    handle: Any  # wgpu.GPUAdapter


def adapters() -> list[Adapter]:
    """Every adapter, the one `open_device` prefers first; DeviceNotFoundError without wgpu."""
    found = [_adapter(handle) for handle in _wgpu().gpu.enumerate_adapters_sync()]
    return sorted(found, key=_preference)


def open_device(device: str = "webgpu", limits: Limits | None = None) -> NativeDevice:
    """The device of `find_adapter`.

    limits: ask for no more than these, though the adapter may have more (for tests).
    """
    return NativeDevice(find_adapter(device), limits)


def find_adapter(device: str = "webgpu") -> Adapter:
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


def _wgpu() -> Any:
    try:
        import wgpu  # type: ignore[import-untyped]
    except ImportError as error:
        raise DeviceNotFoundError(
            f"wgpu is not installed ({error}): pip install 'webllm[gpu]'"
        ) from error
    # Mesa's device-select layer only reorders adapters, and writes to stderr without a desktop.
    os.environ.setdefault("NODEVICE_SELECT", "1")
    return wgpu


def _adapter(handle: Any) -> Adapter:
    raw = handle.info
    kind = _KINDS.get(raw["adapter_type"], AdapterKind.UNKNOWN)
    api = raw["backend_type"]
    info = AdapterInfo(raw["device"], raw["vendor"], raw["description"], api, kind)
    limits = Limits(**{name: handle.limits[key] for name, key in _LIMITS.items()})
    return Adapter(info, limits, _features(handle), _reason(kind, api), handle)


def _reason(kind: AdapterKind, api: str) -> str | None:
    if api not in _APIS:
        return f"{api} lacks what the kernels need"
    if kind is AdapterKind.SOFTWARE:
        return "a software adapter, used only when asked for"
    return None


def _preference(adapter: Adapter) -> tuple[int, int]:
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


class NativeBuffer:
    """Device memory; `handle` is the wgpu.GPUBuffer."""

    def __init__(self, handle: Any, size: int) -> None:
        self.handle = handle
        self.size = size

    def destroy(self) -> None:
        self.handle.destroy()


class NativePipeline:
    """A kernel being compiled on another thread; `handle` waits for it."""

    def __init__(self, label: str, building: Future[Any]) -> None:
        self.label = label
        self._building = building

    @property
    def handle(self) -> Any:
        return self._building.result()


class NativeRecording:
    """`commands` are the submitter's handles; the other fields keep alive what they point to.

    A command buffer serves once. From the second replay with a readback on (steps have one, weights
    being repacked do not), the next one is encoded on another thread while the GPU works. What
    wgpu-native 29 encodes it frees only after submitting it, and with it every buffer it uses: one
    left over at the end is submitted for that, and does the last step once more.
    """

    def __init__(
        self, commands: list[Command], dispatches: tuple[Dispatch, ...], bind_groups: list[Any]
    ) -> None:
        self.commands = commands
        self.dispatches = dispatches
        self.bind_groups = bind_groups
        self.num_replays = 0
        self._next: Future[Encoded] | None = None
        self._submitter: Submitter | None = None

    def encoded(self, submitter: Submitter, source: Source | None) -> Encoded:
        if self._next is not None:
            ready = self._next.result()
            self._next = None
            if ready.source == source:
                return ready
        return self._encode(submitter, source)

    def _encode(self, submitter: Submitter, source: Source | None) -> Encoded:
        # A method, so that a call under way on the other thread keeps the bind groups alive.
        return submitter.encode(self.commands, source)

    def encode_next(
        self, encoder: ThreadPoolExecutor, submitter: Submitter, source: Source | None
    ) -> None:
        self.num_replays += 1
        if self.num_replays > 1:
            self._submitter = submitter
            self._next = encoder.submit(self._encode, submitter, source)

    def discard_next(self) -> None:
        left, self._next = self._next, None
        if left is not None and self._submitter is not None:
            self._submitter.discard(left.result())

    def __del__(self) -> None:
        if not is_finalizing():  # when Python ends, the device may be gone before
            self.discard_next()


class NativeDevice:
    """See `webllm.gpu.device.Device`. `handle` is the wgpu.GPUDevice."""

    def __init__(self, adapter: Adapter, limits: Limits | None = None) -> None:
        self._wgpu = _wgpu()
        self.info = adapter.info
        self.features = adapter.features
        self.limits = limits or adapter.limits
        names = [name for name in _FEATURES if name in adapter.handle.features]
        required = {key: getattr(self.limits, name) for name, key in _LIMITS.items()}
        try:
            self.handle: Any = adapter.handle.request_device_sync(
                required_features=names, required_limits=required
            )
        except RuntimeError as error:
            raise DeviceError(f"{self.info.name}: the driver gave no device: {error}") from error
        self._prelude = "enable f16;\n" if self.features.shader_f16 else ""
        self._compilers = ThreadPoolExecutor(min(16, os.cpu_count() or 1), "webllm-compile")
        self._encoder = ThreadPoolExecutor(1, "webllm-encode")
        self._pipelines: dict[tuple[str, tuple[tuple[str, float], ...]], NativePipeline] = {}
        self._buffers: WeakSet[NativeBuffer] = WeakSet()
        self._recordings: WeakSet[NativeRecording] = WeakSet()
        self._submitter: Submitter = open_submitter(self.handle)

    def buffer(self, num_bytes: int, label: str = "") -> NativeBuffer:
        size = -(-max(num_bytes, 1) // _ALIGNMENT) * _ALIGNMENT
        if size > self.limits.max_buffer_bytes:
            raise DeviceMemoryError(
                f"{label or 'a buffer'} takes {size} bytes; {self.info.name} allows "
                f"{self.limits.max_buffer_bytes} a buffer: use a smaller model or context"
            )
        usage = self._wgpu.BufferUsage
        try:
            handle = self.handle.create_buffer(
                label=label, size=size, usage=usage.STORAGE | usage.COPY_SRC | usage.COPY_DST
            )
        except self._wgpu.GPUOutOfMemoryError as error:
            raise DeviceMemoryError(
                f"{self.info.name} has no {size} bytes left for {label or 'a buffer'}: use a "
                f"smaller model or context"
            ) from error
        buffer = NativeBuffer(handle, size)
        self._buffers.add(buffer)
        return buffer

    def pipeline(
        self,
        source: str,
        constants: Mapping[str, float] | None = None,
        label: str = "",
        proven: bool = False,
    ) -> NativePipeline:
        key = (source, tuple(sorted((constants or {}).items())))
        if key not in self._pipelines:
            building = self._compilers.submit(self._compile, source, key[1], label, proven)
            self._pipelines[key] = NativePipeline(label, building)
        return self._pipelines[key]

    def _compile(
        self, source: str, constants: tuple[tuple[str, float], ...], label: str, proven: bool
    ) -> Any:
        code = self._prelude + source
        try:
            module = self._submitter.module(code, label, proven)
            stage = {"module": module, "entry_point": "main", "constants": dict(constants)}
            return self.handle.create_compute_pipeline(label=label, layout="auto", compute=stage)
        except self._wgpu.GPUError as error:
            raise DeviceError(
                f"the kernel {label or 'main'} does not compile on {self.info.name} "
                f"({self.info.api}) with {dict(constants)}: {error}"
            ) from error

    def write(self, target: Slice, data: Data) -> None:
        assert isinstance(data, bytes | bytearray | memoryview), type(data)
        view = memoryview(data).cast("B")
        assert len(view) <= target.size, (len(view), target)
        if len(view) % 4:
            view = memoryview(bytes(view) + bytes(-len(view) % 4))
        if len(view):
            self._submitter.write(_handle(target), target.offset, view)

    def record(self, dispatches: Sequence[Dispatch]) -> NativeRecording:
        bind_groups = []
        commands = []
        for dispatch in dispatches:
            assert isinstance(dispatch.pipeline, NativePipeline)
            pipeline = dispatch.pipeline.handle
            bind_group = self._bind(dispatch, pipeline)
            bind_groups.append(bind_group)
            commands.append((*self._submitter.handles(pipeline, bind_group), *dispatch.workgroups))
        self._check(dispatches, bind_groups)
        recording = NativeRecording(commands, tuple(dispatches), bind_groups)
        self._recordings.add(recording)
        return recording

    def _bind(self, dispatch: Dispatch, pipeline: Any) -> Any:
        entries = [
            {
                "binding": i,
                "resource": {"buffer": _handle(part), "offset": part.offset, "size": part.size},
            }
            for i, part in enumerate(dispatch.bindings)
        ]
        try:
            layout = pipeline.get_bind_group_layout(0)
            return self.handle.create_bind_group(layout=layout, entries=entries)
        except self._wgpu.GPUError as error:
            raise DeviceError(f"{dispatch.label or 'a kernel'}: wrong bindings: {error}") from error

    def _check(self, dispatches: Sequence[Dispatch], bind_groups: Sequence[Any]) -> None:
        """Has the driver validate all but the work: dispatches of no workgroups, submitted.

        Replay then need not validate. Not submitting would leak, see `NativeRecording`.
        """
        encoder = self.handle.create_command_encoder()
        compute = encoder.begin_compute_pass()
        for dispatch, bind_group in zip(dispatches, bind_groups, strict=True):
            assert isinstance(dispatch.pipeline, NativePipeline)
            if max(dispatch.workgroups) > self.limits.max_workgroups:
                raise DeviceError(
                    f"{dispatch.label or 'a kernel'}: {dispatch.workgroups} workgroups, "
                    f"{self.info.name} allows {self.limits.max_workgroups} a dimension"
                )
            compute.set_pipeline(dispatch.pipeline.handle)
            compute.set_bind_group(0, bind_group)
            compute.dispatch_workgroups(0)
        compute.end()
        try:
            self.handle.queue.submit([encoder.finish()])
        except self._wgpu.GPUError as error:
            if len(dispatches) > 1:  # find the one to name
                for dispatch, bind_group in zip(dispatches, bind_groups, strict=True):
                    self._check([dispatch], [bind_group])
            label = dispatches[0].label or "a kernel"
            raise DeviceError(f"{label}: the driver refuses the dispatch: {error}") from error

    async def ready(self, recording: Recording) -> None:
        """It is: `record` has waited."""

    def replay(self, recording: Recording, readback: Slice | None = None) -> Awaitable[bytes]:
        assert isinstance(recording, NativeRecording)
        source = None if readback is None else _source(readback)
        running = Readback(self._submitter, recording.encoded(self._submitter, source))
        if source is not None:
            recording.encode_next(self._encoder, self._submitter, source)
        return running

    async def read(self, source: Slice) -> bytes:
        return await Readback(self._submitter, self._submitter.encode([], _source(source)))

    def memory_bytes(self) -> int | None:
        return memory_bytes(self.info)

    def close(self) -> None:
        for recording in list(self._recordings):
            recording.discard_next()
        self._compilers.shutdown(cancel_futures=True)
        self._encoder.shutdown()
        for buffer in list(self._buffers):
            buffer.destroy()
        self._pipelines.clear()
        self._submitter.close()
        self.handle.destroy()


def _source(part: Slice) -> Source:
    return Source(_handle(part), part.offset, part.size)


def _handle(part: Slice) -> Any:
    assert isinstance(part.buffer, NativeBuffer)
    return part.buffer.handle
