"""Several clients of one handler: each has its own answers and catalogue; they share the models."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

import pytest
from fake_model import NumberModels, asked, counted, num_used, number_models, settle
from memory_journal import MemoryStorage
from test_workers_wire import NO_CONTENT, NpmClient, Thrown, engine_of

from webllm import AppConfig, MLCEngine, MLCEngineConfig, ModelRecord
from webllm.artifacts.progress import InitProgressReport, Phase
from webllm.engine.journal import Journal
from webllm.engine.loaded_model import LoadedModel
from webllm.host import Host
from webllm.workers.handler import MLCEngineHandler

__all__ = ["number_models"]  # a fixture

INIT, PULL = "chatCompletionStreamInit", "completionStreamNextChunk"
WHOLE = "chatCompletionNonStreaming"
FOREVER = {"ignore_eos": True, "max_tokens": 10**6}
SHIFT = [{"context_overflow": "shift"}]
RECORDS = tuple(ModelRecord(model=f"{name}.gguf", model_id=name) for name in ("one", "two"))
CONFIG = MLCEngineConfig(app_config=AppConfig(model_list=RECORDS))


def content(request: dict[str, object], model: str = "one", **fields: object) -> dict[str, object]:
    return {"request": request, "modelId": [model], "chatOpts": None, **fields}


def named(request_id: str, **extra: object) -> dict[str, object]:
    return {"extra_body": {"request_id": request_id, **extra}}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0)


class Client(NpmClient):
    """WebLLM 0.2.86's client, whose streams have ids."""

    options: object = None  # that its streams expect

    async def load(self, model: str = "one", options: object = None) -> None:
        assert await self.ask("reload", {"modelId": [model], "chatOpts": options}) is None

    async def open(self, stream_id: str, request: dict[str, object], model: str = "one") -> None:
        fields = content({**request, "stream": True}, model, streamId=stream_id)
        fields["chatOpts"] = self.options
        assert await self.ask(INIT, fields) is None

    async def pull(self, stream_id: str) -> Any:
        return await self.ask(PULL, {"streamId": stream_id})

    async def read(self, stream_id: str) -> tuple[str, str | None]:
        """Returns the text of what is left of a stream, and its finish reason."""
        text, reason = "", None
        while (chunk := await self.pull(stream_id)) is not NO_CONTENT:
            [choice] = chunk["choices"]
            text += choice["delta"].get("content") or ""
            reason = choice["finish_reason"]
        return text, reason

    def expect(self, uuid: str) -> None:
        """Lets a reply come for which no test waits."""
        self.pending[uuid] = asyncio.get_running_loop().create_future()

    def progress(self) -> list[float]:
        reports = [each for each in self.seen if each["kind"] == "initProgressCallback"]
        return [each["content"]["progress"] for each in reports]


@pytest.fixture
def handler(number_models: NumberModels) -> MLCEngineHandler:
    return MLCEngineHandler(number_models.engine(CONFIG), reuse_loaded=True, grace_s=60)


@pytest.fixture
async def clients(handler: MLCEngineHandler) -> tuple[Client, Client]:
    pair = Client(handler), Client(handler)
    for each in pair:
        await each.load(options=SHIFT)
    return pair


