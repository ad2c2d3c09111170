"""Workers that end, are started again, or are not ours; and ports that close."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_model import NumberModels, asked, number_models, settle
from fake_worker import FOREVER, SHIFT, Worker, read

from webllm import AppConfig, ChatOptions, MLCEngineConfig, ModelRecord
from webllm.errors import ConfigError, WebLLMError, WorkerLostError
from webllm.workers.messages import read_reply
from webllm.workers.port import LoopbackPort, Port
from webllm.workers.proxy import WorkerMLCEngine

__all__ = ["number_models"]  # a fixture


@pytest.fixture
def worker(number_models: NumberModels) -> Worker:
    return Worker(number_models.load)


@pytest.fixture
async def engine(worker: Worker) -> WorkerMLCEngine:
    engine = WorkerMLCEngine(worker.port)
    await engine.reload("numbers.gguf", SHIFT)
    return engine


async def test_a_lost_worker_fails_whatever_waits(engine: WorkerMLCEngine, worker: Worker) -> None:
    stream = await engine.chat.completions.create(**asked("1", stream=True, **FOREVER))
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(read(stream))]
    tasks += [
        asyncio.create_task(engine.chat_completion(asked(str(i), **FOREVER))) for i in range(3)
    ]
    await settle()
    await worker.handler._connections[0]._port.close()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, WorkerLostError)
    with pytest.raises(WorkerLostError, match="closed"):
        await engine.get_message()
    engine.interrupt_generate()
    engine.set_log_level("WARN")
    with pytest.raises(ConfigError, match="new engine"):
        await engine.restart()
    with pytest.raises(WorkerLostError):
        await engine.reload("numbers.gguf")


async def test_restart_sends_the_settings_and_the_models_again(
    worker: Worker, number_models: NumberModels
) -> None:
    workers = [worker]

    async def open_port() -> Port:
        await asyncio.sleep(0)
        workers.append(Worker(number_models.load))
        return workers[-1].port

    engine = WorkerMLCEngine(worker.port, open_port=open_port)
    catalogue = AppConfig(model_list=(ModelRecord(model="x.gguf", model_id="x"),))
    engine.set_app_config(catalogue)
    await engine.reload("x", ChatOptions(top_p=0.5))
    stream = await engine.completions.create(prompt="1", stream=True, **FOREVER)
    await anext(stream)
    await engine.restart()
    with pytest.raises(WorkerLostError, match="closed"):
        await anext(stream)
    reply = await engine.completions.create(prompt="1", max_tokens=1)
    assert (reply.model, reply.choices[0].text) == ("x", "2 ")
    assert [loaded.options.top_p for loaded in number_models.loaded] == [0.5, 0.5]

    await workers[-1].port.close()
    await asyncio.gather(engine.reload("x"), engine.reload("x"))
    assert len(workers) == 3
    await engine.close()
    with pytest.raises(ConfigError):
        await engine.restart()


@pytest.mark.parametrize(
    ("version", "ends"),
    [
        ("0.2.83", ["interruptGenerate"]),
        ("0.2.84", ["completionStreamReturn"]),
        ("refuses", ["completionStreamReturn", "interruptGenerate"]),
    ],
)
async def test_a_worker_of_webllms_own(version: str, ends: list[str]) -> None:
    """It ignores unknown messages, and ends a stream by null on ports without undefined."""
    port, theirs = LoopbackPort.pair()
    seen: list[dict[str, Any]] = []
    chunk = {"id": "1", "created": 1, "model": "m", "object": "text_completion"}
    chunk["choices"] = [{"index": 0, "text": "a", "finish_reason": None, "logprobs": None}]

    def answer(message: dict[str, Any]) -> None:
        seen.append(message)
        if message["kind"] == "getMessage":
            theirs.post({"kind": "throw", "uuid": message["uuid"], "content": "Error: no"})
        elif message["kind"] == "completionStreamReturn":
            assert version != "0.2.83" or message["content"] is None  # else its script fails
            if version != "0.2.83":
                kind = "return" if version == "0.2.84" else "throw"
                theirs.post({"kind": kind, "uuid": message["uuid"], "content": "null"})
        elif message["kind"] not in ("hello", "abort", "setAppConfig", "setLogLevel"):
            content = chunk if message["kind"].endswith("NextChunk") else None
            theirs.post({"kind": "return", "uuid": message["uuid"], "content": content})

    theirs.listen(answer, lambda reason: None)
    engine = WorkerMLCEngine(port, MLCEngineConfig())
    await engine.reload("m")
    stream = await engine.completions.create(prompt="1", stream=True)
    assert (await anext(stream)).choices[0].text == "a"
    assert seen[-2]["content"]["modelId"] == ["m"]
    assert seen[-1]["content"]["selectedModelId"] == "m"
    await stream.aclose()
    await settle()
    [begun] = [each for each in seen if each["kind"] == "completionStreamInit"]
    later = seen[seen.index(begun) + 2 :]
    assert [each["kind"] for each in later] == ends  # only those of before 0.2.84 end all answers
    if ends[0] == "completionStreamReturn":
        assert later[0]["content"]["streamId"] == begun["uuid"]
    with pytest.raises(WebLLMError, match="no"):
        await engine.get_message()
    assert all(m["content"] is None for m in seen if m["kind"] == "hello")


async def test_ports_hold_back_what_comes_before_somebody_listens() -> None:
    ours, theirs = LoopbackPort.pair()
    ours.post({"n": 1})
    await settle()
    ours.post({"n": 2})
    got: list[object] = []
    theirs.listen(got.append, got.append)
    ours.post({"n": 3})
    await ours.close()
    await settle()
    assert got == [{"n": 1}, {"n": 2}, {"n": 3}, "the port was closed"]
    for port in (ours, theirs):
        with pytest.raises(WorkerLostError):
            port.post({})
    theirs.listen(got.append, got.append)
    assert got[4:] == ["the port was closed"]
    with pytest.raises(TypeError):
        LoopbackPort.pair()[0].post({"content": object()})


def test_answers_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="Invalid value"):
        read_reply({"kind": "generateProgressCallback", "uuid": "1"})
