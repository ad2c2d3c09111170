"""`unload` while models are being loaded: it stops the loads, and waits until nothing is left."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fake_model import asked, is_closed, make_loaded, settle
from fake_worker import Worker
from test_workers_wire import NpmClient, Thrown

from webllm import BlockingMLCEngine, ChatOptions, MLCEngine, MLCEngineConfig, ModelRecord
from webllm.artifacts.progress import ProgressReporter
from webllm.engine.background import to_its_end
from webllm.engine.loaded_model import LoadedModel
from webllm.engine.model_store import delete_model_all_info_in_cache
from webllm.errors import CheckpointError, DeviceError, ModelNotLoadedError, WorkerLostError
from webllm.host import Host
from webllm.workers.handler import MLCEngineHandler
from webllm.workers.port import LoopbackPort
from webllm.workers.process import create_worker_process
from webllm.workers.proxy import WorkerMLCEngine

STOPPED = r"the load of {} was stopped by unload\(\)"


class Resource:
    """A device or a file, of which tests see whether an error still refers to it."""


class Loader:
    """Loads number models; a load of "held…" waits until it is cancelled, then cleans up."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.cleaned: list[str] = []
        self.loaded: list[LoadedModel] = []
        self.resource: weakref.ref[Resource] | None = None  # of the held load
        self.is_held = asyncio.Event()
        self.may_clean = asyncio.Event()
        self.may_clean.set()

    async def load(
        self, record: ModelRecord, options: ChatOptions, config: MLCEngineConfig, host: Host
    ) -> LoadedModel:
        self.begun.append(record.model_id)
        if record.model_id.startswith("held"):
            await self._hold(record.model_id)
        await asyncio.sleep(0)
        self.loaded.append(make_loaded(record.model_id, options, host=host))
        return self.loaded[-1]

    async def _hold(self, model_id: str) -> None:
        resource = Resource()
        self.resource = weakref.ref(resource)
        self.is_held.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await self.may_clean.wait()
            self.cleaned.append(model_id)
            raise


@pytest.fixture
async def loader() -> Loader:
    return Loader()


@pytest.fixture(params=["here", "worker"])
async def engine(request: pytest.FixtureRequest, loader: Loader) -> AsyncIterator[Any]:
    if request.param == "here":
        yield MLCEngine(load_model=loader.load)
    else:
        async with WorkerMLCEngine(Worker(loader.load).port) as proxy:
            yield proxy


async def held(engine: Any, loader: Loader, *model_ids: str) -> asyncio.Task[None]:
    """Begins a load, and waits until it is in the middle of "held.gguf"."""
    loading = asyncio.create_task(engine.reload(model_ids or "held.gguf"))
    await loader.is_held.wait()
    return loading


async def test_the_load_is_stopped(engine: Any, loader: Loader) -> None:
    loading = await held(engine, loader)
    await engine.unload()
    assert loader.cleaned == ["held"]
    with pytest.raises(ModelNotLoadedError, match=STOPPED.format("held.gguf")):
        await loading
    assert engine.loaded_model_ids() == []
    with pytest.raises(ModelNotLoadedError, match="no model is loaded"):
        await engine.chat.completions.create(**asked("1"))


async def test_unload_returns_when_the_load_has_cleaned_up(engine: Any, loader: Loader) -> None:
    loader.may_clean.clear()
    loading = await held(engine, loader)
    unloads = [asyncio.create_task(engine.unload()) for _ in range(2)]  # at the same time
    await settle()
    assert not any(task.done() for task in (loading, *unloads))
    loader.may_clean.set()
    await asyncio.gather(*unloads)
    assert loader.cleaned == ["held"]
    assert isinstance((await asyncio.gather(loading, return_exceptions=True))[0], Exception)


