"""Buffers, pipelines, recordings, readback and errors of the native device."""

import asyncio
import gc
import os
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread, current_thread

import pytest

from webllm.backends.webgpu.device.native import NativeDevice
from webllm.backends.webgpu.device.native_adapters import adapters, find_adapter
from webllm.backends.webgpu.device.native_submit import (
    CommandBuffer,
    RawSubmitter,
    WrappedSubmitter,
)
from webllm.backends.webgpu.device.protocol import Buffer, Dispatch, Limits, Slice
from webllm.errors import DeviceError, DeviceLostError, DeviceMemoryError

ADD = """
override AMOUNT: u32 = 1u;
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  y[id.x] = x[id.x] + AMOUNT;
}
"""


def whole(buffer: Buffer) -> Slice:
    return Slice(buffer, 0, buffer.size)


def words(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"={len(data) // 4}I", data)


async def test_buffers_are_zeroed_and_rounded_up(device: NativeDevice) -> None:
    buffer = device.buffer(10)
    assert buffer.size == 256
    assert await device.read(whole(buffer)) == bytes(256)


async def test_write_then_read_part(device: NativeDevice) -> None:
    buffer = device.buffer(1024)
    device.write(Slice(buffer, 512, 8), b"abcdefgh")
    assert await device.read(Slice(buffer, 508, 12)) == b"\0\0\0\0abcdefgh"


async def test_dispatches_see_what_earlier_ones_wrote(device: NativeDevice) -> None:
    a, b = device.buffer(256), device.buffer(256)
    one, ten = device.pipeline(ADD), device.pipeline(ADD, {"AMOUNT": 10})
    recording = device.record(
        [
            Dispatch(one, (whole(a), whole(b)), (1, 1, 1)),
            Dispatch(ten, (whole(b), whole(a)), (1, 1, 1)),
            Dispatch(one, (whole(a), whole(b)), (1, 1, 1)),
        ]
    )
    first = device.replay(recording, whole(b))
    second = device.replay(recording, Slice(b, 0, 4))
    assert words(await second) == (12 + 11,)
    assert words(await first) == (12,) * 64


async def test_writes_and_replays_keep_their_order(device: NativeDevice) -> None:
    a, b = device.buffer(256), device.buffer(256)
    recording = device.record([Dispatch(device.pipeline(ADD), (whole(a), whole(b)), (1, 1, 1))])
    results = []
    for i in range(5):
        device.write(Slice(a, 0, 4), struct.pack("=I", 100 * i))
        results.append(device.replay(recording, Slice(b, 0, 4)))
    assert [words(await result)[0] for result in results] == [1, 101, 201, 301, 401]


async def test_a_dropped_readback_is_reused(device: NativeDevice) -> None:
    a = device.buffer(256)
    device.replay(device.record([]), whole(a))
    assert await device.replay(device.record([])) == b""
    assert await device.read(whole(a)) == bytes(256)


async def test_wrapped_submitter_gives_the_same(device: NativeDevice) -> None:
    assert isinstance(device._submitter, RawSubmitter)
    plain = NativeDevice(find_adapter())
    plain._submitter = WrappedSubmitter(plain.handle)
    await test_dispatches_see_what_earlier_ones_wrote(plain)
    await test_write_then_read_part(plain)
    plain.close()


async def test_a_lost_device_is_an_error(device: NativeDevice) -> None:
    lost = NativeDevice(find_adapter(device.info.name))
    a, b = lost.buffer(256), lost.buffer(256)
    kernel = lost.pipeline(ADD)
    recording = lost.record([Dispatch(kernel, (whole(a), whole(b)), (1, 1, 1))])
    for _ in range(3):
        await lost.replay(recording, whole(b))
    lost.handle.destroy()
    with pytest.raises(DeviceLostError, match="reload"):
        lost.write(whole(a), bytes(256))
    with pytest.raises(DeviceLostError, match="lost"):
        await lost.read(whole(a))  # into staging memory that it has
    with pytest.raises(DeviceLostError, match="lost"):
        await lost.read(Slice(a, 0, 8))
    with pytest.raises(DeviceLostError, match="lost"):
        lost.buffer(1024)
    with pytest.raises(DeviceLostError, match="lost"):
        lost.record([Dispatch(kernel, (whole(a), whole(b)), (1, 1, 1))])
    with pytest.raises(DeviceLostError, match="lost"):
        lost.record([Dispatch(lost.pipeline(ADD, {"AMOUNT": 3}), (whole(a), whole(b)), (1, 1, 1))])
    lost.close()