class TestInterrupt:
    async def test_it_ends_the_answers_of_the_client_that_asks(
        self, clients: tuple[Client, Client]
    ) -> None:
        ours, theirs = clients
        request = asked("1", ignore_eos=True, max_tokens=100)
        await theirs.open("s", request)
        await ours.open("s", asked("1", **FOREVER))
        whole = [
            asyncio.create_task(ours.ask(WHOLE, content(asked("1", **FOREVER)))),
            asyncio.create_task(theirs.ask(WHOLE, content(request))),
        ]
        await settle()
        await ours.ask("interruptGenerate")
        text, reason = await ours.read("s")
        assert reason == "abort"
        assert text.startswith("2 3 ")
        assert await theirs.read("s") == (counted(2, 101), "length")
        replies: list[Any] = await asyncio.gather(*whole)
        assert [reply["choices"][0]["finish_reason"] for reply in replies] == ["abort", "length"]

    async def test_it_names_the_requests_that_are_under_way(
        self, clients: tuple[Client, Client], handler: MLCEngineHandler
    ) -> None:
        told: list[Collection[str] | None] = []
        interrupt = handler.engine.interrupt_generate

        def interrupt_generate(request_ids: Collection[str] | None = None) -> None:
            told.append(request_ids)
            interrupt(request_ids)

        handler.engine.interrupt_generate = interrupt_generate  # type: ignore[method-assign]
        client, _ = clients
        await client.open("1", asked("1", **FOREVER, **named("first")))
        off = {"enabled": False, "session_id": "no"}
        await client.open("2", asked("2", **FOREVER, **named("second", resumable=off)))
        await client.open("3", asked("3", **FOREVER))
        await client.open("4", asked("4", max_tokens=1, **named("ended")))
        await client.read("4")
        await client.ask("interruptGenerate")
        assert told[0] is not None
        first, second, new = told[0]
        assert (first, second, len(new)) == ("first", "second", 36)
        await client.ask("interruptGenerate")
        await client.ask("interruptGenerate", {"requestIds": ["a", "b"]})
        assert told[1:] == [[], ["a", "b"]]

    async def test_a_session_is_known_by_its_id_in_either_spelling(
        self, handler: MLCEngineHandler
    ) -> None:
        told: list[Any] = []
        handler.engine.interrupt_generate = told.append  # type: ignore[method-assign, assignment]
        received: list[Any] = []

        async def chat_completion(request: dict[str, Any]) -> Any:
            received.append(request)
            await asyncio.Event().wait()

        handler.engine.chat_completion = chat_completion  # type: ignore[method-assign, assignment]
        client = Client(handler)
        await client.load()
        for name in ("sessionId", "session_id"):
            request = asked("1", extra_body={"resumable": {"enabled": True, name: name}})
            client.post(WHOLE, {"request": request})
        client.post(WHOLE, {"request": asked("1", extra_body={"resumable": {}})})
        await settle()
        await client.ask("interruptGenerate")
        assert told[0][:2] == ["sessionId", "session_id"]
        assert received[2]["extra_body"] == {"resumable": {}, "request_id": told[0][2]}

    @pytest.mark.parametrize("extra", [5, [], {"request_id": 5}, {"resumable": 5}])
    async def test_an_id_that_is_none_is_refused_by_the_engine(
        self, clients: tuple[Client, Client], extra: object
    ) -> None:
        with pytest.raises(Thrown, match=r"^RequestError: extra_body"):
            await clients[0].ask(WHOLE, content(asked("1", extra_body=extra)))

    @pytest.mark.parametrize("wrong", [5, {}, {"requestIds": "all"}, {"requestIds": [5]}])
    async def test_names_that_cannot_be_read_are_refused(
        self, clients: tuple[Client, Client], wrong: object
    ) -> None:
        with pytest.raises(Thrown, match=r"^RequestError: "):
            await clients[0].ask("interruptGenerate", wrong)


