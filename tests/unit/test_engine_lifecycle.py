"""Engines before, between and after loaded models, and the side effects of making one."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest
from fake_model import (
    NumberModels,
    asked,
    is_closed,
    make_engine,
    model_of,
    num_used,
    number_models,
    settle,
)
from fake_worker import Worker

from webllm import MLCEngine, MLCEngineConfig
from webllm.errors import ConfigError, DeviceError, ModelNotLoadedError
from webllm.workers.proxy import WorkerMLCEngine

__all__ = ["number_models"]  # a fixture

CALLS: dict[str, Callable[[Any], Awaitable[object]]] = {
    "chat": lambda engine: engine.chat.completions.create(**asked("1")),
    "chat stream": lambda engine: engine.chat.completions.create(**asked("1"), stream=True),
    "chat, named": lambda engine: engine.chat.completions.create(**asked("1"), model="m"),
    "chat, empty name": lambda engine: engine.chat.completions.create(**asked("1"), model=""),
    "completion": lambda engine: engine.completions.create(prompt="1"),
    "completion stream": lambda engine: engine.completions.create(prompt="1", stream=True),
    "embedding": lambda engine: engine.embeddings.create(input="1"),
    "forward": lambda engine: engine.forward_tokens_and_sample([1], True),
    "reset": lambda engine: engine.reset_chat(),
    "message": lambda engine: engine.get_message(),
    "stats": lambda engine: engine.runtime_stats_text(""),
    "device": lambda engine: engine.device_name(),
}


@pytest.fixture(params=["here", "worker"])
async def engine(request: pytest.FixtureRequest, number_models: NumberModels) -> Any:
    if request.param == "here":
        return number_models.engine()
    proxy = WorkerMLCEngine(Worker().port)
    await settle()  # the proxy then knows the worker's version
    return proxy


@pytest.mark.parametrize("call", CALLS)
class TestNothingLoaded:
    async def test_before_the_first_reload(self, engine: Any, call: str) -> None:
        with pytest.raises(ModelNotLoadedError):
            await CALLS[call](engine)

    async def test_after_unload(self, engine: Any, call: str) -> None:
        await engine.reload("m.gguf")
        await engine.unload()
        with pytest.raises(ModelNotLoadedError):
            await CALLS[call](engine)

    async def test_after_a_failed_reload(self, engine: Any, call: str) -> None:
        await engine.reload("m.gguf")
        with pytest.raises(Exception, match="no such file"):
            await engine.reload("broken.gguf")
        with pytest.raises(ModelNotLoadedError):
            await CALLS[call](engine)


@pytest.mark.parametrize("model_id", [[], None])
async def test_a_client_that_expects_nothing(model_id: object) -> None:
    """TypeScript's client sends this after `unload`."""
    port, answers = Worker().port, asyncio.Queue[Any]()
    port.listen(answers.put_nowait, lambda reason: None)
    content = {"request": asked("1"), "modelId": model_id, "chatOpts": None}
    port.post({"kind": "chatCompletionNonStreaming", "uuid": "1", "content": content})
    answer = await answers.get()
    assert answer["kind"] == "throw"
    assert answer["content"].startswith("WorkerEngineModelNotLoadedError: no model is")


async def test_while_a_reload_is_under_way(number_models: NumberModels) -> None:
    engine = await number_models.engine_with("a.gguf")
    loading = asyncio.create_task(engine.reload(["b.gguf", "c.gguf"]))
    while not loading.done():
        await asyncio.sleep(0)
        if not is_closed(number_models.loaded[0]) or loading.done():
            continue
        with pytest.raises(ModelNotLoadedError) as caught:
            await engine.chat.completions.create(**asked("1"), model="b")
        assert "b.gguf, c.gguf is still being loaded" in str(caught.value)
    await loading
    await engine.chat.completions.create(**asked("1", max_tokens=1), model="b")


@pytest.mark.parametrize("model_id", ["", []])
async def test_nothing_to_load(model_id: Any) -> None:
    with pytest.raises(ConfigError, match="model_id is empty"):
        await MLCEngine().reload(model_id)


