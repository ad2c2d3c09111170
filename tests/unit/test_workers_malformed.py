"""Invalid messages on a port: a call fails, or the channel ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_child import NONSENSE
from fake_model import asked, counted, settle
from fake_worker import FOREVER, Worker
from test_workers_process import is_alive, pid_of, until

from webllm import AppConfig, MLCEngineConfig, ModelRecord
from webllm.artifacts.progress import InitProgressReport
from webllm.errors import ConfigError, RequestError, WebLLMError, WorkerLostError
from webllm.workers import frames
from webllm.workers.frames import FrameReader, frame
from webllm.workers.messages import Return
from webllm.workers.port import LoopbackPort
from webllm.workers.process import create_worker_process
from webllm.workers.proxy import WorkerMLCEngine
from webllm.workers.start import Start

HERE = Path(__file__).parent
NUM_SETTINGS = 2  # hello and the catalogue


async def ends_within(seconds: float, *calls: Any) -> list[BaseException]:
    async with asyncio.timeout(seconds):
        errors: list[BaseException] = await asyncio.gather(*calls, return_exceptions=True)
        return errors


# From a process to its parent


@pytest.mark.parametrize("name", NONSENSE)
async def test_a_process_that_says_nonsense_is_lost_and_ends(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child"
    calls = 2
    command = f"'{sys.executable}' '{HERE / 'fake_child.py'}' '{name}' {NUM_SETTINGS + calls}"
    child.write_text(f"#!/bin/sh\nexec {command}\n")
    child.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(child))
    engine = await create_worker_process(engine_factory="any:any")
    pid = pid_of(engine)
    results = await ends_within(30, engine.get_message(), engine.reload("m"))
    assert [type(each) for each in results] == [WorkerLostError] * calls
    with pytest.raises(WorkerLostError):
        await engine.get_message()
    await until(lambda: not is_alive(pid))
    await engine.close()


async def test_what_came_before_the_nonsense_is_received() -> None:
    reader = FrameReader()
    received = reader.feed(frame({"n": 1}) + NONSENSE["no msgpack"] + frame({"n": 2}))
    assert next(received) == {"n": 1}
    with pytest.raises(WorkerLostError, match="no message"):
        next(received)
    assert list(reader.feed(frame({"n": 3}))) == []


# From a parent to its process

BOOT = """
import sys
from webllm.workers import worker_process
worker_process._GRACE_S = 0.1
worker_process.main()
"""


@contextmanager
def started(engine_factory: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process whose standard streams are pipes; killed at the end."""
    settings = {
        "device": "cpu",
        "num_threads": 1,
        "kv_cache_tokens": None,
        "max_waiting_sequences": 1,
    }
    start = Start(uuid="s", engine_factory=engine_factory, settings=settings)
    child = subprocess.Popen(
        [sys.executable, "-c", BOOT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert child.stdin
    child.stdin.write(frame(start))
    child.stdin.flush()
    with child:
        try:
            yield child
        finally:
            child.kill()


@pytest.mark.parametrize("name", ["a length of 4 GiB", "no msgpack", "no map", "nested too deep"])
def test_a_parent_that_says_nonsense_ends_its_process(name: str) -> None:
    with started("worker_engines:numbers") as child:
        assert child.stdin
        assert child.stdout
        assert child.stdout.read(4 + len(frame(Return(uuid="s"))[4:]))
        child.stdin.write(NONSENSE[name])
        child.stdin.flush()
        assert child.wait(timeout=30) == 1
        assert child.stderr
        assert b"no message" in child.stderr.read()


def test_a_process_whose_factory_is_stuck_ends_with_its_parent() -> None:
    with started("worker_engines:sleeps") as child:
        assert child.stderr
        assert child.stderr.readline() == b"asleep\n"
        assert child.stdin
        child.stdin.close()
        assert child.wait(timeout=30) == 1


def test_a_parent_may_go_before_it_says_anything() -> None:
    child = subprocess.run([sys.executable, "-c", BOOT], stdin=subprocess.DEVNULL, timeout=30)
    assert child.returncode == 0


async def test_messages_that_are_too_long_are_refused_where_they_are_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = MLCEngineConfig(app_config=AppConfig(model_list=()))  # WebLLM's list is a long message
    engine = await create_worker_process(None, config, engine_factory="worker_engines:short_frames")
    async with engine:
        await engine.reload("numbers.gguf")
        with pytest.raises(RequestError, match=r"message of \d+ bytes is too long"):
            await engine.completions.create(prompt="1", max_tokens=200, n=8)
        monkeypatch.setattr(frames, "MAX_BYTES", 1000)
        with pytest.raises(RequestError, match=r"message of \d+ bytes .* at most 1000"):
            await engine.completions.create(prompt="1 " * 1000)
        reply = await engine.completions.create(prompt="1", max_tokens=3)
        assert reply.choices[0].text == counted(2, 4)


async def test_errors_whose_text_is_no_text_cross() -> None:
    engine = await create_worker_process(engine_factory="worker_engines:numbers")
    async with engine:
        with pytest.raises(WebLLMError, match=r"no file .*udcff"):
            await engine.reload("unwritable.gguf")


# Through any port


class Nonsense:
    """A worker whose replies, except to a hello, are made by a function."""

    def __init__(self, answer: Callable[[dict[str, Any]], object]) -> None:
        self.kinds: list[str] = []
        self.answer = answer
        self.port, self.theirs = LoopbackPort.pair()
        self.is_closed = False
        self.theirs.listen(self._receive, self._close)

    def _receive(self, message: dict[str, Any]) -> None:
        self.kinds.append(message["kind"])
        if message["kind"] == "hello":
            self.theirs.post(Return(uuid=message["uuid"], content={"protocol": 2}))
        elif message["kind"] != "abort":
            self.theirs.post(self.answer(message))

    def _close(self, _reason: str) -> None:
        self.is_closed = True


@pytest.mark.parametrize(
    "answer",
    [
        lambda uuid: {"kind": "return", "uuid": uuid, "content": 5},
        lambda uuid: {"kind": "return", "uuid": uuid, "content": [["x"]]},
        lambda uuid: {"kind": "return", "uuid": uuid},
        lambda uuid: {"kind": "throw", "uuid": uuid, "content": {"no": "text"}},
        lambda uuid: {"kind": "throw", "uuid": uuid, "content": "x", "error": {"name": 5}},
        lambda uuid: {"kind": "returned", "uuid": uuid},
        lambda uuid: {"kind": 7, "uuid": uuid},
    ],
)
async def test_an_answer_that_cannot_be_read_fails_its_call(
    answer: Callable[[str], object],
) -> None:
    worker = Nonsense(lambda message: answer(message["uuid"]))
    engine = WorkerMLCEngine(worker.port)
    for call in (engine.get_message(), engine.completions.create(prompt="1")):
        [error] = await ends_within(5, call)
        assert isinstance(error, WebLLMError)
        assert not isinstance(error, WorkerLostError)
        assert "cannot be read" in str(error)
    assert not worker.is_closed


@pytest.mark.parametrize("uuid", [5, None, ["u"]])
@pytest.mark.parametrize("kind", ["return", "throw"])
async def test_an_answer_of_nobody_loses_the_worker(kind: str, uuid: object) -> None:
    worker = Nonsense(lambda _: {"kind": kind, "uuid": uuid, "content": "x"})
    engine = WorkerMLCEngine(worker.port)
    errors = await ends_within(5, engine.get_message(), engine.runtime_stats_text())
    assert [type(error) for error in errors] == [WorkerLostError] * 2
    await settle()
    assert worker.is_closed


async def test_messages_of_other_protocols_are_skipped() -> None:
    def answer(message: dict[str, Any]) -> object:
        for other in ("text", 5, None, [1], {"type": "x"}, {"kind": "x", "uuid": 5}, {"kind": [1]}):
            worker.theirs.post(other)
        return {"kind": "return", "uuid": message["uuid"], "content": "said"}

    worker = Nonsense(answer)
    assert await WorkerMLCEngine(worker.port).get_message() == "said"


async def test_a_chunk_that_cannot_be_read_ends_the_stream_on_both_sides() -> None:
    def answer(message: dict[str, Any]) -> object:
        is_pull = message["kind"].endswith("NextChunk")
        content = {"choices": [{"finish_reason": "bored"}]} if is_pull else None
        return {"kind": "return", "uuid": message["uuid"], "content": content}

    worker = Nonsense(answer)
    engine = WorkerMLCEngine(worker.port)
    stream = await engine.completions.create(prompt="1", stream=True)
    with pytest.raises(WebLLMError, match="cannot be read"):
        await anext(stream)
    await settle()
    assert worker.kinds[-1] == "abort"


@pytest.mark.parametrize("content", [{"protocol": "new"}, {}, 5, None])
async def test_a_hello_that_is_answered_strangely_is_a_worker_of_webllms(content: object) -> None:
    port, theirs = LoopbackPort.pair()

    def answer(message: dict[str, Any]) -> None:
        content_ = content if message["kind"] == "hello" else "said"
        theirs.post({"kind": "return", "uuid": message["uuid"], "content": content_})

    theirs.listen(answer, lambda reason: None)
    engine = WorkerMLCEngine(port)
    assert await engine.get_message() == "said"
    assert await engine.device_name() == ""


# Progress and settings


@pytest.mark.parametrize("phase", ["dream", "", None])
async def test_progress_of_workers_of_other_versions(phase: str | None) -> None:
    def answer(message: dict[str, Any]) -> object:
        progress = {"progress": 0.5, "timeElapsed": 1, "text": "half", "phase": phase}
        report = {"kind": "initProgressCallback", "uuid": message["uuid"]}
        worker.theirs.post({**report, "content": progress})
        worker.theirs.post({**report, "content": {**progress, "progress": None, "phase": 5}})
        return {"kind": "return", "uuid": message["uuid"], "content": None}

    worker = Nonsense(answer)
    reports: list[InitProgressReport] = []
    engine = WorkerMLCEngine(worker.port)
    engine.set_init_progress_callback(reports.append)
    await engine.reload("m")
    assert [(report.text, report.progress) for report in reports] == [("half", 0.5)]


async def test_a_progress_callback_that_raises_fails_the_load() -> None:
    """It fails as without a worker, and the worker has no model loaded."""
    worker = Worker()

    def refuse(_: InitProgressReport) -> None:
        raise LookupError("of the caller's own")

    async def reload(*_: object, on_progress: Any) -> None:
        on_progress(_report)
        await asyncio.Event().wait()

    from webllm.artifacts.progress import Phase

    _report = InitProgressReport(0.5, 1.0, "half", Phase.FETCH)
    worker.engine.reload = reload  # type: ignore[method-assign, assignment]
    engine = WorkerMLCEngine(worker.port)
    engine.set_init_progress_callback(refuse)
    with pytest.raises(LookupError, match="own"):
        await asyncio.wait_for(engine.reload("numbers.gguf"), 5)
    await settle()
    assert not worker.handler._connections[0]._tasks


BAD = AppConfig(model_list=(ModelRecord(model="bad.gguf", model_id="bad"),))
GOOD = AppConfig(model_list=(ModelRecord(model="x.gguf", model_id="x"),))


@pytest.fixture
def picky() -> Worker:
    """A worker that refuses one catalogue."""
    worker = Worker()
    take = worker.engine.set_app_config

    def set_app_config(app_config: AppConfig) -> None:
        if app_config == BAD:
            raise ConfigError("bad is not to be had")
        take(app_config)

    worker.engine.set_app_config = set_app_config  # type: ignore[method-assign]
    return worker


@pytest.mark.parametrize("waits", [False, True])
async def test_a_refused_setting_fails_the_reload(picky: Worker, waits: bool) -> None:
    engine = WorkerMLCEngine(picky.port, MLCEngineConfig(app_config=BAD))
    if waits:
        await settle()  # the refusal comes before the reload is asked for
    for _ in range(2):
        with pytest.raises(ConfigError, match="bad is not to be had"):
            await engine.reload("numbers.gguf")
    await settle()
    assert picky.engine.loaded_model_ids() == []
    engine.set_app_config(GOOD)
    await engine.reload("x")
    assert picky.engine.loaded_model_ids() == ["x"]


async def test_a_malformed_setting_fails_the_reload() -> None:
    engine = WorkerMLCEngine(Worker().port)
    engine.set_app_config({"modls": []})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown field 'modls'; did you mean models"):
        await engine.reload("numbers.gguf")
    engine.set_app_config(GOOD)
    await engine.reload("x")
    assert (await engine.chat.completions.create(**asked("1", max_tokens=1))).choices


async def test_deep_nesting_is_refused() -> None:
    engine = WorkerMLCEngine(Worker().port)
    await engine.reload("numbers.gguf")
    nested: Any = []
    for _ in range(100_000):
        nested = [nested]
    for call in (
        engine.custom_request("x", nested),
        engine.completions.create(prompt=nested, **FOREVER),
    ):
        with pytest.raises(RequestError, match="plain data"):
            await call