class TestLost:
    """A client is lost when its port is closed."""

    async def begin(self, client: Client) -> None:
        """Begins a stream that nobody pulls, one with a pull that waits, and a whole answer."""
        for stream_id in ("unread", "pulled"):
            await client.open(stream_id, asked("1", **FOREVER))
        client.expect(client.post(WHOLE, content(asked("1", **FOREVER))))
        for _ in range(50):
            client.expect(client.post(PULL, {"streamId": "pulled"}))
        await settle()

    async def test_its_answers_end_after_the_grace(self, number_models: NumberModels) -> None:
        handler = MLCEngineHandler(number_models.engine(CONFIG), grace_s=0.01)
        lost, other = Client(handler), Client(handler)
        await lost.load(options=SHIFT)
        other.options = SHIFT
        await other.open("s", asked("1", ignore_eos=True, max_tokens=200))
        await self.begin(lost)
        await lost.port.close()
        await until(lambda: len(handler._connections) == 1)
        assert await other.read("s") == (counted(2, 201), "length")
        assert num_used(engine_of(handler)) == 0

    async def test_what_it_has_ended_itself_is_not_kept(
        self, clients: tuple[Client, Client], handler: MLCEngineHandler
    ) -> None:
        client, _ = clients
        uuid = client.post(WHOLE, content(asked("1", **FOREVER)))
        for stream_id in ("1", "2"):
            await client.open(stream_id, asked("1", **FOREVER))
        client.post("completionStreamReturn", {"streamId": "1"})
        client.port.post({"kind": "abort", "uuid": "2"})
        client.port.post({"kind": "abort", "uuid": uuid})
        await client.port.close()
        await settle()
        assert num_used(engine_of(handler)) == 0
        assert len(handler._connections) == 1

    async def test_it_comes_back_within_the_grace(
        self, clients: tuple[Client, Client], handler: MLCEngineHandler
    ) -> None:
        lost, _ = clients
        request = asked("1", ignore_eos=True, max_tokens=900, **named("mine"))
        await lost.open("s", request)
        await lost.pull("s")
        await lost.port.close()
        await settle()
        assert num_used(engine_of(handler)) > 0
        back = Client(handler)
        back.options = SHIFT
        await back.open("s", request)
        [connection] = [each for each in handler._connections if each.is_lost]
        await connection.end()  # as after the grace
        assert await back.read("s") == (counted(2, 901), "length")
        assert num_used(engine_of(handler)) == 0

    @pytest.mark.parametrize("how", ["unload", "reload", "close"])
    async def test_what_ends_every_answer_waits_for_no_grace(
        self, clients: tuple[Client, Client], handler: MLCEngineHandler, how: str
    ) -> None:
        lost, other = clients
        await self.begin(lost)
        await lost.port.close()
        await settle()
        if how == "unload":
            await other.ask("unload")
        elif how == "reload":
            await other.load("two")
        else:
            await handler.close()
            assert num_used(engine_of(handler)) == 0
        assert len(handler._connections) == (0 if how == "close" else 1)

    async def test_a_handler_that_was_closed_has_no_port_open(
        self, clients: tuple[Client, Client], handler: MLCEngineHandler
    ) -> None:
        await clients[0].open("s", asked("1", **FOREVER))
        await handler.close()
        await settle()
        assert all(client.port._other is None for client in clients)
        assert engine_of(handler).loaded_model_ids() == ["one"]


