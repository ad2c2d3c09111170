"""The handler and WebLLM's npm client: messages as in `web_worker.ts` and `service_worker.ts`."""

from __future__ import annotations

import asyncio
import json
from itertools import count
from typing import Any

import pytest
from fake_model import NumberModels, asked, counted, num_used, number_models, settle

from webllm import AppConfig, MLCEngine, MLCEngineConfig, ModelRecord
from webllm.artifacts.progress import InitProgressReport, Phase
from webllm.engine.loaded_model import LoadedModel
from webllm.host import Host
from webllm.workers.handler import MLCEngineHandler
from webllm.workers.port import LoopbackPort

__all__ = ["number_models"]  # a fixture

NO_CONTENT = object()
NUMBERS = ModelRecord(model="numbers.gguf", model_id="numbers")
CATALOGUE = {"model_list": [{"model": "numbers.gguf", "model_id": "numbers"}]}
SYNC = {"model_list": [], "cacheBackend": "opfs", "opfsAccessMode": "sync"}
CONFIG = MLCEngineConfig(app_config=AppConfig(model_list=(NUMBERS,)))


class Thrown(Exception):  # noqa: N818
    """The npm client's rejection: the content of a "throw"."""


class NpmClient:
    """`WebWorkerMLCEngine` of WebLLM, its messages written by hand; its streams are 0.2.79's."""

    def __init__(self, handler: MLCEngineHandler) -> None:
        self.port, theirs = LoopbackPort.pair()
        handler.serve(theirs)
        self.port.listen(self.on_message, lambda reason: None)
        self.uuids = (f"uuid-{i}" for i in count())
        self.pending: dict[str, asyncio.Future[object]] = {}
        self.seen: list[dict[str, Any]] = []

    def on_message(self, message: dict[str, Any]) -> None:
        json.dumps(message)  # chrome.runtime.Port passes JSON
        self.seen.append(message)
        if message["kind"] in ("initProgressCallback", "heartbeat"):
            return
        future = self.pending.pop(message["uuid"])  # "return from a unknown uuid" otherwise
        if message["kind"] == "throw":
            future.set_exception(Thrown(message["content"]))
        else:
            assert message["kind"] == "return"
            future.set_result(message.get("content", NO_CONTENT))

    def post(self, kind: str, content: object = None) -> str:
        uuid = next(self.uuids)
        self.port.post({"kind": kind, "uuid": uuid, "content": content})
        return uuid

    async def ask(self, kind: str, content: object = None) -> object:
        uuid = self.post(kind, content)
        self.pending[uuid] = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(30):
            return await self.pending[uuid]

    async def begin(self, request: dict[str, object], kind: str = "chatCompletion") -> None:
        model = {"modelId": ["numbers"], "selectedModelId": "numbers", "chatOpts": None}
        content = {"request": {**request, "stream": True}, **model}
        assert await self.ask(f"{kind}StreamInit", content) is None

    async def chunk(self) -> object:
        return await self.ask("completionStreamNextChunk", {"selectedModelId": "numbers"})

    async def rest(self) -> str:
        """Returns the remaining text, read as by `asyncGenerate`: until a reply is no object."""
        text = ""
        while (chunk := await self.chunk()) is not NO_CONTENT:
            assert isinstance(chunk, dict)
            choice = chunk["choices"][0]
            text += choice["text"] if "text" in choice else choice["delta"].get("content") or ""
        return text


@pytest.fixture
def handler(number_models: NumberModels) -> MLCEngineHandler:
    return MLCEngineHandler(number_models.engine(CONFIG), grace_s=0)


@pytest.fixture
def npm(handler: MLCEngineHandler) -> NpmClient:
    return NpmClient(handler)


@pytest.fixture
async def client(npm: NpmClient) -> NpmClient:
    assert await npm.ask("reload", {"modelId": ["numbers"]}) is None
    return npm


def engine_of(handler: MLCEngineHandler) -> MLCEngine:
    assert isinstance(handler.engine, MLCEngine)
    return handler.engine


def numbers(request: dict[str, object]) -> dict[str, object]:
    return {"request": request, "modelId": ["numbers"], "chatOpts": None}


async def test_chat_completion(client: NpmClient) -> None:
    reply = await client.ask("chatCompletionNonStreaming", numbers(asked("1", max_tokens=3)))
    assert isinstance(reply, dict)
    assert reply["object"] == "chat.completion"
    message = {"role": "assistant", "content": "2 3 4 "}
    assert reply["choices"][0] == {
        "index": 0,
        "message": message,
        "finish_reason": "length",
        "logprobs": None,
    }
    assert reply["usage"]["completion_tokens"] == 3
    assert reply["usage"]["extra"]["decode_tokens_per_s"] > 0


