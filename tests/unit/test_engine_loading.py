"""Loading a model: the device is opened while the model comes, and closed if it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from webllm.config import ChatOptions, MLCEngineConfig, ModelRecord
from webllm.engine import loading
from webllm.errors import DeviceNotFoundError, ModelNotFoundError


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