def test_pipelines_are_built_once(device: NativeDevice) -> None:
    assert device.pipeline(ADD) is device.pipeline(ADD)
    assert device.pipeline(ADD) is not device.pipeline(ADD, {"AMOUNT": 3})


def test_a_kernel_that_does_not_compile_names_itself(device: NativeDevice) -> None:
    a = device.buffer(256)
    broken = device.pipeline(ADD.replace("AMOUNT;", "NOTHING;"), label="broken")
    with pytest.raises(DeviceError, match="broken does not compile"):
        device.record([Dispatch(broken, (whole(a),), (1, 1, 1))])


def test_wrong_bindings_and_sizes_are_refused_when_recorded(device: NativeDevice) -> None:
    a = device.buffer(256)
    kernel = device.pipeline(ADD, label="add")
    with pytest.raises(DeviceError, match="add: wrong bindings"):
        device.record([Dispatch(kernel, (whole(a),), (1, 1, 1), "add")])
    with pytest.raises(DeviceError, match="add"):
        device.record([Dispatch(kernel, (whole(a), whole(a)), (1, 1, 1), "add")])
    b = device.buffer(256)
    with pytest.raises(DeviceError, match="add"):
        device.record([Dispatch(kernel, (whole(a), whole(b)), (1 << 20, 1, 1), "add")])


def test_too_large_a_buffer_is_a_memory_error(device: NativeDevice) -> None:
    with pytest.raises(DeviceMemoryError, match="weights"):
        device.buffer(1 << 50, "weights")


def test_adapters_say_why_they_are_not_chosen() -> None:
    listed = adapters()
    assert listed
    assert all(a.reason for a in listed if a.info.kind.name == "SOFTWARE")


def test_the_environment_of_the_program_is_left_alone() -> None:
    code = (
        "import os; before = dict(os.environ); "
        "from webllm.backends.webgpu.device.native_adapters import adapters; "
        "adapters(); assert dict(os.environ) == before"
    )
    environment = {k: v for k, v in os.environ.items() if k != "NODEVICE_SELECT"}
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")


async def test_a_recording_may_be_collected_on_any_thread(device: NativeDevice) -> None:
    """It waits for nothing and submits nothing there: what it leaves, the device discards."""
    gc.collect()
    device.record([])  # discards objects that other tests left
    a, b = device.buffer(256), device.buffer(256)
    recording = device.record([Dispatch(device.pipeline(ADD), (whole(a), whole(b)), (1, 1, 1))])
    for _ in range(3):
        await device.replay(recording, whole(b))
    submitted: list[str] = []
    discard = device._submitter.discard

    def noting(commands: CommandBuffer) -> None:
        submitted.append(current_thread().name)
        discard(commands)

    device._submitter.discard = noting  # type: ignore[method-assign]
    try:
        dropped = [recording]
        del recording
        thread = Thread(target=dropped.clear, name="another")
        thread.start()
        thread.join()
        assert submitted == []
        device.record([])
        assert submitted == [current_thread().name]
    finally:
        device._submitter.discard = discard  # type: ignore[method-assign]


def test_limits_can_be_lowered(device: NativeDevice) -> None:
    low = Limits(1 << 28, 1 << 27, 8, 16384, 256, 65535)
    small = NativeDevice(find_adapter(), low)
    assert small.handle.limits["max-compute-workgroup-storage-size"] == 16384
    small.close()


async def test_preparing_takes_none_of_the_event_loop_s_threads(device: NativeDevice) -> None:
    """Prompts are tokenized there, and kernels may take long."""
    loop, may_end = asyncio.get_running_loop(), Event()
    loop.set_default_executor(ThreadPoolExecutor(1))
    busy = loop.run_in_executor(None, may_end.wait, 60)
    try:
        await asyncio.wait_for(device.prepare(list), 30)
    finally:
        may_end.set()
    assert await busy


async def test_closing_waits_for_what_is_being_prepared() -> None:
    device, begun, may_end = NativeDevice(find_adapter()), Event(), Event()

    def lay_out() -> list[Dispatch]:
        begun.set()
        assert may_end.wait(60)
        device.buffer(256)  # a lost device does not make it
        return []

    preparing = asyncio.ensure_future(device.prepare(lay_out))
    assert await asyncio.to_thread(begun.wait, 60)
    closing = Thread(target=device.close)
    closing.start()
    await asyncio.sleep(0.1)
    assert closing.is_alive()
    may_end.set()
    with pytest.raises(DeviceError, match="was closed while kernels were compiled"):
        await preparing
    await asyncio.to_thread(closing.join)
    with pytest.raises(DeviceError, match="is closed"):
        await device.prepare(list)