async def test_completion(client: NpmClient) -> None:
    request = {"prompt": "5", "max_tokens": 2}
    reply = await client.ask("completionNonStreaming", numbers(request))
    assert isinstance(reply, dict)
    assert (reply["object"], reply["choices"][0]["text"]) == ("text_completion", "6 7 ")


@pytest.mark.parametrize(
    ("kind", "request_"),
    [
        ("chatCompletion", asked("1", max_tokens=3)),
        ("completion", {"prompt": "1", "max_tokens": 3}),
    ],
)
async def test_a_stream_ends_without_content(
    client: NpmClient, kind: str, request_: dict[str, object]
) -> None:
    await client.begin(request_, kind)
    assert await client.rest() == "2 3 4 "
    assert await client.chunk() is NO_CONTENT  # as a generator of JavaScript's that has ended


async def test_other_kinds(client: NpmClient, handler: MLCEngineHandler) -> None:
    await client.ask("chatCompletionNonStreaming", numbers(asked("1", max_tokens=3)))
    assert await client.ask("getMessage", {"modelId": None}) == "2 3 4 "
    stats = await client.ask("runtimeStatsText", {})
    assert isinstance(stats, str)
    assert stats.startswith("prefill: ")
    assert await client.ask("resetChat", {"keepStats": False, "modelId": "numbers"}) is None
    assert await client.ask("getMessage", {}) == ""
    forward = {"inputIds": [4, 5], "isPrefill": True}
    assert await client.ask("forwardTokensAndSample", forward) == 6
    assert await client.ask("interruptGenerate") is None
    assert await client.ask("unload") is None
    with pytest.raises(Thrown, match="ModelNotLoadedError: no model is loaded"):
        await client.ask("getMessage", {})


async def test_settings_are_not_answered(client: NpmClient, handler: MLCEngineHandler) -> None:
    record = {"model": "x.gguf", "model_id": "x", "model_lib": "x.wasm", "model_type": 1}
    catalogue = {"model_list": [record], "cacheBackend": "indexeddb", "useIndexedDBCache": True}
    client.post("setAppConfig", catalogue)
    client.post("setLogLevel", "SILENT")
    client.post("keepAlive")
    await settle()
    assert [message["kind"] for message in client.seen[1:]] == ["heartbeat"]
    await client.ask("reload", {"modelId": ["x"]})
    [found] = engine_of(handler).config.app_config.model_list
    assert (found.model_id, found.model_type) == ("x", "embedding")
    engine_of(handler).set_log_level("WARN")


@pytest.mark.parametrize(
    ("kind", "wrong", "right", "said"),
    [
        ("setAppConfig", {"model_list": [], "cacheBackend": "bogus"}, CATALOGUE, "bogus"),
        ("setAppConfig", {"model_list": [], "cacheBackend": "cross-origin"}, CATALOGUE, "origin"),
        ("setAppConfig", SYNC, CATALOGUE, "sync"),
        ("setLogLevel", "LOUD", "WARN", "LOUD"),
    ],
)
async def test_a_wrong_setting_fails_the_reloads_until_it_is_right(
    npm: NpmClient, handler: MLCEngineHandler, kind: str, wrong: object, right: object, said: str
) -> None:
    """The setting itself has no reply: WebLLM's client fails on a uuid without a waiting call."""
    npm.post(kind, right)
    npm.post(kind, wrong)
    for _ in range(2):
        with pytest.raises(Thrown, match=f"^(ConfigError|RequestError): .*{said}"):
            await npm.ask("reload", {"modelId": ["numbers"]})
    if kind == "setAppConfig":
        with pytest.raises(Thrown, match=f"^ConfigError: .*{said}"):  # it would load as well
            await npm.ask("chatCompletionNonStreaming", numbers(asked("1")))
    assert engine_of(handler).loaded_model_ids() == []
    await NpmClient(handler).ask("reload", {"modelId": ["numbers"]})  # it has set nothing
    npm.post(kind, right)
    assert await npm.ask("reload", {"modelId": ["numbers"]}) is None
    num_asked = 4 if kind == "setAppConfig" else 3
    assert [message["kind"] for message in npm.seen] == ["throw"] * (num_asked - 1) + ["return"]


async def test_heartbeat_as_service_workers_and_extensions_ask(npm: NpmClient) -> None:
    npm.port.post({"kind": "keepAlive", "uuid": "u"})
    npm.port.post({"kind": "keepAlive"})  # an extension's page, which knows no heartbeat
    await settle()
    assert npm.seen == [{"kind": "heartbeat", "uuid": "u"}]


async def test_gpu_of_a_worker(npm: NpmClient, handler: MLCEngineHandler) -> None:
    async def vendor() -> str:
        return "acme"

    async def size() -> int:
        return 2**31

    engine_of(handler).get_gpu_vendor = vendor  # type: ignore[method-assign]
    engine_of(handler).get_max_storage_buffer_binding_size = size  # type: ignore[method-assign]
    assert await npm.ask("getGPUVendor") == "acme"
    assert await npm.ask("getMaxStorageBufferBindingSize") == 2**31