async def test_of_several_reloads_those_called_before_are_stopped(
    engine: Any, loader: Loader
) -> None:
    first = await held(engine, loader)
    second = asyncio.create_task(engine.reload("second.gguf"))
    third = asyncio.create_task(engine.reload(["third.gguf", "fourth.gguf"]))
    await settle()
    unloading = asyncio.create_task(engine.unload())
    await asyncio.sleep(0)
    later = asyncio.create_task(engine.reload("later.gguf"))
    stopped = await asyncio.gather(first, second, third, return_exceptions=True)
    assert [type(error) for error in stopped] == [ModelNotLoadedError] * 3
    assert "second.gguf was stopped" in str(stopped[1])
    assert "third.gguf, fourth.gguf was stopped" in str(stopped[2])
    await asyncio.gather(unloading, later)
    assert loader.begun == ["held", "later"]
    reply = await engine.chat.completions.create(**asked("1", max_tokens=1), model="later")
    assert reply.model == "later"


async def test_models_of_the_same_reload_are_closed(engine: Any, loader: Loader) -> None:
    loading = await held(engine, loader, "a.gguf", "held.gguf", "never.gguf")
    await engine.unload()
    with pytest.raises(ModelNotLoadedError):
        await loading
    assert loader.begun == ["a", "held"]
    assert is_closed(loader.loaded[0])


async def test_cancelling_the_caller_stops_its_load_alone(engine: Any, loader: Loader) -> None:
    first = await held(engine, loader)
    second = asyncio.create_task(engine.reload("second.gguf"))
    await settle()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await second
    assert loader.begun == ["held", "second"]
    assert loader.cleaned == ["held"]


async def test_a_caller_that_is_cancelled_as_well_is_cancelled(engine: Any, loader: Loader) -> None:
    loader.may_clean.clear()
    loading = await held(engine, loader)
    unloading = asyncio.create_task(engine.unload())
    await settle()
    loading.cancel()
    loader.may_clean.set()
    with pytest.raises(asyncio.CancelledError):
        await loading
    await unloading


async def test_a_time_limit_around_a_stopped_reload_is_left_alone(
    engine: Any, loader: Loader
) -> None:
    """Like `unload`, `asyncio.timeout` cancels the task, and counts who did."""

    async def reload() -> None:
        async with asyncio.timeout(60) as limit:
            with pytest.raises(ModelNotLoadedError):
                await engine.reload("held.gguf")
            await asyncio.sleep(0)
        assert not limit.expired()

    loading = asyncio.create_task(reload())
    await loader.is_held.wait()
    await engine.unload()
    await loading
    assert loading.cancelling() == 0


@pytest.mark.parametrize("how", ["returns", "fails"])
async def test_a_load_that_ends_otherwise_is_no_longer_cancelled(how: str) -> None:
    is_held = asyncio.Event()

    async def load(*_: object) -> LoadedModel:
        is_held.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if how == "fails":
                raise DeviceError("the driver failed") from None
        return make_loaded("m")

    engine = MLCEngine(load_model=load)

    async def reload() -> None:
        with pytest.raises(DeviceError if how == "fails" else ModelNotLoadedError):
            await engine.reload("m.gguf")
        await asyncio.sleep(0)

    loading = asyncio.create_task(reload())
    await is_held.wait()
    await engine.unload()
    await loading
    assert loading.cancelling() == 0
    assert engine.loaded_model_ids() == []


async def test_the_error_refers_to_nothing_of_the_load(loader: Loader) -> None:
    """An error may be kept; the file and the device may not."""
    engine = MLCEngine(load_model=loader.load)
    loading = await held(engine, loader)
    await engine.unload()
    with pytest.raises(ModelNotLoadedError) as caught:
        await loading
    gc.collect()
    assert loader.resource is not None
    assert loader.resource() is None
    assert caught.value.__context__ is None


async def test_a_stopped_reload_closes_what_was_loaded_before(loader: Loader) -> None:
    """It is stopped while it waits for the steps in flight of the model that it replaces."""
    engine = MLCEngine(load_model=loader.load)
    await engine.reload("a.gguf")
    (model,) = loader.loaded
    may_close, is_closing = asyncio.Event(), asyncio.Event()
    close_runner = model.loop.runner.close

    async def close() -> None:
        is_closing.set()
        await may_close.wait()
        await close_runner()

    model.loop.runner.close = close  # type: ignore[method-assign]
    loading = asyncio.create_task(engine.reload("b.gguf"))
    await is_closing.wait()
    unloading = asyncio.create_task(engine.unload())
    await settle()
    loading.cancel()  # as well
    await settle()
    assert not loading.done()
    assert not unloading.done()
    may_close.set()
    await unloading
    assert is_closed(model)
    assert loader.begun == ["a"]


