"""Loading: the device opens during the download, and is closed if that fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any

import pytest
from cpu_cases import FakeCheckpoint
from fake_model import settle
from test_engine_logit_processors import Processor
from test_engine_runner import SlowBackend

from webllm.backends.webgpu.device import auto, native
from webllm.config import ChatOptions, MLCEngineConfig, ModelRecord
from webllm.engine import loading
from webllm.engine.runner import Runner
from webllm.errors import DeviceError, DeviceMemoryError, DeviceNotFoundError, ModelNotFoundError
from webllm.host import BROWSER, NATIVE, Host
from webllm.models import registry
from webllm.ops.program import KVCacheShape, Program

PROGRAM = Program((), KVCacheShape(1, 1, 32), 1000)


class Device:
    is_closed = False

    def close(self) -> None:
        self.is_closed = True


async def fail_to_load(
    monkeypatch: pytest.MonkeyPatch,
    open_backend: Callable[..., Awaitable[object]],
    open_model: Callable[..., Awaitable[object]],
) -> None:
    monkeypatch.setattr(loading, "open_backend", open_backend)
    monkeypatch.setattr(loading, "open_model", open_model)
    record = ModelRecord(model_id="m", model="m.gguf")
    with pytest.raises(ModelNotFoundError):
        await loading.load_model(record, ChatOptions(), MLCEngineConfig(), NATIVE)


async def test_a_model_that_does_not_come_closes_the_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device, is_open = Device(), asyncio.Event()

    async def open_backend(*_: object) -> Device:
        is_open.set()
        return device

    async def open_model(*_: object) -> None:
        await is_open.wait()
        raise ModelNotFoundError("no such file")

    await fail_to_load(monkeypatch, open_backend, open_model)
    assert device.is_closed


@pytest.mark.parametrize("opens_nevertheless", [True, False])
async def test_a_model_that_does_not_come_stops_the_opening_of_the_device(
    monkeypatch: pytest.MonkeyPatch, opens_nevertheless: bool
) -> None:
    device, is_opening = Device(), asyncio.Event()

    async def open_backend(*_: object) -> Device:
        is_opening.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not opens_nevertheless:
                raise
        return device

    async def open_model(*_: object) -> None:
        await is_opening.wait()
        raise ModelNotFoundError("no such file")

    await fail_to_load(monkeypatch, open_backend, open_model)
    assert device.is_closed == opens_nevertheless


async def test_no_device_and_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    async def open_backend(*_: object) -> None:
        raise DeviceNotFoundError("no device")

    async def open_model(*_: object) -> None:
        await asyncio.sleep(0)
        raise ModelNotFoundError("no such file")

    await fail_to_load(monkeypatch, open_backend, open_model)


async def test_a_cancelled_load_ignores_a_device_that_does_not_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From Python 3.14 on, `asyncio.shield` would report the error to the event loop."""
    fails, unheard = asyncio.Event(), list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))

    async def open_backend(*_: object) -> None:
        await fails.wait()
        raise DeviceNotFoundError("no device")

    async def open_model(*_: object) -> nullcontext[FakeCheckpoint]:
        return nullcontext(FakeCheckpoint())

    monkeypatch.setattr(loading, "open_backend", open_backend)
    monkeypatch.setattr(loading, "open_model", open_model)
    monkeypatch.setattr(loading, "make_tokenizer", lambda *_: None)
    monkeypatch.setattr(loading, "context_window", lambda *_: 256)
    monkeypatch.setattr(registry, "record", lambda *_: PROGRAM)
    record = ModelRecord(model_id="m", model="m.gguf")
    load = asyncio.create_task(loading.load_model(record, ChatOptions(), MLCEngineConfig(), NATIVE))
    await settle()
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    fails.set()
    await settle()
    assert unheard == []


class LoadingBackend(SlowBackend):
    def check_fits(self, program: object, checkpoint: object, num_blocks: int) -> int:
        return 0

    async def load(self, *_: object) -> None: ...

    def finish_all(self) -> None:
        self.finish(*(kind for kind, future in self.compiling.items() if not future.done()))

    def close(self) -> None:
        assert all(future.done() for future in self.compiling.values()), "on a closed device"


def warming_up(backend: LoadingBackend, config: MLCEngineConfig) -> asyncio.Task[Runner]:
    checkpoint: Any = None
    plan = loading.plan_memory(backend, PROGRAM, checkpoint, 256, config, NATIVE)
    return asyncio.create_task(loading.warm_up(plan, "m", config))


def test_a_kv_cache_that_does_not_fit_is_refused_before_its_blocks_are_listed() -> None:
    class Small(LoadingBackend):
        def check_fits(self, program: object, checkpoint: object, num_blocks: int) -> int:
            raise DeviceMemoryError(f"{num_blocks} blocks do not fit")

    checkpoint: Any = None
    config = MLCEngineConfig(kv_cache_tokens=1 << 44)  # a list of the blocks would take 8 TiB
    with pytest.raises(DeviceMemoryError, match="1099511627776 blocks"):
        loading.plan_memory(Small(), PROGRAM, checkpoint, 256, config, NATIVE)


@pytest.mark.parametrize(("host", "num_windows"), [(NATIVE, 4), (BROWSER, 1)])
def test_the_kv_cache_of_a_tab_stays_small(host: Host, num_windows: int) -> None:
    checkpoint: Any = None
    config = MLCEngineConfig()
    plan = loading.plan_memory(LoadingBackend(), PROGRAM, checkpoint, 256, config, host)
    assert plan.num_blocks * PROGRAM.kv_cache.block_size == num_windows * 256


async def test_a_load_that_is_cancelled_waits_for_what_is_being_compiled() -> None:
    """Its caller closes the device next."""
    backend = LoadingBackend()
    loading_model = warming_up(backend, MLCEngineConfig())
    await settle()
    loading_model.cancel()
    await settle()
    assert not loading_model.done()
    backend.finish_all()
    with pytest.raises(asyncio.CancelledError):
        await loading_model
    backend.close()


async def test_what_a_logit_processor_needs_is_compiled_with_the_model() -> None:
    backend = LoadingBackend()
    config = MLCEngineConfig(logit_processor_registry={"m": Processor()})
    loading_model = warming_up(backend, config)
    while not loading_model.done():
        backend.finish_all()
        await settle()
    await loading_model
    assert set(backend.compiling) == {(n, 1, plain) for n in (1, 32) for plain in (True, False)}


@pytest.mark.parametrize("fails", [False, True])
async def test_a_device_that_opens_after_its_caller_was_cancelled_is_closed(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """The driver opens it in a thread, which cannot be interrupted."""
    loop = asyncio.get_running_loop()
    is_opening, may_open, devices = asyncio.Event(), threading.Event(), list[Device]()

    def open_device(_: object) -> Device:
        loop.call_soon_threadsafe(is_opening.set)
        may_open.wait()
        if fails:
            raise DeviceError("no device")
        devices.append(Device())
        return devices[0]

    monkeypatch.setattr(native, "NativeDevice", open_device)
    adapter: Any = None
    opening = asyncio.create_task(auto.open_device(adapter))
    await is_opening.wait()
    opening.cancel()
    await settle()
    assert not opening.done()
    may_open.set()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert all(device.is_closed for device in devices)
    assert fails or devices