async def test_errors_are_strings_with_ours_beside(client: NpmClient) -> None:
    with pytest.raises(Thrown, match=r"^RequestError: temperature is 9\.0; it has to be at least"):
        await client.ask("chatCompletionNonStreaming", numbers(asked("1", temperature=9.0)))
    assert client.seen[-1]["error"] == {
        "name": "RequestError",
        "message": "temperature is 9.0; it has to be at least 0 and at most 2",
        "code": "invalid_request_error",
        "status": 400,
        "field": "temperature",
    }
    with pytest.raises(Thrown, match="ModelNotLoadedError"):
        await client.ask("embedding", numbers({"input": "x"}))
    with pytest.raises(Thrown, match="OSError: no such file"):
        await client.ask("reload", {"modelId": ["broken.gguf"]})


async def test_messages_that_are_wrong_are_thrown_back(npm: NpmClient) -> None:
    with pytest.raises(Thrown, match=r"RequestError: .*modelId"):
        await npm.ask("reload", {})
    with pytest.raises(Thrown, match=r"UnknownMessageKindError: .*generate"):
        await npm.ask("generate", {"input": "old"})
    with pytest.raises(Thrown, match="ConfigError: temperature is 50"):
        await npm.ask("reload", {"modelId": ["numbers"], "chatOpts": [{"temperature": 50}]})
    with pytest.raises(Thrown, match=r"RequestError: sessionId is missing"):
        await npm.ask("resumeChatCompletion", {"options": {}})
    with pytest.raises(Thrown, match=r"UnknownMessageKindError: .*\['a', 'list'\]"):
        await npm.ask(["a", "list"])  # type: ignore[arg-type]
    npm.pending[5] = asyncio.get_running_loop().create_future()  # type: ignore[index]
    npm.port.post({"kind": "unload", "uuid": 5, "content": None})
    with pytest.raises(Thrown, match=r"RequestError: .*uuid"):
        await npm.pending[5]  # type: ignore[index]
    npm.port.post("no message of ours")
    npm.port.post({"type": "webpackOk"})
    npm.port.post({"kind": "someone's", "data": 1})
    await settle()
    assert len(npm.seen) == 6


async def test_a_restarted_worker_reloads_by_itself(
    npm: NpmClient, number_models: NumberModels
) -> None:
    content = numbers(asked("1", max_tokens=1)) | {"chatOpts": [{"top_p": 0.5}]}
    replies = [npm.ask("chatCompletionNonStreaming", content) for _ in range(3)]
    assert all(await asyncio.gather(*replies))
    assert [loaded.options.top_p for loaded in number_models.loaded] == [0.5]
    await npm.begin(asked("1", max_tokens=1))
    assert await npm.rest() == "2 "
    assert len(number_models.loaded) == 1


async def test_a_client_that_expects_no_model_is_told_that_none_is_loaded(npm: NpmClient) -> None:
    content = {"request": asked("1"), "modelId": [], "chatOpts": []}
    whole = ("chatCompletionNonStreaming", "completionNonStreaming", "embedding")
    for kind in (*whole, "chatCompletionStreamInit", "completionStreamInit"):
        with pytest.raises(Thrown, match="WorkerEngineModelNotLoadedError: no model is loaded in"):
            await npm.ask(kind, content)


async def test_streams_of_one_model_take_turns(client: NpmClient) -> None:
    await client.begin(asked("1", max_tokens=3))
    second = asyncio.create_task(client.begin(asked("7", max_tokens=3)))
    await settle()
    assert not second.done()
    assert await client.rest() == "2 3 4 "
    await second
    assert await client.rest() == "8 9 10 "


async def test_chunks_may_be_asked_for_several_at_a_time(client: NpmClient) -> None:
    await client.begin(asked("1", max_tokens=3))
    chunks = await asyncio.gather(*(client.chunk() for _ in range(6)))
    texts = [c["choices"][0]["delta"].get("content") for c in chunks[:5] if isinstance(c, dict)]
    assert texts == ["", "2 ", "3 ", "4 ", None]
    assert chunks[5] is NO_CONTENT


async def test_a_stream_left_after_an_interrupt_makes_way(
    client: NpmClient, handler: MLCEngineHandler
) -> None:
    await client.begin(asked("1", ignore_eos=True))
    await client.chunk()
    await client.ask("interruptGenerate")
    await client.begin(asked("7", max_tokens=3))
    assert await client.rest() == "8 9 10 "
    assert num_used(engine_of(handler)) == 0