async def test_leaving_the_block_of_an_engine_stops_its_load(loader: Loader) -> None:
    async with MLCEngine(load_model=loader.load) as engine:
        loading = await held(engine, loader)
    with pytest.raises(ModelNotLoadedError):
        await loading


class TestWorkers:
    @pytest.fixture
    def npm(self, loader: Loader) -> NpmClient:
        return NpmClient(MLCEngineHandler(MLCEngine(load_model=loader.load)))

    async def test_the_npm_client(self, npm: NpmClient, loader: Loader) -> None:
        """Its reload is rejected; WebLLM's own would resolve with nothing loaded."""
        loading = asyncio.create_task(npm.ask("reload", {"modelId": ["held.gguf"]}))
        await loader.is_held.wait()
        await npm.ask("unload")
        with pytest.raises(Thrown, match="ModelNotLoadedError: " + STOPPED.format("held.gguf")):
            await loading

    async def test_messages_of_one_moment_keep_their_order(
        self, npm: NpmClient, loader: Loader
    ) -> None:
        asks = [
            npm.ask("reload", {"modelId": ["a.gguf"]}),
            npm.ask("unload"),
            npm.ask("reload", {"modelId": ["b.gguf"]}),
        ]
        first, *others = await asyncio.gather(*asks, return_exceptions=True)
        assert isinstance(first, Thrown)
        assert others == [None, None]
        assert [loaded.model_id for loaded in loader.loaded][-1] == "b"

    async def test_a_request_that_loads_its_model_is_stopped(
        self, npm: NpmClient, loader: Loader
    ) -> None:
        """A restarted worker loads the model that the client's request names."""
        content = {"request": asked("1"), "modelId": ["held.gguf"], "chatOpts": None}
        asking = asyncio.create_task(npm.ask("chatCompletionNonStreaming", content))
        await loader.is_held.wait()
        await npm.ask("unload")
        with pytest.raises(Thrown, match=STOPPED.format("held.gguf")):
            await asking

    async def test_another_client_unloads(self, loader: Loader) -> None:
        worker = Worker(loader.load)
        ours, theirs = LoopbackPort.pair()
        worker.handler.serve(theirs)
        one, other = WorkerMLCEngine(worker.port), WorkerMLCEngine(ours)
        loading = await held(one, loader)
        await other.unload()
        with pytest.raises(ModelNotLoadedError):
            await loading

    async def test_a_worker_that_is_being_replaced(self, loader: Loader) -> None:
        """The reload that replaces it is posted before the unload, which stops it."""
        may_open = asyncio.Event()

        async def open_port() -> LoopbackPort:
            await may_open.wait()
            return Worker(loader.load).port

        engine = WorkerMLCEngine(Worker(loader.load).port, open_port=open_port)
        await engine._client.port.close()
        with pytest.raises(WorkerLostError):
            await engine.unload()
        loading = asyncio.create_task(engine.reload("held.gguf"))
        await settle()
        unloading = asyncio.create_task(engine.unload())
        await settle()
        may_open.set()
        with pytest.raises(ModelNotLoadedError):
            await loading
        await unloading

    async def test_a_load_that_ends_as_unload_is_called(self, loader: Loader) -> None:
        """The reload returns. Later requests expect no model, which a worker would load again."""
        engine = WorkerMLCEngine(Worker(loader.load).port)
        loading = asyncio.create_task(engine.reload("a.gguf"))
        while not loader.loaded:
            await asyncio.sleep(0)
        await asyncio.gather(loading, engine.unload(), return_exceptions=True)
        assert engine.loaded_model_ids() == []

    async def test_a_process(self) -> None:
        is_loading = asyncio.Event()
        async with await create_worker_process(engine_factory="worker_engines:numbers") as engine:
            loading = asyncio.create_task(
                engine.reload("waits.gguf", on_progress=lambda _: is_loading.set())
            )
            await is_loading.wait()
            await engine.unload()
            with pytest.raises(ModelNotLoadedError, match=STOPPED.format("waits.gguf")):
                await loading
            await engine.reload("numbers.gguf")


