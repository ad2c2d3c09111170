"""Recordings and their replay in wgpu: encoding, submitting and waiting, which every token takes.

There are two submitters. `RawSubmitter` calls wgpu-native's C functions with handles prepared
once. `WrappedSubmitter` uses wgpu-py's objects, at about twice the cost; it is for other versions
of wgpu, whose C interface may differ.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol

from webllm.backends.webgpu.device.protocol import Dispatch
from webllm.errors import DeviceError, DeviceLostError, DeviceMemoryError

_RAW_VERSION = "0.32."

Command = tuple[Any, Any, int, int, int]  # pipeline, bind group, workgroups x, y, z


class Staging:
    """Memory that the host can map, for one readback; it returns to `free` when collected."""

    def __init__(self, handle: Any, size: int, free: list[tuple[Any, int]]) -> None:
        self.handle = handle
        self.size = size
        self.mapped: bool | None = None  # None: wgpu has not answered yet
        self._free = free

    def __del__(self) -> None:
        self._free.append((self.handle, self.size))


@dataclass(frozen=True, slots=True)
class Source:
    """The memory that a submission reads back at its end."""

    buffer: Any
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class CommandBuffer:
    """A command buffer, good for one submission, and the staging memory of its readback."""

    handle: Any
    source: Source | None
    staging: Staging | None


class Submitter(Protocol):
    waiter: ThreadPoolExecutor  # one thread, which blocks where the event loop must not

    def module(self, code: str, label: str, proven: bool) -> Any: ...

    def handles(self, pipeline: Any, bind_group: Any) -> tuple[Any, Any]: ...

    def write(self, buffer: Any, offset: int, data: memoryview) -> None: ...

    def encode(self, commands: Sequence[Command], source: Source | None) -> CommandBuffer: ...

    def submit(self, commands: CommandBuffer) -> Any:
        """Returns the submission that `wait` and `fetch` take."""

    def discard(self, commands: CommandBuffer) -> None:
        """Frees a command buffer that is not needed; a closed or lost device has freed it."""

    def wait(self, submission: Any) -> None: ...

    def fetch(self, submission: Any, staging: Staging, size: int) -> bytes: ...

    def close(self) -> None: ...


def open_submitter(device: Any) -> Submitter:
    import wgpu  # type: ignore[import-untyped]

    is_known = wgpu.__version__.startswith(_RAW_VERSION)
    return RawSubmitter(device) if is_known else WrappedSubmitter(device)


class Readback:
    """A submission in flight; awaiting it returns the bytes of its source, or b"" at its end."""

    def __init__(self, submitter: Submitter, commands: CommandBuffer) -> None:
        self._submitter = submitter
        self._commands = commands
        self._submission = submitter.submit(commands)

    def __await__(self) -> Generator[Any, None, bytes]:
        return self._finish().__await__()

    async def _finish(self) -> bytes:
        waiter = self._submitter.waiter
        return await asyncio.get_running_loop().run_in_executor(waiter, self._wait)

    def _wait(self) -> bytes:
        source, staging = self._commands.source, self._commands.staging
        if source is None or staging is None:
            self._submitter.wait(self._submission)
            return b""
        return self._submitter.fetch(self._submission, staging, source.size)


class NativeRecording:
    """Dispatches for replay. `commands` hold the submitter's handles; the other fields keep the
    objects alive that those handles belong to.

    A command buffer can be submitted only once. So from the second replay with a readback on, the
    next one is encoded on another thread while the GPU works. (Steps have a readback; repacking of
    weights has none.)

    wgpu-native 29 frees a command buffer, and all buffers it uses, only once it is submitted. So
    the spare one at the end is submitted as well; it repeats the last step, whose result nobody
    reads. The garbage collector may run on any thread at any time: `__del__` therefore only puts
    the spare on `spares`, and the device submits it later.
    """

    def __init__(
        self,
        commands: list[Command],
        dispatches: tuple[Dispatch, ...],
        bind_groups: list[Any],
        spares: deque[Future[CommandBuffer]],
    ) -> None:
        self.commands = commands
        self.dispatches = dispatches
        self.bind_groups = bind_groups
        self.num_replays = 0
        self._spares = spares
        self._next: Future[CommandBuffer] | None = None

    def command_buffer(self, submitter: Submitter, source: Source | None) -> CommandBuffer:
        """Returns a command buffer to submit: the one encoded ahead, if it fits."""
        if self._next is not None:
            ready = self._next.result()
            self._next = None
            if ready.source == source:
                return ready
        return self._encode(submitter, source)

    def _encode(self, submitter: Submitter, source: Source | None) -> CommandBuffer:
        # A method, so that a call on the other thread keeps the bind groups alive.
        return submitter.encode(self.commands, source)

    def encode_next(
        self, encoder: ThreadPoolExecutor, submitter: Submitter, source: Source | None
    ) -> None:
        self.num_replays += 1
        if self.num_replays > 1:
            self._next = encoder.submit(self._encode, submitter, source)

    def drop_next(self) -> None:
        spare, self._next = self._next, None
        if spare is not None:
            self._spares.append(spare)

    def __del__(self) -> None:
        self.drop_next()


class WrappedSubmitter:
    """Submits through wgpu-py's public objects."""

    def __init__(self, device: Any) -> None:
        import wgpu

        self._wgpu: Any = wgpu
        self._device = device
        self._free: list[tuple[Any, int]] = []  # buffers to map, and their sizes
        self._free_lock = Lock()  # command buffers are encoded on two threads
        self.waiter = ThreadPoolExecutor(1, "webllm-wait")
        self._is_closed = False

    def module(self, code: str, label: str, proven: bool) -> Any:
        return self._device.create_shader_module(label=label, code=code)

    def handles(self, pipeline: Any, bind_group: Any) -> tuple[Any, Any]:
        return pipeline, bind_group

    def write(self, buffer: Any, offset: int, data: memoryview) -> None:
        self._device.queue.write_buffer(buffer, offset, data)

    def encode(self, commands: Sequence[Command], source: Source | None) -> CommandBuffer:
        encoder = self._device.create_command_encoder()
        if commands:
            compute = encoder.begin_compute_pass()
            for pipeline, bind_group, x, y, z in commands:
                compute.set_pipeline(pipeline)
                compute.set_bind_group(0, bind_group)
                compute.dispatch_workgroups(x, y, z)
            compute.end()
        staging = None
        if source is not None:
            staging = self._staging(source.size)
            encoder.copy_buffer_to_buffer(
                source.buffer, source.offset, staging.handle, 0, source.size
            )
        return CommandBuffer(encoder.finish(), source, staging)

    def submit(self, commands: CommandBuffer) -> Any:
        self._device.queue.submit([commands.handle])
        return None

    def discard(self, commands: CommandBuffer) -> None:
        if self._is_closed:
            return
        with suppress(DeviceLostError):  # encoding notices a lost device, submitting does not
            self.submit(self.encode((), None))
            self.submit(commands)

    def wait(self, submission: Any) -> None:
        self._device.queue.on_submitted_work_done_sync()

    def fetch(self, submission: Any, staging: Staging, size: int) -> bytes:
        try:
            staging.handle.map_sync(self._wgpu.MapMode.READ, 0, size)
        except RuntimeError as error:
            raise lost(error) from error
        data = bytes(staging.handle.read_mapped(0, size))
        staging.handle.unmap()
        return data

    def _staging(self, size: int) -> Staging:
        with self._free_lock:
            for i, (handle, free_size) in enumerate(self._free):
                if free_size >= size:
                    del self._free[i]
                    return Staging(handle, free_size, self._free)
        usage = self._wgpu.BufferUsage
        handle = create_buffer(self._device, "staging", size, usage.MAP_READ | usage.COPY_DST)
        return Staging(handle, size, self._free)

    def close(self) -> None:
        self._is_closed = True
        self.waiter.shutdown()
        for handle, _ in self._free:
            handle.destroy()