async def test_an_interrupted_stream_that_is_read_on_says_abort(client: NpmClient) -> None:
    await client.begin(asked("1", ignore_eos=True))
    await client.chunk()
    await client.ask("interruptGenerate")
    reasons = []
    while isinstance(chunk := await client.chunk(), dict):
        reasons.append(chunk["choices"][0]["finish_reason"])
    assert (reasons[-1], len(reasons) < 10) == ("abort", True)


async def test_a_failed_beginning_leaves_the_turn(client: NpmClient) -> None:
    with pytest.raises(Thrown, match="max_tokens"):
        await client.begin(asked("1", max_tokens=0))
    await client.begin(asked("1", max_tokens=1))
    assert await client.rest() == "2 "


async def test_the_answer_to_a_hello_comes_first(npm: NpmClient) -> None:
    npm.port.post({"kind": "hello", "uuid": "h", "content": None})
    npm.port.post({"kind": "reload", "uuid": "wrong", "content": {}})
    npm.port.post({"kind": "keepAlive", "uuid": "k"})
    for uuid in ("h", "wrong"):
        npm.pending[uuid] = asyncio.get_running_loop().create_future()
    with pytest.raises(Thrown, match="modelId"):
        await npm.pending["wrong"]
    assert [message["uuid"] for message in npm.seen][:2] == ["h", "wrong"]


async def test_two_pages_have_streams_of_their_own(
    client: NpmClient, handler: MLCEngineHandler
) -> None:
    other = NpmClient(handler)
    await client.begin(asked("1", max_tokens=40))
    await other.begin(asked("100", max_tokens=40))
    texts = await asyncio.gather(client.rest(), other.rest())
    assert [*texts] == [counted(2, 41), counted(101, 140)]


async def test_a_page_that_is_gone_leaves_nothing_running(
    client: NpmClient, handler: MLCEngineHandler
) -> None:
    await client.begin(asked("1", ignore_eos=True))
    await client.chunk()
    client.post("chatCompletionNonStreaming", numbers(asked("1", ignore_eos=True)))
    client.post("chatCompletionStreamInit", {**numbers(asked("1")), "selectedModelId": "numbers"})
    await settle()
    assert num_used(engine_of(handler)) > 0
    await client.port.close()
    await settle()
    assert num_used(engine_of(handler)) == 0
    assert await NpmClient(handler).ask("getMessage", {}) is not None


async def test_progress_goes_to_the_page_that_reloads(number_models: NumberModels) -> None:
    async def load_model(record: Any, options: Any, config: Any, host: Host) -> LoadedModel:
        config.init_progress_callback(InitProgressReport(0.5, 1.5, "half", Phase.FETCH, 5, 10))
        return await number_models.load(record, options, config, host)

    handler = MLCEngineHandler(MLCEngine(CONFIG, load_model=load_model))
    own: list[str] = []
    handler.engine.set_init_progress_callback(lambda report: own.append(report.text))
    npm, other = NpmClient(handler), NpmClient(handler)
    await npm.ask("reload", {"modelId": ["numbers"], "chatOpts": None})
    seen = npm.seen[0]
    content = seen.pop("content")
    assert seen == {"kind": "initProgressCallback", "uuid": "uuid-0"}
    assert 0 < content.pop("progress") < 0.5  # half of the first phase
    assert content.pop("timeElapsed") >= 0
    assert content == {"text": "half", "phase": "fetch", "loadedBytes": 5, "totalBytes": 10}
    assert not other.seen
    assert own == ["half"]


async def test_a_service_worker_does_not_load_twice(number_models: NumberModels) -> None:
    npm = NpmClient(MLCEngineHandler(number_models.engine(CONFIG), reuse_loaded=True))
    for options in (None, None, [{"top_p": 0.5}]):
        await npm.ask("reload", {"modelId": ["numbers"], "chatOpts": options})
    assert len(number_models.loaded) == 2
    assert npm.seen[1]["content"]["progress"] == 1


async def test_custom_requests() -> None:
    async def answer(name: str, message: object) -> object:
        return [name, message]

    npm = NpmClient(MLCEngineHandler(on_custom_request=answer))
    content = {"requestName": "weather", "requestMessage": {"city": "Berlin"}}
    assert await npm.ask("customRequest", content) == ["weather", {"city": "Berlin"}]
    with pytest.raises(Thrown, match="weather"):
        await NpmClient(MLCEngineHandler(config=CONFIG)).ask("customRequest", content)


async def test_a_value_of_a_wrong_type_is_named_as_on_the_wire(client: NpmClient) -> None:
    with pytest.raises(Thrown, match=r"^RequestError: keepStats: expected bool, got int"):
        await client.ask("resetChat", {"keepStats": 5})
    with pytest.raises(Thrown, match=r"^RequestError: modelId is missing$"):
        await client.ask("reload", {})
