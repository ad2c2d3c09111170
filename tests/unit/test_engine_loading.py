"""Loading a model: the device is opened while the model comes, and closed if it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableSequence
from typing import Any

import pytest
from fake_backend import FakeBackend, FakeExecutable
from fake_model import settle

from webllm.config import ChatOptions, MLCEngineConfig, ModelRecord
from webllm.engine import loading
from webllm.engine.processing import HostSampler
from webllm.errors import DeviceMemoryError, DeviceNotFoundError, ModelNotFoundError
from webllm.ops.program import BatchShape, KVCacheShape, Program

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
        await loading.load_model(record, ChatOptions(), MLCEngineConfig())


@pytest.mark.parametrize("opens_first", [True, False])
async def test_a_model_that_does_not_come(
    monkeypatch: pytest.MonkeyPatch, opens_first: bool
) -> None:
    device, may_open, is_open = Device(), asyncio.Event(), asyncio.Event()

    async def open_backend(*_: object) -> Device:
        await may_open.wait()
        is_open.set()
        return device

    async def open_model(*_: object) -> None:
        if opens_first:
            may_open.set()
            await is_open.wait()
        raise ModelNotFoundError("no such file")

    await fail_to_load(monkeypatch, open_backend, open_model)
    may_open.set()
    await is_open.wait()
    for _ in range(3):  # turns of the loop, until the task has ended and says so
        await asyncio.sleep(0)
    assert device.is_closed


async def test_no_device_and_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    async def open_backend(*_: object) -> None:
        raise DeviceNotFoundError("no device")

    async def open_model(*_: object) -> None:
        await asyncio.sleep(0)
        raise ModelNotFoundError("no such file")

    await fail_to_load(monkeypatch, open_backend, open_model)


class SlowBackend(FakeBackend):
    """Its kernels are compiled once they `may_compile`."""

    def __init__(self) -> None:
        super().__init__()
        self.may_compile = asyncio.Event()
        self.num_compiling = 0
        self.ready: set[tuple[int, bool]] = set()  # tokens of the shape, plain

    def check_fits(self, *_: object) -> None: ...

    async def load(self, *_: object) -> None: ...

    def compile(self, program: Program, shape: BatchShape) -> FakeExecutable:
        return SlowExecutable(self, shape, program.kv_cache.block_size)

    def close(self) -> None:
        assert not self.num_compiling, "kernels are being compiled on a closed device"


class SlowExecutable(FakeExecutable):
    backend: SlowBackend

    async def ready(self, is_plain: bool = True) -> None:
        self.backend.num_compiling += 1
        await self.backend.may_compile.wait()
        self.backend.num_compiling -= 1
        self.backend.ready.add((self.shape.max_tokens, is_plain))


class Unchanged:
    """A logit processor."""

    def process_logits(self, logits: MutableSequence[float]) -> MutableSequence[float]:
        return logits

    def process_sampled_token(self, token: int) -> None: ...

    def reset_state(self) -> None: ...


def start(backend: SlowBackend, sampler: HostSampler | None = None) -> asyncio.Task[object]:
    checkpoint: Any = None
    config = MLCEngineConfig()
    return asyncio.create_task(loading._start(backend, PROGRAM, checkpoint, 256, config, sampler))


def test_a_kv_cache_that_does_not_fit_is_refused_before_its_blocks_are_listed() -> None:
    class Small(SlowBackend):
        def check_fits(self, program: object, checkpoint: object, num_blocks: int) -> None:
            raise DeviceMemoryError(f"{num_blocks} blocks do not fit")

    checkpoint: Any = None
    config = MLCEngineConfig(kv_cache_tokens=1 << 44)  # a list of the blocks would take 8 TiB
    with pytest.raises(DeviceMemoryError, match="1099511627776 blocks"):
        loading._scheduler(Small(), PROGRAM, checkpoint, 256, config)


async def test_a_load_that_is_cancelled_waits_for_what_is_being_compiled() -> None:
    """Whoever began it closes the device next."""
    backend = SlowBackend()
    loading_model = start(backend)
    await settle()
    assert backend.num_compiling == 2
    loading_model.cancel()
    await settle()
    assert not loading_model.done()
    backend.may_compile.set()
    with pytest.raises(asyncio.CancelledError):
        await loading_model
    backend.close()


async def test_what_a_logit_processor_needs_is_compiled_with_the_model() -> None:
    backend = SlowBackend()
    backend.may_compile.set()
    await start(backend, HostSampler(Unchanged(), PROGRAM.vocab_size))
    assert backend.ready == {(1, True), (1, False), (32, True), (32, False)}
