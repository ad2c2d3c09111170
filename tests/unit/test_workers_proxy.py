"""`WorkerMLCEngine` with a handler on number models behaves as any other engine."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest
from fake_model import NumberModels, asked, counted, num_used, number_models, settle, usage_of
from fake_worker import FOREVER, SHIFT, Worker, read

from webllm import AppConfig, ChatOptions, MLCEngine, MLCEngineConfig, ModelRecord, errors
from webllm.api.chat_completion import ChatCompletion
from webllm.api.interface import MLCEngineInterface
from webllm.api.stats import EngineStats
from webllm.artifacts.progress import InitProgressReport, Phase
from webllm.error_info import ErrorInfo
from webllm.errors import (
    ConfigError,
    ContextLengthError,
    ModelNotFoundError,
    ModelNotLoadedError,
    RequestError,
    WebLLMError,
)
from webllm.workers.messages import Throw
from webllm.workers.port import LoopbackPort
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


def test_it_has_the_whole_interface(worker: Worker) -> None:
    def signature(kind: Any, name: str) -> list[str]:
        return list(inspect.signature(getattr(kind, name)).parameters)

    def check(engine: MLCEngineInterface) -> None: ...

    check(WorkerMLCEngine.__new__(WorkerMLCEngine))  # mypy's part
    for name, member in vars(MLCEngineInterface).items():
        if inspect.isfunction(member) and not name.startswith("_"):
            assert signature(WorkerMLCEngine, name) == signature(MLCEngineInterface, name)


async def test_whole_answers(engine: WorkerMLCEngine) -> None:
    fields = asked("1", max_tokens=3, logprobs=True, top_logprobs=2, n=2)
    fields["extra_body"] = {"enable_latency_breakdown": True}
    reply = await engine.chat.completions.create(**fields, logit_bias={5: 1.0})
    assert isinstance(reply, ChatCompletion)
    assert [choice.message.content for choice in reply.choices] == ["2 3 4 ", "2 3 4 "]
    assert reply.choices[0].message.role == "assistant"
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    assert [len(token.top_logprobs) for token in logprobs.content or ()] == [2, 2, 2]
    breakdown = usage_of(reply).extra.latency_breakdown
    assert breakdown is not None
    assert len(breakdown["totalTime"]) == 6
    assert (await engine.completions.create(prompt="7", max_tokens=1)).choices[0].text == "8 "
    assert await engine.get_message() == "8 "
    assert (await engine.runtime_stats_text()).startswith("prefill: ")
    await engine.reset_chat(keep_stats=True)
    assert await engine.get_message() == ""
    assert await engine.forward_tokens_and_sample((4, 5), is_prefill=True) == 6


async def test_what_a_model_runs_on(engine: WorkerMLCEngine) -> None:
    assert await engine.device_name() == "fake"
    [stats] = (await engine.engine_stats()).models
    assert (stats.model_id, stats.device, stats.running) == ("numbers", "fake", 0)
    assert stats.free_blocks == stats.blocks > 0
    with pytest.raises(ModelNotFoundError, match="other"):
        await engine.device_name("other")


async def test_a_worker_that_is_too_old_to_say_what_it_runs_on() -> None:
    port, theirs = LoopbackPort.pair()
    asked: list[Any] = []
    theirs.listen(asked.append, lambda reason: None)
    engine = WorkerMLCEngine(port)
    await settle()
    assert await engine.device_name() == ""  # WebLLM's answers no hello
    theirs.post({"kind": "return", "uuid": asked[0]["uuid"], "content": {"protocol": 1}})
    await settle()
    assert await engine.device_name() == ""
    assert await engine.engine_stats() == EngineStats(models=[])
    assert [message["kind"] for message in asked] == ["hello"]


async def test_streams_are_those_of_the_engine(engine: WorkerMLCEngine, worker: Worker) -> None:
    for kind, fields in (("chat_completion", asked("1")), ("completion", {"prompt": "1"})):
        fields |= {"max_tokens": 3, "stream": True, "stream_options": {"include_usage": True}}
        ours = [chunk async for chunk in await getattr(engine, kind)(fields)]
        theirs = [chunk async for chunk in await getattr(worker.engine, kind)(fields)]
        assert [chunk.choices for chunk in ours] == [chunk.choices for chunk in theirs]
        assert type(ours[0]) is type(theirs[0])
        assert ours[-1].usage.completion_tokens == 3


async def test_streams_of_one_model_run_at_once(engine: WorkerMLCEngine) -> None:
    async def text_after(first: int) -> str:
        stream = await engine.completions.create(prompt=str(first), max_tokens=40, stream=True)
        return "".join([chunk.choices[0].text async for chunk in stream])

    texts = await asyncio.gather(*(text_after(first) for first in range(0, 400, 100)))
    assert texts == [counted(first + 1, first + 40) for first in range(0, 400, 100)]
    slow = await engine.chat.completions.create(**asked("1", stream=True, **FOREVER))
    await anext(slow)
    assert await text_after(5) == counted(6, 45)  # though the other one has not ended
    await slow.aclose()


@pytest.mark.parametrize("how", ["aclose", "break", "cancel", "before the first", "dropped"])
async def test_leaving_a_stream_ends_it_in_the_worker(
    engine: WorkerMLCEngine, worker: Worker, how: str
) -> None:
    stream = await engine.chat.completions.create(**asked("1", stream=True, **FOREVER))
    [connection] = worker.handler._connections
    assert len(connection.streams._by_id) == 1
    if how == "aclose":
        await anext(stream)
        await stream.aclose()
    elif how == "break":
        async with aclosing(stream):
            async for _ in stream:
                break
    elif how == "before the first":
        await stream.aclose()
    elif how == "dropped":
        await anext(stream)
        del stream
        gc.collect()
    else:
        task = asyncio.create_task(read(stream))
        await settle()
        assert num_used(worker.engine) > 0
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await settle()
    assert num_used(worker.engine) == 0
    assert not connection.streams._by_id
    assert not connection._tasks


async def test_cancelling_a_call_ends_it_in_the_worker(
    engine: WorkerMLCEngine, worker: Worker
) -> None:
    for fields in (FOREVER, {"stream": True, **FOREVER}):
        task = asyncio.create_task(engine.chat.completions.create(**asked("1", **fields)))
        for _ in range(20 if "stream" not in fields else 1):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await settle()
        assert num_used(worker.engine) == 0
    assert not worker.handler._connections[0].streams._by_id


async def test_interrupt(engine: WorkerMLCEngine) -> None:
    task = asyncio.create_task(engine.chat.completions.create(**asked("1", **FOREVER)))
    await settle()
    engine.interrupt_generate()
    assert (await task).choices[0].finish_reason == "abort"


async def test_errors_are_the_engines(engine: WorkerMLCEngine) -> None:
    with pytest.raises(RequestError, match="temperature is 9") as caught:
        await engine.chat.completions.create(**asked("1", temperature=9))
    assert caught.value.field == "temperature"
    with pytest.raises(RequestError, match="max_tokens"):
        await engine.completions.create(prompt="1", stream=True, max_tokens=0)
    with pytest.raises(RequestError, match="stream"):
        await engine.completions.create(prompt="1", stream="yes")  # type: ignore[call-overload]
    with pytest.raises(RequestError, match="plain data"):
        await engine.completions.create(prompt=object())  # type: ignore[call-overload]
    with pytest.raises(RequestError, match="plain data"):
        await engine.completions.create(prompt="\ud800")
    with pytest.raises(ModelNotFoundError):
        await engine.reload("no-such-model")
    with pytest.raises(ModelNotLoadedError):
        await engine.get_message()
    with pytest.raises(errors.WorkerEngineModelNotLoadedError):
        await engine.chat.completions.create(**asked("1"))
    with pytest.raises(errors.WorkerEngineModelNotLoadedError):
        await engine.embeddings.create(input="x")
    with pytest.raises(WebLLMError, match="OSError: no such file"):
        await engine.reload("broken.gguf")
    with pytest.raises(ConfigError, match="2 models"):
        await engine.reload(["a.gguf", "b.gguf"], [ChatOptions()])


async def test_an_error_in_the_middle_of_a_stream(
    engine: WorkerMLCEngine, worker: Worker, number_models: NumberModels
) -> None:
    stream = await engine.completions.create(prompt="1 2 3", stream=True, **FOREVER)
    await anext(stream)

    async def read_oldest() -> None:
        raise errors.DeviceLostError("gone")

    number_models.loaded[0].loop.runner.read_oldest = read_oldest  # type: ignore[assignment]
    with pytest.raises(errors.DeviceLostError, match="gone"):
        await read(stream)
    assert not worker.handler._connections[0].streams._by_id


CLASSES = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, WebLLMError)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
async def test_every_class_of_error_crosses(kind: type[WebLLMError], worker: Worker) -> None:
    error = kind("why: and what now", "top_p") if issubclass(kind, RequestError) else kind("why: x")

    async def fail(**_: object) -> None:
        raise error

    worker.engine.get_message = fail  # type: ignore[assignment]
    with pytest.raises(kind) as caught:
        await WorkerMLCEngine(worker.port).get_message()
    assert type(caught.value) is kind
    assert (str(caught.value), caught.value.code) == (str(error), kind.code)
    assert getattr(caught.value, "field", None) == getattr(error, "field", None)


def test_errors_of_other_versions() -> None:
    info = ErrorInfo(name="NewError", message="new", code="new_code", status=418)
    new = Throw(uuid="1", content="NewError: new", error=info).rebuilt()
    assert (type(new), str(new), new.code, new.status) == (
        WebLLMError,
        "NewError: new",
        "new_code",
        418,
    )
    old = Throw(uuid="1", content="ModelNotLoadedError: Model not loaded before.").rebuilt()
    assert (type(old), str(old)) == (ModelNotLoadedError, "Model not loaded before.")
    assert str(Throw(uuid="1", content="Error: x").rebuilt()) == "Error: x"
    sent = Throw.of(ContextLengthError("long", "messages"), "1").error
    assert isinstance(sent, ErrorInfo)
    assert sent.field == "messages"


async def test_settings(engine: WorkerMLCEngine, worker: Worker) -> None:
    catalogue = AppConfig(model_list=(ModelRecord(model="x.gguf", model_id="x"),))
    engine.set_app_config(catalogue)
    engine.set_log_level("ERROR")
    await engine.reload("x")
    assert worker.engine.config.app_config == catalogue
    assert logging.getLogger("webllm").level == logging.ERROR
    with pytest.raises(ConfigError, match="log_level"):
        engine.set_log_level("LOUD")  # type: ignore[arg-type]
    engine.set_log_level("WARN")
    engine.interrupt_generate()
    await engine.unload()
    assert worker.engine.config.app_config == catalogue


@pytest.mark.parametrize(
    "config",
    [
        MLCEngineConfig(logit_processor_registry={"m": object()}),  # type: ignore[dict-item]
        MLCEngineConfig(device="cpu"),
        MLCEngineConfig(num_threads=2),
        MLCEngineConfig(kv_cache_tokens=99),
    ],
)
async def test_settings_of_the_worker_are_refused(worker: Worker, config: MLCEngineConfig) -> None:
    with pytest.raises(ConfigError, match="worker"):
        WorkerMLCEngine(worker.port, config)


@pytest.mark.parametrize(
    ("call", "argument", "problem"),
    [
        (lambda e: e.reset_chat("yes"), "keep_stats", "expected bool, got str, received 'yes'"),
        (lambda e: e.get_message(5), "model_id", "expected str, got int, received 5"),
        (
            lambda e: e.forward_tokens_and_sample(["a"], True),
            "input_ids[0]",
            "expected int, got str, received 'a'",
        ),
        (
            lambda e: e.forward_tokens_and_sample(5, True),
            "input_ids",
            "expected array, got int, received 5",
        ),
        (lambda e: e.custom_request(5), "request_name", "expected str, got int, received 5"),
    ],
)
async def test_an_argument_of_a_wrong_type_is_named(
    engine: WorkerMLCEngine,
    call: Callable[[Any], Awaitable[object]],
    argument: str,
    problem: str,
) -> None:
    with pytest.raises(RequestError) as caught:
        await call(engine)
    assert (str(caught.value), caught.value.field) == (f"{argument}: {problem}", argument)


@pytest.mark.parametrize("make", [MLCEngine, lambda: WorkerMLCEngine(Worker().port)])
async def test_a_progress_callback_that_is_no_function_is_refused_at_once(
    make: Callable[[], Any],
) -> None:
    engine, wrong = make(), "progress"
    with pytest.raises(ConfigError, match="on_progress is 'progress'; give a function"):
        await engine.reload("no such model", on_progress=wrong)
    with pytest.raises(ConfigError, match="init_progress_callback is 'progress'"):
        engine.set_init_progress_callback(wrong)
    with pytest.raises(ConfigError, match="init_progress_callback is 'progress'"):
        MLCEngineConfig(init_progress_callback=wrong)  # type: ignore[arg-type]


async def test_progress(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    report = InitProgressReport(0.5, 1.5, "half", Phase.COMPILE, 5, 10)

    async def reload(*_: object, on_progress: Any) -> None:
        on_progress(report)

    monkeypatch.setattr(worker.engine, "reload", reload)
    reports: list[InitProgressReport] = []
    engine = WorkerMLCEngine(worker.port, MLCEngineConfig(init_progress_callback=reports.append))
    await engine.reload("x.gguf")
    engine.set_init_progress_callback(None)
    await engine.reload("x.gguf")
    assert reports == [report]
    assert engine.get_init_progress_callback() is None


async def test_custom_requests(worker: Worker) -> None:
    engine = WorkerMLCEngine(worker.port)
    with pytest.raises(RequestError, match="weather"):
        await engine.custom_request("weather", {"city": "Berlin"})
