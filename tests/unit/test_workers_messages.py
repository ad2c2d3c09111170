"""The table of message kinds, compared with WebLLM's, the engine's interface and a worker."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import pytest
from fake_model import NumberModels, settle
from fake_worker import Worker
from test_workers_wire import NpmClient, Thrown

from webllm.api.interface import MLCEngineInterface
from webllm.api.resumable import ResumableSession
from webllm.api.stats import EngineStats, ModelStats
from webllm.artifacts.progress import InitProgressReport, Phase
from webllm.engine.loaded_model import LoadedModel
from webllm.host import Host
from webllm.workers.messages import (
    KINDS,
    PROTOCOL,
    EngineMessages,
    KeepAlive,
    Kind,
    Request,
    WireStruct,
    read_request,
)
from webllm.workers.proxy import WorkerMLCEngine

# `RequestKind` of WebLLM 0.2.86, src/message.ts, each with a content of its clients'.
ASKED: dict[str, Any] = {"request": {"messages": []}, "modelId": ["m"], "chatOpts": None}
STREAM = {"selectedModelId": "m", "streamId": "s"}
WEBLLM: dict[str, Any] = {
    "reload": {"modelId": ["m"]},
    "runtimeStatsText": {"modelId": None},
    "interruptGenerate": None,
    "unload": None,
    "resetChat": {"keepStats": False},
    "getMaxStorageBufferBindingSize": None,
    "getGPUVendor": None,
    "forwardTokensAndSample": {"inputIds": [1], "isPrefill": True},
    "chatCompletionNonStreaming": ASKED,
    "completionNonStreaming": ASKED,
    "embedding": ASKED,
    "listResumableSessions": None,
    "resumeChatCompletion": {"sessionId": "x", "options": {"stream": False}},
    "resumeChatCompletionStreamInit": {"sessionId": "x", "streamId": "s"},
    "deleteResumableSession": {"sessionId": "x"},
    "getMessage": {},
    "chatCompletionStreamInit": ASKED | STREAM,
    "completionStreamInit": ASKED | STREAM,
    "completionStreamNextChunk": STREAM,
    "completionStreamReturn": STREAM,
    "customRequest": {"requestName": "x", "requestMessage": "y"},
    "keepAlive": None,
    "setLogLevel": "INFO",
    "setAppConfig": {"model_list": []},
}
PASSED_ON = {
    name: method.kind for name, method in vars(EngineMessages).items() if hasattr(method, "kind")
}


def test_the_kinds_are_webllms_and_ours() -> None:
    ours = {kind.name for kind in KINDS.values() if kind.since}
    assert {*KINDS, "keepAlive"} - ours == WEBLLM.keys()
    assert {"hello", "abort", "getDeviceName"} <= ours
    newest = max(kind.since for kind in KINDS.values())
    assert newest <= PROTOCOL, f"PROTOCOL is {PROTOCOL}, and a kind has since={newest}"


@pytest.mark.parametrize("name", WEBLLM)
def test_every_kind_of_webllms_is_read(name: str) -> None:
    request = read_request({"kind": name, "uuid": "u", "content": WEBLLM[name], "later": 1})
    assert isinstance(request, KeepAlive if name == "keepAlive" else Request)
    assert request.uuid == "u"


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_every_method_is_one_of_the_interface(kind: Kind[Any]) -> None:
    assert kind.method is None or inspect.isfunction(getattr(MLCEngineInterface, kind.method))


@pytest.mark.parametrize("name", PASSED_ON)
def test_a_kind_that_is_passed_on_has_the_parameters_of_its_method(name: str) -> None:
    kind = PASSED_ON[name]
    _, *parameters = inspect.signature(getattr(MLCEngineInterface, name)).parameters
    fields = kind.content.__struct_fields__ if issubclass(kind.content, WireStruct) else ()
    assert (kind.method, set(fields)) == (name, set(parameters))


STATS = ModelStats(
    model_id="m",
    device="d",
    running=1,
    waiting=2,
    free_blocks=3,
    blocks=4,
    block_tokens=5,
    memory_bytes=6,
)
SAMPLES = {
    "model_id": "m",
    "keep_stats": True,
    "input_ids": [4, 5],
    "is_prefill": True,
    "session_id": "s",
}
SESSION = ResumableSession(
    session_id="s",
    resumable=True,
    model_id="m",
    emitted_tokens=3,
    processed_seq_len=9,
    recovery_mode="token_replay",
)
RESULTS: dict[Any, object] = {
    str: "said",
    int: 2**40,
    type(None): None,
    EngineStats: EngineStats(models=[STATS], loading=["l"]),
    list[ResumableSession]: [SESSION],
}


@pytest.mark.parametrize("name", PASSED_ON)
async def test_arguments_and_result_cross(name: str) -> None:
    worker = Worker()
    received: list[dict[str, Any]] = []
    result_type = get_type_hints(getattr(MLCEngineInterface, name))["return"]
    assert result_type in RESULTS, f"add a sample of {result_type} to RESULTS"
    result = RESULTS[result_type]

    async def method(**arguments: Any) -> object:
        received.append(arguments)
        return result

    setattr(worker.engine, name, method)
    engine = WorkerMLCEngine(worker.port)
    await settle()  # until the proxy knows the worker's version
    _, *parameters = inspect.signature(getattr(MLCEngineInterface, name)).parameters
    assert SAMPLES.keys() >= set(parameters), f"add samples of {parameters} to SAMPLES"
    given = {each: SAMPLES[each] for each in parameters}
    assert await getattr(engine, name)(**given) == result
    assert await getattr(engine, name)(*given.values()) == result
    assert received == [given, given]


async def test_kinds_of_later_versions_are_refused_in_words() -> None:
    npm = NpmClient(Worker().handler)
    unknown = "UnknownMessageKindError: this worker knows no messages of the kind"
    with pytest.raises(Thrown, match=f"{unknown} 'newKind'; use a client of its own version"):
        await npm.ask("newKind", {"any": "thing"})
    assert npm.seen[-1]["error"]["code"] == "unknown_message_kind"
    with pytest.raises(Thrown, match=f"{unknown} 5; "):
        await npm.ask(5)  # type: ignore[arg-type]


async def test_the_progress_of_one_load() -> None:
    """The callback is called through a port and without one."""

    async def load_model(record: Any, options: Any, config: Any, host: Host) -> LoadedModel:
        text = record.model_id
        config.init_progress_callback(InitProgressReport(0.5, 1.5, text, Phase.FETCH, 5, 10))
        return await NumberModels().load(record, options, config, host)

    worker = Worker(load_model)
    for engine in (WorkerMLCEngine(worker.port), worker.engine):
        of_all: list[InitProgressReport] = []
        of_one: list[InitProgressReport] = []
        engine.set_init_progress_callback(of_all.append)
        await engine.reload("a.gguf", on_progress=of_one.append)
        await engine.reload("b.gguf")
        engine.set_init_progress_callback(None)
        await engine.reload("c.gguf", on_progress=of_one.append)
        assert [report.text for report in of_all] == ["a", "b"]
        assert [report.text for report in of_one] == ["a", "c"]