def test_another_thread_unloads_a_blocking_engine() -> None:
    is_held = threading.Event()

    async def load(*_: object) -> LoadedModel:
        is_held.set()
        await asyncio.Event().wait()
        raise AssertionError

    with (
        BlockingMLCEngine(engine=MLCEngine(load_model=load)) as engine,
        ThreadPoolExecutor(1) as pool,
    ):
        for end in (engine.unload, engine.close):
            is_held.clear()
            loading = pool.submit(engine.reload, "m.gguf")
            is_held.wait()
            end()
            with pytest.raises(ModelNotLoadedError, match=STOPPED.format("m.gguf")):
                loading.result()


class TestDownload:
    """A real download over a connection that stalls after `FIRST_BYTES`."""

    SIZE, FIRST_BYTES = 10 << 20, 6 << 20

    @pytest.fixture
    async def url(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
        monkeypatch.setenv("WEBLLM_HOME", str(tmp_path))
        # Every chunk is reported, so that the last one before the stall is.
        defaults = ProgressReporter.__init__.__kwdefaults__
        assert defaults is not None
        monkeypatch.setitem(defaults, "interval_s", 0.0)
        self.ranges: list[int] = []  # the first byte that each request asks for
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            yield f"http://127.0.0.1:{port}/m.gguf"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        start = int(head.partition("range: bytes=")[2].partition("-")[0] or 0)
        self.ranges.append(start)
        status = "206 Partial Content" if start else "200 OK"
        writer.write(
            f'HTTP/1.1 {status}\r\nETag: "v1"\r\nContent-Length: {self.SIZE - start}\r\n'
            f"Content-Range: bytes {start}-{self.SIZE - 1}/{self.SIZE}\r\n\r\n".encode()
        )
        is_first = len(self.ranges) == 1
        writer.write(bytes((self.FIRST_BYTES if is_first else self.SIZE) - start))
        await writer.drain()
        if is_first:
            await reader.read()  # until the client hangs up
        writer.close()

    async def test_it_stops_and_can_be_resumed(self, url: str) -> None:
        has_stalled = asyncio.Event()
        engine = MLCEngine(MLCEngineConfig(device="cpu"))
        loading = asyncio.create_task(
            engine.reload(
                url,
                on_progress=lambda report: (
                    has_stalled.set() if report.loaded_bytes == self.FIRST_BYTES else None
                ),
            )
        )
        await has_stalled.wait()
        await engine.unload()
        with pytest.raises(ModelNotLoadedError, match="the bytes fetched so far are kept"):
            await loading
        with pytest.raises(CheckpointError):  # it is all zeros
            await engine.reload(url)
        assert self.ranges[0] == 0
        assert 4 << 20 <= self.ranges[1] <= self.FIRST_BYTES

    async def test_the_file_is_free(self, url: str) -> None:
        has_stalled = asyncio.Event()
        engine = MLCEngine(MLCEngineConfig(device="cpu"))
        loading = asyncio.create_task(
            engine.reload(url, on_progress=lambda report: has_stalled.set())
        )
        await has_stalled.wait()
        await engine.unload()
        await delete_model_all_info_in_cache(url)  # refused while a download holds the lock
        with pytest.raises(ModelNotLoadedError):
            await loading


class TestToItsEnd:
    @pytest.mark.parametrize("fails", [False, True])
    async def test_cancelled_more_than_once(self, fails: bool) -> None:
        may_end, ended = asyncio.Event(), list[bool]()

        async def clean_up() -> None:
            await may_end.wait()
            ended.append(True)
            if fails:
                raise OSError

        task = asyncio.create_task(to_its_end(clean_up()))
        for _ in range(3):
            await settle()
            task.cancel()
        await settle()
        assert not task.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended

    async def test_an_error(self) -> None:
        async def clean_up() -> None:
            raise OSError("no")

        with pytest.raises(OSError, match="no"):
            await to_its_end(clean_up())