class TestUnload:
    """A model that cannot be closed does not keep others from being closed."""

    @pytest.fixture
    async def engine(
        self, number_models: NumberModels, monkeypatch: pytest.MonkeyPatch
    ) -> MLCEngine:
        """Makes an engine with three models, of which the first two cannot be closed."""
        engine = await number_models.engine_with("a.gguf", "b.gguf", "c.gguf")
        self.closed: list[str] = []
        for loaded in number_models.loaded:

            def close(name: str = loaded.model_id) -> None:
                self.closed.append(name)
                if name in "ab":
                    raise DeviceError(f"{name} does not close")

            monkeypatch.setattr(loaded.loop.runner.backend, "close", close)
        return engine

    async def test_closes_all_and_raises_the_first_error(self, engine: MLCEngine) -> None:
        with pytest.raises(DeviceError, match="a does not close") as caught:
            await engine.unload()
        assert "b does not close" in str(caught.value.__context__)
        assert sorted(self.closed) == ["a", "b", "c"]
        assert engine.loaded_model_ids() == []
        await engine.unload()

    async def test_ends_every_answer(self, engine: MLCEngine) -> None:
        asks = [
            asyncio.create_task(
                engine.completions.create(prompt="1", model=model, max_tokens=200, ignore_eos=True)
            )
            for model in "abc"
        ]
        await settle()
        with pytest.raises(DeviceError):
            await engine.unload()
        replies = await asyncio.gather(*asks)
        assert [reply.choices[0].finish_reason for reply in replies] == ["abort"] * 3

    async def test_a_reload_comes_through_at_the_second_try(self, engine: MLCEngine) -> None:
        with pytest.raises(DeviceError):
            await engine.reload("d.gguf")
        await engine.reload("d.gguf")
        assert engine.loaded_model_ids() == ["d"]


async def test_a_failed_reload_closes_what_it_had_loaded(
    number_models: NumberModels,
) -> None:
    engine = number_models.engine()
    with pytest.raises(OSError, match="no such file"):
        await engine.reload(["a.gguf", "broken.gguf"])
    assert is_closed(number_models.loaded[0])


class TestLogLevel:
    @pytest.fixture
    def logger(self) -> Any:
        logger = logging.getLogger("webllm")
        level = logger.level
        yield logger
        logger.setLevel(level)

    def test_making_an_engine_leaves_it(self, logger: logging.Logger) -> None:
        logger.setLevel(logging.INFO)
        MLCEngine()
        MLCEngine(MLCEngineConfig(device="cpu"))
        assert logger.level == logging.INFO

    def test_unless_it_is_asked_for(self, logger: logging.Logger) -> None:
        MLCEngine(MLCEngineConfig(log_level="ERROR"))
        assert logger.level == logging.ERROR


class TestAbandonedStreams:
    """An unreferenced stream ends its sequences."""

    @pytest.mark.parametrize("num_read", [0, 1, 3])
    async def test_here(self, num_read: int) -> None:
        engine = make_engine(windows=8)
        stream = await engine.completion(
            {"prompt": "1", "max_tokens": 200, "ignore_eos": True, "n": 3, "stream": True}
        )
        assert isinstance(stream, AsyncGenerator)
        for _ in range(num_read):
            await anext(stream)
        del stream
        gc.collect()
        await settle()
        assert num_used(engine) == 0
        assert not model_of(engine).loop.scheduler.has_work

    async def test_in_a_loop_that_was_left(self) -> None:
        engine = make_engine(windows=8)
        request = {"prompt": "1", "max_tokens": 200, "ignore_eos": True, "stream": True}
        async for _ in await engine.completion(request):  # type: ignore[union-attr]
            break
        gc.collect()
        await settle()
        assert num_used(engine) == 0

    async def test_that_nobody_reads(self) -> None:
        """It runs to its end without a reader."""
        engine = make_engine(windows=64)
        stream = await engine.completion({"prompt": "1", "max_tokens": 5, "stream": True})
        while model_of(engine).loop.scheduler.has_work:
            await asyncio.sleep(0)
        assert len([chunk async for chunk in stream]) > 1  # type: ignore[union-attr]


def test_one_event_loop_after_the_other_reloads_and_forwards(
    number_models: NumberModels,
) -> None:
    """It works even where calls wait, which would tie asyncio's own locks to one event loop."""
    engine = number_models.engine()

    async def use() -> list[int]:
        await asyncio.gather(*(engine.reload("a.gguf") for _ in range(3)))
        calls = (engine.forward_tokens_and_sample([1], is_prefill=True) for _ in range(3))
        return await asyncio.gather(*calls)

    first, second = asyncio.run(use()), asyncio.run(use())
    assert first == second
    asyncio.run(engine.unload())
