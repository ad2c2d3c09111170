"""The device on `wgpu` (wgpu-native): buffers, compiled kernels, recordings.

Only the modules `native*.py` import wgpu, and only when a device is opened.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from threading import Lock
from typing import Any
from weakref import WeakSet

from webllm.backends.webgpu.device.native_adapters import (
    FEATURES,
    LIMITS,
    load_wgpu,
    memory_bytes,
)
from webllm.backends.webgpu.device.native_submit import (
    CommandBuffer,
    NativeRecording,
    Readback,
    Source,
    Submitter,
    create_buffer,
    lost_or,
    open_submitter,
)
from webllm.backends.webgpu.device.protocol import (
    Adapter,
    Data,
    Dispatch,
    Limits,
    Recording,
    Slice,
)
from webllm.errors import DeviceError


class NativeBuffer:
    """Device memory; `handle` is the wgpu.GPUBuffer."""

    def __init__(self, handle: Any, size: int) -> None:
        self.handle = handle
        self.size = size

    def destroy(self) -> None:
        self.handle.destroy()


class NativePipeline:
    """A kernel that another thread compiles; `handle` waits for it."""

    def __init__(self, label: str, building: Future[Any]) -> None:
        self.label = label
        self._building = building

    @property
    def handle(self) -> Any:
        try:
            return self._building.result()
        except CancelledError as error:
            raise DeviceError(f"the device was closed before {self.label} was compiled") from error


class NativeDevice:
    """A `Device` of wgpu; `handle` is the wgpu.GPUDevice.

    limits: the limits to ask for, if lower than the adapter's (for tests).
    more_features: WebGPU features besides those that kernels use (for benchmarks).
    Raises DeviceError.
    """

    def __init__(
        self,
        adapter: Adapter,
        limits: Limits | None = None,
        more_features: Sequence[str] = (),
    ) -> None:
        self._wgpu = load_wgpu()
        self.info = adapter.info
        self.features = adapter.features
        self.limits = limits or adapter.limits
        names = [name for name in (*FEATURES, *more_features) if name in adapter.handle.features]
        required = {key: getattr(self.limits, name) for name, key in LIMITS.items()}
        try:
            self.handle: Any = adapter.handle.request_device_sync(
                required_features=names, required_limits=required
            )
        except RuntimeError as error:
            raise DeviceError(f"{self.info.name}: the driver gave no device: {error}") from error
        self._memory_bytes = memory_bytes(self.info)
        self._compilers = ThreadPoolExecutor(min(16, os.cpu_count() or 1), "webllm-compile")
        self._preparers = ThreadPoolExecutor(4, "webllm-prepare")
        self._encoder = ThreadPoolExecutor(1, "webllm-encode")
        self._pipelines: dict[tuple[str, tuple[tuple[str, float], ...]], NativePipeline] = {}
        self._buffers: WeakSet[NativeBuffer] = WeakSet()
        self._recordings: WeakSet[NativeRecording] = WeakSet()
        self._spares: deque[Future[CommandBuffer]] = deque()  # of recordings that are gone
        self._recording = Lock()  # held by the thread that makes a recording
        self._is_closed = False
        self._submitter: Submitter = open_submitter(self.handle)

    def buffer(self, num_bytes: int, label: str = "") -> NativeBuffer:
        size = self.limits.buffer_bytes(num_bytes, label, self.info.name)
        usage = self._wgpu.BufferUsage
        usages = usage.STORAGE | usage.COPY_SRC | usage.COPY_DST
        buffer = NativeBuffer(create_buffer(self.handle, label, size, usages), size)
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
            try:
                building = self._compilers.submit(self._compile, source, key[1], label, proven)
            except RuntimeError as error:
                raise DeviceError(f"{self.info.name} is closed: {error}") from error
            self._pipelines[key] = NativePipeline(label, building)
        return self._pipelines[key]

    def _compile(
        self, source: str, constants: tuple[tuple[str, float], ...], label: str, proven: bool
    ) -> Any:
        try:
            module = self._submitter.module(source, label, proven)
            stage = {"module": module, "entry_point": "main", "constants": dict(constants)}
            return self.handle.create_compute_pipeline(label=label, layout="auto", compute=stage)
        except self._wgpu.GPUError as error:
            otherwise = DeviceError(
                f"the kernel {label or 'main'} does not compile on {self.info.name} "
                f"({self.info.api}) with {dict(constants)}: {error}"
            )
            raise lost_or(error, otherwise) from error

    def write(self, target: Slice, data: Data) -> None:
        assert isinstance(data, bytes | bytearray | memoryview), type(data)
        view = memoryview(data).cast("B")
        assert len(view) <= target.size, (len(view), target)
        if len(view) % 4:
            view = memoryview(bytes(view) + bytes(-len(view) % 4))
        if len(view):
            self._submitter.write(_handle(target), target.offset, view)

    def record(self, dispatches: Sequence[Dispatch]) -> NativeRecording:
        """Waits for its kernels if they are still being compiled; `prepare` does not block."""
        pipelines = []
        for dispatch in dispatches:
            assert isinstance(dispatch.pipeline, NativePipeline)
            pipelines.append(dispatch.pipeline.handle)
        with self._recording:
            if self._is_closed:
                raise DeviceError(f"{self.info.name} was closed while kernels were compiled")
            return self._record(dispatches, pipelines)

    def _record(self, dispatches: Sequence[Dispatch], pipelines: Sequence[Any]) -> NativeRecording:
        self._discard_spares()
        bind_groups = []
        commands = []
        for dispatch, pipeline in zip(dispatches, pipelines, strict=True):
            bind_group = self._bind(dispatch, pipeline)
            bind_groups.append(bind_group)
            commands.append((*self._submitter.handles(pipeline, bind_group), *dispatch.workgroups))
        self._check(dispatches, bind_groups)
        recording = NativeRecording(commands, tuple(dispatches), bind_groups, self._spares)
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
            otherwise = DeviceError(f"{dispatch.label or 'a kernel'}: wrong bindings: {error}")
            raise lost_or(error, otherwise) from error

    def _check(self, dispatches: Sequence[Dispatch], bind_groups: Sequence[Any]) -> None:
        """Has the driver validate the dispatches, so that replays need not.

        It submits them with no workgroups: a command buffer that is never submitted would leak,
        see `NativeRecording`.
        """
        encoder = self.handle.create_command_encoder()
        compute = encoder.begin_compute_pass()
        for dispatch, bind_group in zip(dispatches, bind_groups, strict=True):
            assert isinstance(dispatch.pipeline, NativePipeline)
            self.limits.check_workgroups(dispatch, self.info.name)
            compute.set_pipeline(dispatch.pipeline.handle)
            compute.set_bind_group(0, bind_group)
            compute.dispatch_workgroups(0)
        compute.end()
        try:
            self.handle.queue.submit([encoder.finish()])
        except self._wgpu.GPUError as error:
            if len(dispatches) > 1:  # finds the one to name
                for dispatch, bind_group in zip(dispatches, bind_groups, strict=True):
                    self._check([dispatch], [bind_group])
            label = dispatches[0].label or "a kernel"
            otherwise = DeviceError(f"{label}: the driver refuses the dispatch: {error}")
            raise lost_or(error, otherwise) from error

    async def prepare(self, lay_out: Callable[[], Sequence[Dispatch]]) -> NativeRecording:
        # The event loop's own threads tokenize prompts; compiling would hold them for too long.
        try:
            recording = self._preparers.submit(lambda: self.record(lay_out()))
        except RuntimeError as error:
            raise DeviceError(f"{self.info.name} is closed: {error}") from error
        return await asyncio.wrap_future(recording)

    def replay(self, recording: Recording, readback: Slice | None = None) -> Awaitable[bytes]:
        assert isinstance(recording, NativeRecording)
        source = None if readback is None else _source(readback)
        commands = recording.command_buffer(self._submitter, source)
        running = Readback(self._submitter, commands)
        if source is not None:
            recording.encode_next(self._encoder, self._submitter, source)
        return running

    async def read(self, source: Slice) -> bytes:
        return await Readback(self._submitter, self._submitter.encode([], _source(source)))

    def memory_bytes(self) -> int | None:
        return self._memory_bytes

    def close(self) -> None:
        self._compilers.shutdown(cancel_futures=True)
        with self._recording:
            self._is_closed = True
        self._preparers.shutdown()
        for recording in list(self._recordings):
            recording.drop_next()
        self._discard_spares()
        self._encoder.shutdown()
        for buffer in list(self._buffers):
            buffer.destroy()
        self._pipelines.clear()
        self._submitter.close()
        self.handle.destroy()

    def _discard_spares(self) -> None:
        while self._spares:
            self._submitter.discard(self._spares.popleft().result())


def _source(part: Slice) -> Source:
    return Source(_handle(part), part.offset, part.size)


def _handle(part: Slice) -> Any:
    assert isinstance(part.buffer, NativeBuffer)
    return part.buffer.handle