class RawSubmitter(WrappedSubmitter):
    """Submits without wgpu-py's objects and validation; `record` has validated the dispatches.

    Only `write` and the end of encoding check for errors. They must notice a lost device, because
    wgpu-native aborts the process if one submits to it.
    """

    def __init__(self, device: Any) -> None:
        super().__init__(device)
        from wgpu.backends.wgpu_native import _api  # type: ignore[import-untyped]
        from wgpu.backends.wgpu_native._ffi import ffi, lib  # type: ignore[import-untyped]

        self._api: Any = _api
        self._ffi: Any = ffi
        self._lib: Any = lib
        self._device_handle = device._internal
        self._queue_handle = device.queue._internal
        self._callback = ffi.callback(
            "void(WGPUMapAsyncStatus, WGPUStringView, void *, void *)", self._on_mapped
        )

    def module(self, code: str, label: str, proven: bool) -> Any:
        if not proven:
            return super().module(code, label, proven)
        ffi, lib, api = self._ffi, self._lib, self._api
        wgsl = api.new_struct_p("WGPUShaderSourceWGSL *", code=api.to_c_string_view(code))
        wgsl[0].chain.next = ffi.NULL
        wgsl[0].chain.sType = lib.WGPUSType_ShaderSourceWGSL
        descriptor = api.new_struct_p(
            "WGPUShaderModuleDescriptor *",
            nextInChain=ffi.cast("WGPUChainedStruct *", wgsl),
            label=api.to_c_string_view(label),
        )
        handle = api.libf.wgpuDeviceCreateShaderModuleTrusted(self._device_handle, descriptor, 0)
        return api.GPUShaderModule(label, handle, self._device)

    def handles(self, pipeline: Any, bind_group: Any) -> tuple[Any, Any]:
        return pipeline._internal, bind_group._internal

    def write(self, buffer: Any, offset: int, data: memoryview) -> None:
        write = self._api.libf.wgpuQueueWriteBuffer
        try:
            with self._ffi.from_buffer(data) as source:
                write(self._queue_handle, buffer._internal, offset, source, len(data))
        except self._wgpu.GPUError as error:
            raise lost(error) from error

    def encode(self, commands: Sequence[Command], source: Source | None) -> CommandBuffer:
        lib, null = self._lib, self._ffi.NULL
        staging = None if source is None else self._staging(source.size)
        encoder = lib.wgpuDeviceCreateCommandEncoder(self._device_handle, null)
        if commands:
            self._encode_pass(encoder, commands)
        if source is not None and staging is not None:
            target = staging.handle._internal
            lib.wgpuCommandEncoderCopyBufferToBuffer(
                encoder, source.buffer._internal, source.offset, target, 0, source.size
            )
        try:
            command_buffer = self._api.libf.wgpuCommandEncoderFinish(encoder, null)
        except self._wgpu.GPUError as error:
            raise lost(error) from error
        lib.wgpuCommandEncoderRelease(encoder)
        owned = self._ffi.gc(command_buffer, lib.wgpuCommandBufferRelease)
        return CommandBuffer(owned, source, staging)

    def _encode_pass(self, encoder: Any, commands: Sequence[Command]) -> None:
        lib, null = self._lib, self._ffi.NULL
        set_pipeline = lib.wgpuComputePassEncoderSetPipeline
        set_bind_group = lib.wgpuComputePassEncoderSetBindGroup
        dispatch = lib.wgpuComputePassEncoderDispatchWorkgroups
        compute = lib.wgpuCommandEncoderBeginComputePass(encoder, null)
        current = None
        for pipeline, bind_group, x, y, z in commands:
            if pipeline is not current:
                set_pipeline(compute, pipeline)
                current = pipeline
            set_bind_group(compute, 0, bind_group, 0, null)
            dispatch(compute, x, y, z)
        lib.wgpuComputePassEncoderEnd(compute)
        lib.wgpuComputePassEncoderRelease(compute)

    def submit(self, commands: CommandBuffer) -> Any:
        ffi, lib = self._ffi, self._lib
        handles = ffi.new("WGPUCommandBuffer[]", [commands.handle])
        index = lib.wgpuQueueSubmitForIndex(self._queue_handle, 1, handles)
        return ffi.new("WGPUSubmissionIndex *", index)

    def wait(self, submission: Any) -> None:
        self._lib.wgpuDevicePoll(self._device_handle, True, submission)

    def fetch(self, submission: Any, staging: Staging, size: int) -> bytes:
        ffi, lib = self._ffi, self._lib
        staging.mapped = None
        user = ffi.new_handle(staging)
        info = ffi.new(
            "WGPUBufferMapCallbackInfo *",
            {
                "mode": lib.WGPUCallbackMode_AllowProcessEvents,
                "callback": self._callback,
                "userdata1": user,
            },
        )
        buffer = staging.handle._internal
        lib.wgpuBufferMapAsync(buffer, lib.WGPUMapMode_Read, 0, size, info[0])
        lib.wgpuDevicePoll(self._device_handle, True, submission)
        while staging.mapped is None:
            lib.wgpuDevicePoll(self._device_handle, True, ffi.NULL)
        if not staging.mapped:
            raise lost("a buffer could not be mapped")
        data = bytes(ffi.buffer(lib.wgpuBufferGetConstMappedRange(buffer, 0, size), size))
        lib.wgpuBufferUnmap(buffer)
        return data

    def _on_mapped(self, status: int, message: Any, user: Any, _: Any) -> None:
        staging = self._ffi.from_handle(user)
        staging.mapped = status == self._lib.WGPUMapAsyncStatus_Success


def create_buffer(device: Any, label: str, size: int, usage: int) -> Any:
    """Returns a wgpu.GPUBuffer. Raises DeviceMemoryError and DeviceLostError."""
    import wgpu

    try:
        return device.create_buffer(label=label, size=size, usage=usage)
    except wgpu.GPUOutOfMemoryError as error:
        raise DeviceMemoryError(
            f"{device.adapter.info['device']} has no {size} bytes left for {label or 'a buffer'}: "
            f"use a smaller model or context"
        ) from error
    except wgpu.GPUError as error:
        raise lost(error) from error


def lost_or(cause: Exception, otherwise: DeviceError) -> DeviceError:
    """Any call can be the first to notice that the device is lost; `otherwise` if it is not."""
    return lost(cause) if "device is lost" in str(cause) else otherwise


def lost(cause: object) -> DeviceLostError:
    reason = " ".join(str(cause).split())
    return DeviceLostError(f"the GPU stopped answering ({reason}): reload the model")