class Loader(NumberModels):
    """Loads a model when it is released, and reports half and all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.num_begun = 0
        self.release = asyncio.Event()

    async def load(
        self, record: ModelRecord, options: Any, config: MLCEngineConfig, host: Host
    ) -> LoadedModel:
        self.num_begun += 1
        assert config.init_progress_callback is not None
        config.init_progress_callback(InitProgressReport(0.5, 1.5, "half", Phase.COMPILE, 5, 10))
        await self.release.wait()
        config.init_progress_callback(InitProgressReport(1, 1.5, "all", Phase.COMPILE, 5, 10))
        return await super().load(record, options, config, host)


class TestLoads:
    @pytest.fixture
    def loader(self) -> Loader:
        return Loader()

    @pytest.fixture
    def handler(self, loader: Loader) -> MLCEngineHandler:
        return MLCEngineHandler(MLCEngine(CONFIG, load_model=loader.load), reuse_loaded=True)

    async def test_one_load_serves_all_who_ask(
        self, handler: MLCEngineHandler, loader: Loader
    ) -> None:
        clients = [Client(handler) for _ in range(3)]
        loads = [asyncio.create_task(client.load()) for client in clients[:2]]
        await until(lambda: loader.num_begun == 1)
        loads.append(asyncio.create_task(clients[2].load()))  # sees the last report
        await settle()
        loader.release.set()
        await asyncio.gather(*loads)
        assert [client.progress() for client in clients] == [[0.5, 1]] * 3
        assert len(loader.loaded) == 1
        await clients[0].load()
        assert clients[0].progress() == [0.5, 1, 1]
        assert [client.progress() for client in clients[1:]] == [[0.5, 1]] * 2
        assert len(loader.loaded) == 1

    async def test_a_load_ends_when_nobody_waits_for_it_any_more(
        self, handler: MLCEngineHandler, loader: Loader
    ) -> None:
        clients = [Client(handler) for _ in range(3)]
        content = {"modelId": ["one"]}
        uuids = [client.post("reload", content) for client in clients]
        await until(lambda: loader.num_begun == 1)
        clients[0].port.post({"kind": "abort", "uuid": uuids[0]})
        await clients[1].port.close()
        await settle()
        assert handler._begun_loads
        clients[2].port.post({"kind": "abort", "uuid": uuids[2]})
        await until(lambda: not handler._begun_loads)
        assert engine_of(handler).loaded_model_ids() == []
        assert not loader.loaded
        loader.release.set()
        await clients[0].load()
        assert loader.num_begun == 2

    async def test_a_failed_load_fails_for_all(
        self, handler: MLCEngineHandler, loader: Loader
    ) -> None:
        loader.release.set()
        clients = [Client(handler) for _ in range(2)]
        loads = [each.ask("reload", {"modelId": ["broken.gguf"]}) for each in clients]
        for error in await asyncio.gather(*loads, return_exceptions=True):
            assert isinstance(error, Thrown)
            assert str(error) == "OSError: no such file"

    async def test_unload_stops_the_loads_before_it_for_all(
        self, handler: MLCEngineHandler, loader: Loader
    ) -> None:
        clients = [Client(handler) for _ in range(3)]
        names = ("one", "one", "two")
        loads = [
            asyncio.create_task(client.ask("reload", {"modelId": [name]}))
            for client, name in zip(clients, names, strict=True)
        ]
        await until(lambda: loader.num_begun == 1)
        await clients[0].ask("unload")
        for error in await asyncio.gather(*loads, return_exceptions=True):
            assert str(error).startswith("ModelNotLoadedError: the load of ")
        assert loader.num_begun == 1
        load, unload = clients[0].ask("reload", {"modelId": ["one"]}), clients[0].ask("unload")
        stopped, _ = await asyncio.gather(load, unload, return_exceptions=True)
        assert str(stopped).startswith("ModelNotLoadedError: the load of one was stopped")
        loader.release.set()
        await clients[0].load()

    async def test_loads_of_different_models_take_turns(
        self, handler: MLCEngineHandler, loader: Loader
    ) -> None:
        loader.release.set()
        clients = [Client(handler) for _ in range(3)]
        names = ("one", "two", "one")
        await asyncio.gather(*map(Client.load, clients, names))
        assert [loaded.model_id for loaded in loader.loaded] == ["one", "two", "one"]
        assert engine_of(handler).loaded_model_ids() == ["one"]

    async def test_a_model_that_nobody_knows_replaces_none(
        self, handler: MLCEngineHandler, loader: Loader
    ) -> None:
        loader.release.set()
        client, other = Client(handler), Client(handler)
        await client.load()
        with pytest.raises(Thrown, match="ModelNotFoundError: no model called 'three'"):
            await other.ask("reload", {"modelId": ["three"]})
        assert await client.ask(WHOLE, content(asked("1", max_tokens=1)))


class TestReplaced:
    REPLACED = "ModelReplacedError: one was unloaded and replaced by two.*call reload"

    async def test_answers_under_way_end_with_an_error_that_names_both(
        self, clients: tuple[Client, Client], handler: MLCEngineHandler
    ) -> None:
        ours, theirs = clients
        await ours.open("s", asked("1", **FOREVER))
        await ours.open("finished", asked("1", max_tokens=3))
        await ours.pull("s")
        whole = asyncio.create_task(ours.ask(WHOLE, content(asked("1", **FOREVER))))
        await settle()
        await theirs.load("two")
        with pytest.raises(Thrown, match=self.REPLACED):
            await whole
        with pytest.raises(Thrown, match=self.REPLACED):
            await ours.read("s")
        assert ours.seen[-1]["error"]["code"] == "model_replaced"
        assert await ours.read("finished") == ("2 3 4 ", "length")
        assert not handler._connections[0].streams._by_id

    async def test_its_requests_raise_it_until_the_client_reloads(
        self, clients: tuple[Client, Client], number_models: NumberModels
    ) -> None:
        ours, theirs = clients
        await theirs.load("two")
        request = asked("1", max_tokens=1)
        for _ in range(2):
            with pytest.raises(Thrown, match=self.REPLACED):
                await ours.ask(WHOLE, content(request))
            with pytest.raises(Thrown, match=self.REPLACED):
                await ours.open("s", request)
            with pytest.raises(Thrown, match=self.REPLACED):
                await ours.ask(WHOLE, {"request": request})
        assert await theirs.ask(WHOLE, content(request, "two"))
        assert len(number_models.loaded) == 2
        await ours.load("two")
        assert await ours.ask(WHOLE, content(request, "two"))
        assert len(number_models.loaded) == 2
        await ours.load()
        assert await ours.ask(WHOLE, content(request))
        with pytest.raises(
            Thrown, match="ModelReplacedError: two was unloaded and replaced by one"
        ):
            await theirs.ask(WHOLE, content(request, "two"))

    async def test_other_options_are_another_model(self, clients: tuple[Client, Client]) -> None:
        ours, theirs = clients
        await theirs.load("one", [{"top_p": 0.5}])
        with pytest.raises(Thrown, match=r"one was unloaded with other options, .*call reload"):
            await ours.ask(WHOLE, content(asked("1")))

    async def test_a_client_of_a_restarted_worker_is_not_replaced(
        self, handler: MLCEngineHandler, number_models: NumberModels
    ) -> None:
        ours, theirs = Client(handler), Client(handler)
        await theirs.load("two")
        assert await ours.ask(WHOLE, content(asked("1", max_tokens=1)))  # it has never loaded
        with pytest.raises(Thrown, match="ModelReplacedError: two was unloaded"):
            await theirs.ask(WHOLE, content(asked("1"), "two"))
        await ours.ask("unload")
        assert await ours.ask(WHOLE, content(asked("1", max_tokens=1)))
        assert [each.model_id for each in number_models.loaded] == ["two", "one", "one"]

    async def test_a_request_that_waits_for_a_reload_replaces_nothing(
        self, clients: tuple[Client, Client], handler: MLCEngineHandler
    ) -> None:
        ours, theirs = clients
        loading = theirs.load("two")
        asking = ours.ask(WHOLE, content(asked("1", max_tokens=1)))
        loaded, error = await asyncio.gather(loading, asking, return_exceptions=True)
        assert loaded is None
        assert isinstance(error, Thrown)
        assert str(error).startswith("ModelReplacedError: one was unloaded and replaced by two")
        assert engine_of(handler).loaded_model_ids() == ["two"]

    async def test_an_interrupted_answer_still_ends_with_abort(
        self, clients: tuple[Client, Client]
    ) -> None:
        ours, theirs = clients
        await ours.open("s", asked("1", **FOREVER))
        await ours.ask("interruptGenerate")
        await theirs.load("two")
        assert (await ours.read("s"))[1] == "abort"

    async def test_without_reuse_the_same_model_replaces_none(
        self, number_models: NumberModels
    ) -> None:
        handler = MLCEngineHandler(number_models.engine(CONFIG))
        ours, theirs = Client(handler), Client(handler)
        await ours.load()
        await ours.open("s", asked("1", **FOREVER))
        await theirs.load()
        assert (await ours.read("s"))[1] == "abort"
        assert await ours.ask(WHOLE, content(asked("1", max_tokens=1)))
        assert len(number_models.loaded) == 2


class TestSettings:
    async def test_each_client_has_a_catalogue_of_its_own(
        self, clients: tuple[Client, Client], handler: MLCEngineHandler, number_models: NumberModels
    ) -> None:
        ours, theirs = clients
        record = {"model": "own.gguf", "model_id": "one"}
        ours.post("setAppConfig", {"model_list": [record]})
        request = asked("1", max_tokens=1)
        assert await ours.ask(WHOLE, content(request))  # it holds from the next reload on
        await theirs.load(options=SHIFT)
        assert len(number_models.loaded) == 1
        with pytest.raises(Thrown, match="ModelNotFoundError: no model called 'two'"):
            await ours.ask("reload", {"modelId": ["two"]})
        await ours.load()
        assert len(number_models.loaded) == 2
        with pytest.raises(Thrown, match="ModelReplacedError: one was unloaded with other options"):
            await theirs.ask(WHOLE, content(request))
        await theirs.load("two")
        third = Client(handler)  # has the engine's own
        await third.load("two")
        assert [each.model_id for each in number_models.loaded] == ["one", "one", "two"]


class TestDeletion:
    """A client that has read its answer deletes its session, and may be gone at once."""

    @pytest.fixture
    def storage(self) -> MemoryStorage:
        return MemoryStorage()

    @pytest.fixture
    def handler(self, number_models: NumberModels, storage: MemoryStorage) -> MLCEngineHandler:
        engine = MLCEngine(CONFIG, load_model=number_models.load, journal=Journal(storage))
        return MLCEngineHandler(engine, grace_s=60)

    async def test_it_outlives_the_client(
        self, clients: tuple[Client, Client], storage: MemoryStorage
    ) -> None:
        first, second = clients
        kept = {"extra_body": {"resumable": {"session_id": "s"}}}
        await first.ask(WHOLE, content({**asked("1", max_tokens=2), **kept}))
        first.post("deleteResumableSession", {"sessionId": "s"})
        await first.port.close()
        await until(lambda: not storage.strings)
        assert await second.ask("listResumableSessions") == []
