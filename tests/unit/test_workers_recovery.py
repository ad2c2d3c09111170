"""Engines that survive their workers: what they send again, and what they give up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_model import NumberModels, asked, counted, number_models, settle
from fake_worker import FOREVER, SHIFT, Worker, read

from webllm import MLCEngine
from webllm.api.chat_completion import ChatCompletionChunk, ChunkChoice, Delta, FinishReason
from webllm.errors import ConfigError, ModelNotFoundError, ModelNotLoadedError, WorkerLostError
from webllm.workers.handler import MLCEngineHandler
from webllm.workers.port import LoopbackPort, Port
from webllm.workers.proxy import Recovery, WorkerMLCEngine
from webllm.workers.resumption import MAX_LOSSES, Losses, Resumption

__all__ = ["number_models"]  # a fixture


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WEBLLM_HOME", str(tmp_path))


Answer = Callable[[dict[str, Any]], object]
LOST = object()  # ends the worker


class Script:
    """Workers in this event loop, each made from one function: message to content, or LOST."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.seen: list[dict[str, Any]] = []

    async def open_port(self) -> Port:
        await asyncio.sleep(0)
        ours, theirs = LoopbackPort.pair()
        answer = self._answers.pop(0)

        def receive(message: dict[str, Any]) -> None:
            self.seen.append(message)
            content = {"protocol": 3} if message["kind"] == "hello" else answer(message)
            if content is LOST:
                asyncio.get_running_loop().create_task(theirs.close())
            elif message["kind"] != "keepAlive":
                theirs.post({"kind": "return", "uuid": message["uuid"], "content": content})

        theirs.listen(receive, lambda reason: None)
        return ours

    async def engine(self, recovery: Recovery | None = None) -> WorkerMLCEngine:
        port = await self.open_port()
        recovery = recovery or Recovery()
        return WorkerMLCEngine(port, open_port=self.open_port, recovery=recovery)

    @property
    def kinds(self) -> list[str]:
        return [message["kind"] for message in self.seen]

    def extras(self, kind: str) -> list[Any]:
        """Returns each request's `extra_body`."""
        return [
            message["content"]["request"].get("extra_body")
            for message in self.seen
            if message["kind"] == kind
        ]


def streaming(*chunks: object) -> Answer:
    """Answers each pull with the next chunk, and everything else with nothing."""
    left = list(chunks)
    return lambda message: left.pop(0) if message["kind"].endswith("NextChunk") else None


def text(text: str, *token_ids: int, finish_reason: FinishReason | None = None) -> dict[str, Any]:
    choice = {"index": 0, "text": text, "logprobs": None, "token_ids": list(token_ids)}
    choice["finish_reason"] = finish_reason
    chunk = {"id": "1", "created": 1, "model": "m", "object": "text_completion"}
    return {**chunk, "choices": [choice]}


async def test_a_stream_goes_on_with_the_tokens_that_it_lacks() -> None:
    script = Script(
        streaming(text("a", 1, 2), text("b", 3), LOST),
        streaming(LOST),
        streaming(text("c", 4, finish_reason="stop"), None),
    )
    engine = await script.engine()
    stream = await engine.completions.create(prompt="p", stream=True)
    chunks = [chunk async for chunk in stream]
    assert [chunk.choices[0].text for chunk in chunks] == ["a", "b", "c"]
    assert [chunk.choices[0].token_ids for chunk in chunks] == [None] * 3
    await settle()
    extras = script.extras("completionStreamInit")
    session_id = extras[0]["resumable"]["session_id"]
    kept = {"enabled": True, "session_id": session_id}
    assert extras == [
        {"return_token_ids": True, "resumable": kept},
        {"return_token_ids": True, "resumable": kept | {"from_token": [3]}},
        {"return_token_ids": True, "resumable": kept | {"from_token": [3]}},
    ]
    assert script.seen[-1]["kind"] == "deleteResumableSession"
    assert script.seen[-1]["content"] == {"sessionId": session_id}


async def test_a_deletion_that_its_worker_did_not_come_to_is_the_next_ones() -> None:
    def lost_by_a_deletion(message: dict[str, Any]) -> object:
        return LOST if message["kind"] == "deleteResumableSession" else None

    script = Script(lost_by_a_deletion, lambda _: [])
    async with await script.engine() as engine:
        stream: Any = await engine.completions.create(prompt="x", stream=True)
        await stream.aclose()
        await settle()
        assert await engine.list_resumable_sessions() == []  # of the next worker
        await settle()
        deletions = [each for each in script.seen if each["kind"] == "deleteResumableSession"]
    assert len(deletions) == 2
    assert deletions[0]["content"] == deletions[1]["content"]


async def test_a_stream_that_is_left_deletes_its_session_too() -> None:
    script = Script(streaming(text("a", 1)))
    engine = await script.engine()
    stream = await engine.completions.create(prompt="p", stream=True)
    await anext(stream)
    await stream.aclose()
    await settle()
    assert script.kinds[-2:] == ["abort", "deleteResumableSession"]


async def test_a_whole_answer_is_asked_for_again() -> None:
    whole = text("abc", finish_reason="stop")
    script = Script(lambda _: LOST, lambda _: LOST, lambda _: whole)
    reply = await (await script.engine()).completions.create(prompt="p", seed=3)
    assert reply.choices[0].text == "abc"
    await settle()
    first, *others = script.extras("completionNonStreaming")
    assert others == [first, first]
    assert first.keys() == {"resumable"}
    assert script.kinds[-1] == "deleteResumableSession"


@pytest.mark.parametrize(
    ("persist", "resumable"),
    [(False, None), (True, {"enabled": False}), (True, 5)],
)
async def test_what_is_not_kept_is_lost(persist: bool, resumable: object) -> None:
    script = Script(streaming(text("a", 1), LOST), lambda _: LOST)
    engine = await script.engine(Recovery(persist=persist))
    extra = {} if resumable is None else {"extra_body": {"resumable": resumable}}
    stream = await engine.completion({"prompt": "p", "stream": True, **extra})
    with pytest.raises(WorkerLostError):
        await read(stream)
    with pytest.raises(WorkerLostError):
        await engine.completion({"prompt": "p", **extra})
    assert script.extras("completionStreamInit") == [extra.get("extra_body")]
    assert "deleteResumableSession" not in script.kinds


async def test_a_request_is_given_up_after_some_workers() -> None:
    script = Script(*[lambda _: LOST] * MAX_LOSSES, lambda _: text("abc", finish_reason="stop"))
    engine = await script.engine()
    with pytest.raises(WorkerLostError, match=r"5 workers in a row .* change it before you send"):
        await engine.completions.create(prompt="p")
    assert (await engine.completions.create(prompt="p")).choices[0].text == "abc"


async def test_tokens_count_as_progress() -> None:
    one_each = [streaming(text(str(i), i), LOST) for i in range(9)]
    script = Script(*one_each, streaming(text("!", 9, finish_reason="stop"), None))
    stream = await (await script.engine()).completions.create(prompt="p", stream=True)
    assert [chunk.choices[0].text async for chunk in stream] == [*"012345678!"]
    assert len(script.extras("completionStreamInit")) == 10


async def test_a_stream_without_tokens_is_given_up_too() -> None:
    progress = {"total": 9, "cache": 0, "processed": 5, "time_ms": 1}
    read_some = {**text(""), "choices": [], "prompt_progress": progress}
    script = Script(*[streaming(read_some, text("p"), LOST) for _ in range(MAX_LOSSES)])
    stream = await (await script.engine()).completions.create(prompt="p", stream=True)
    told = [await anext(stream) for _ in range(MAX_LOSSES + 1)]  # the echo comes once
    assert [chunk.prompt_progress is None for chunk in told] == [False, True, *[False] * 4]
    with pytest.raises(WorkerLostError, match="without a new token"):
        await anext(stream)


async def test_what_has_ended_is_not_asked_for_again() -> None:
    script = Script(streaming(text("a", 1, finish_reason="stop"), LOST))
    stream = await (await script.engine()).completions.create(prompt="p", stream=True)
    assert len([chunk async for chunk in stream]) == 1


async def test_all_calls_wait_for_one_recovery() -> None:
    def lose(message: dict[str, Any]) -> object:
        return None if message["kind"] in ("reload", "completionStreamInit") else LOST

    script = Script(lose, lambda _: text("abc", finish_reason="stop"))
    engine = await script.engine()
    await engine.reload("m.gguf", SHIFT)
    stream = await engine.completions.create(prompt="p", stream=True)
    answers = [engine.completions.create(prompt="p") for _ in range(5)]
    *replies, chunk = await asyncio.gather(*answers, anext(stream))
    assert [reply.choices[0].text for reply in [*replies, chunk]] == ["abc"] * 6
    assert script.kinds.count("hello") == 2
    first, again = (message for message in script.seen if message["kind"] == "reload")
    assert first["content"] == again["content"]


async def test_the_next_call_recovers_too(number_models: NumberModels) -> None:
    workers: list[Worker] = []

    async def open_port() -> Port:
        for lost in workers:
            await lost.end()
        workers.append(Worker(number_models.load))
        return workers[-1].port

    engine = WorkerMLCEngine(await open_port(), open_port=open_port, recovery=Recovery())
    await engine.reload("numbers.gguf", SHIFT)
    for num_before in (1, 2):
        await engine._client.port.close()
        answers = (engine.device_name(), engine.completions.create(prompt="1", max_tokens=1))
        device, reply = await asyncio.gather(*answers)
        assert (device, reply.choices[0].text) == ("fake", "2 ")
        assert len(workers) == len(number_models.loaded) == num_before + 1
    await engine._client.port.close()
    await engine.unload()
    assert len(workers) == 3


async def test_a_recovery_that_fails_fails_all_who_wait(number_models: NumberModels) -> None:
    worker = Worker(number_models.load)

    async def open_port() -> Port:
        raise ConfigError("there is no other")

    engine = WorkerMLCEngine(worker.port, open_port=open_port, recovery=Recovery())
    await engine.reload("numbers.gguf", SHIFT)
    stream = await engine.completions.create(prompt="1", stream=True, **FOREVER)
    answers: list[asyncio.Task[Any]] = [asyncio.create_task(read(stream))]
    answers += [asyncio.create_task(engine.chat_completion(asked("1", **FOREVER)))]
    await settle()
    await worker.port.close()
    for result in await asyncio.gather(*answers, return_exceptions=True):
        assert isinstance(result, ConfigError)
    with pytest.raises(ConfigError):
        await engine.get_message()
    await worker.handler.close()
    await worker.engine.unload()


async def test_a_load_that_fails_in_a_recovery_says_so(number_models: NumberModels) -> None:
    workers = [Worker(number_models.load)]

    async def open_port() -> Port:
        workers.append(Worker(number_models.load))
        workers[-1].engine._load_model = refuse
        return workers[-1].port

    async def refuse(*_: object) -> Any:
        raise ModelNotFoundError("it was deleted")

    engine = WorkerMLCEngine(workers[0].port, open_port=open_port, recovery=Recovery())
    await engine.reload("numbers.gguf", SHIFT)
    await workers[0].port.close()
    with pytest.raises(ModelNotFoundError, match="deleted"):
        await engine.completions.create(prompt="1")


async def test_the_next_worker_draws_with_the_same_seed() -> None:
    script = Script(streaming(text("a", 1), LOST), streaming(text("b", 2), None))
    stream = await (await script.engine()).completions.create(prompt="p", stream=True)
    await read(stream)
    seeds = [
        message["content"]["request"].get("seed")
        for message in script.seen
        if message["kind"] == "completionStreamInit"
    ]
    assert isinstance(seeds[0], int)
    assert seeds == seeds[:1] * 2
    given = {"extra_body": {"resumable": {"session_id": "mine"}}}
    assert "seed" not in resumption(**given).request()  # the request under this id may have none
    assert resumption(seed=0).request()["seed"] == 0


async def test_a_client_that_comes_back_leaves_no_session(number_models: NumberModels) -> None:
    engine_in_worker = MLCEngine(load_model=number_models.load)
    handler = MLCEngineHandler(engine_in_worker, reuse_loaded=True, grace_s=60)

    async def open_port() -> Port:
        ours, theirs = LoopbackPort.pair()
        handler.serve(theirs)
        return ours

    engine = WorkerMLCEngine(await open_port(), open_port=open_port, recovery=Recovery())
    await engine.reload("numbers.gguf", SHIFT)
    stream = await engine.completions.create(
        prompt="1", stream=True, ignore_eos=True, max_tokens=300
    )
    texts = [(await anext(stream)).choices[0].text]
    await engine._client.port.close()  # as after a while without heartbeats
    texts += [chunk.choices[0].text async for chunk in stream]
    assert "".join(texts) == counted(2, 301)
    async with asyncio.timeout(30):
        while await engine.list_resumable_sessions():
            await asyncio.sleep(0)
    assert sum(connection.is_lost for connection in handler._connections) == 1  # in its grace
    await engine.close()
    await handler.close()
    await handler.engine.unload()


async def test_an_answer_that_ends_without_a_worker_leaves_no_session() -> None:
    ended = text("a", 1, finish_reason="stop")
    script = Script(
        streaming(ended, LOST), lambda message: "" if "Message" in message["kind"] else None
    )
    engine = await script.engine()
    await read(await engine.completions.create(prompt="p", stream=True))
    await engine.get_message()
    ids = [extra["resumable"]["session_id"] for extra in script.extras("completionStreamInit")]
    assert [
        message["content"]["sessionId"]
        for message in script.seen
        if message["kind"] == "deleteResumableSession"
    ] == ids


async def test_a_request_that_is_cancelled_in_a_recovery_leaves_no_session() -> None:
    script = Script(lambda _: LOST, lambda _: text("abc", finish_reason="stop"))
    engine = await script.engine()
    is_opening, may_open = asyncio.Event(), asyncio.Event()
    open_port = engine._open_port
    assert open_port is not None

    async def open_later() -> Port:
        is_opening.set()
        await may_open.wait()
        return await open_port()

    engine._open_port = open_later
    answer = asyncio.create_task(engine.completions.create(prompt="p"))
    await is_opening.wait()
    answer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answer
    may_open.set()
    async with asyncio.timeout(30):
        while "deleteResumableSession" not in script.kinds:
            await asyncio.sleep(0)
    assert script.kinds.count("completionNonStreaming") == 1


async def test_unloading_stops_the_load_of_a_recovery(number_models: NumberModels) -> None:
    worker = Worker(number_models.load)
    is_loading = asyncio.Event()

    async def load(*_: object) -> Any:
        is_loading.set()
        await asyncio.Event().wait()

    later = Worker(load)

    async def open_port() -> Port:
        return later.port

    engine = WorkerMLCEngine(worker.port, open_port=open_port, recovery=Recovery())
    await engine.reload("numbers.gguf", SHIFT)
    await worker.port.close()
    answer = asyncio.create_task(engine.completions.create(prompt="1"))
    await is_loading.wait()
    asking = asyncio.create_task(engine.device_name())  # waits for the load as well
    await settle()
    async with asyncio.timeout(30):
        await engine.unload()
    for waiting in (answer, asking):
        with pytest.raises(ModelNotLoadedError, match=r"stopped by unload\(\)"):
            await waiting
    for each in (worker, later):
        await each.end()


async def test_closing_ends_a_restart() -> None:
    is_opening, may_open = asyncio.Event(), asyncio.Event()
    theirs: list[LoopbackPort] = []

    async def open_port() -> Port:
        is_opening.set()
        await may_open.wait()
        theirs.extend(LoopbackPort.pair())
        return theirs[-1]

    engine = WorkerMLCEngine(LoopbackPort.pair()[0], open_port=open_port)
    restarting = asyncio.create_task(engine.restart())
    await is_opening.wait()
    await engine.close()
    may_open.set()
    with pytest.raises(WorkerLostError, match="closed"):
        await restarting
    with pytest.raises(WorkerLostError):
        theirs[-1].post({})


async def test_closing_ends_a_restart_that_still_closes_the_old_port() -> None:
    port, _ = LoopbackPort.pair()
    is_closing, may_close = asyncio.Event(), asyncio.Event()

    async def close() -> None:
        is_closing.set()
        await may_close.wait()

    port.close = close  # type: ignore[method-assign]
    engine = WorkerMLCEngine(port, open_port=Script(lambda _: None).open_port)
    restarting = asyncio.create_task(engine.restart())
    await is_closing.wait()
    closing = asyncio.create_task(engine.close())
    await settle()
    may_close.set()
    await closing
    with pytest.raises(WorkerLostError, match="closed"):
        await restarting


async def test_closing_ends_a_recovery() -> None:
    script = Script(lambda _: LOST)
    engine = await script.engine()
    is_opening = asyncio.Event()

    async def never() -> Port:
        is_opening.set()
        await asyncio.Event().wait()
        raise AssertionError

    engine._open_port = never
    answer = asyncio.create_task(engine.completions.create(prompt="p"))
    await is_opening.wait()
    await engine.close()
    with pytest.raises(WorkerLostError, match="closed"):
        await answer


async def test_a_worker_that_says_nothing_is_lost() -> None:
    script = Script(lambda message: None, lambda _: text("abc", finish_reason="stop"))
    silent, theirs = LoopbackPort.pair()
    engine = WorkerMLCEngine(
        silent, open_port=script.open_port, recovery=Recovery(keep_alive_s=0.02)
    )
    script._answers.pop(0)
    kinds: list[str] = []
    is_closed = asyncio.Event()
    theirs.listen(lambda message: kinds.append(message["kind"]), lambda reason: is_closed.set())
    reply = await engine.completions.create(prompt="p")
    assert reply.choices[0].text == "abc"
    assert kinds == ["hello", "completionNonStreaming", *["keepAlive"] * 3]
    await is_closed.wait()
    await engine.close()


async def test_a_worker_with_heartbeats_is_not_lost(number_models: NumberModels) -> None:
    worker = Worker(number_models.load)
    engine = WorkerMLCEngine(worker.port, recovery=Recovery(keep_alive_s=0.005))
    await asyncio.sleep(0.1)
    assert engine._client.lost is None
    await engine.close()


def test_losses() -> None:
    losses = Losses()
    for _ in range(3):
        for _ in range(MAX_LOSSES - 1):
            losses.add(WorkerLostError("killed"))
        losses.reset()
    for _ in range(MAX_LOSSES - 1):
        losses.add(WorkerLostError("killed"))
    with pytest.raises(WorkerLostError, match="killed; it may be what ends them"):
        losses.add(WorkerLostError("killed"))


def chunk(
    index: int,
    content: str = "",
    *token_ids: int,
    role: Any = None,
    finish_reason: FinishReason | None = None,
) -> ChatCompletionChunk:
    choice = ChunkChoice(
        index=index,
        delta=Delta(role=role, content=content),
        finish_reason=finish_reason,
        token_ids=list(token_ids),
    )
    return ChatCompletionChunk(id="x", created=5, model="m", choices=[choice])


def resumption(**fields: Any) -> Resumption:
    found = Resumption.of(fields, persist=True)
    assert found is not None
    return found


def test_the_users_session_is_the_users() -> None:
    for given in ({"session_id": "mine", "from_token": 4}, {"sessionId": "mine", "fromToken": 4}):
        kept = resumption(stream=True, extra_body={"resumable": given, "request_id": "r"})
        assert not kept.is_own
        assert kept.request()["extra_body"] == {
            "resumable": {"enabled": True, "session_id": "mine", "from_token": [4]},
            "request_id": "r",
            "return_token_ids": True,
        }
        kept.take(chunk(0, "a", 1, 2))
        assert kept.request()["extra_body"]["resumable"]["from_token"] == [6]
    assert not resumption(extra_body={"resumable": {}}).is_own


def test_token_ids_are_shown_to_whom_asked() -> None:
    kept = resumption(stream=True, extra_body={"return_token_ids": True})
    shown = kept.take(chunk(0, "a", 1, 2))
    assert shown is not None
    assert shown.choices[0].token_ids == [1, 2]


def test_a_resumed_stream_repeats_neither_roles_nor_ends() -> None:
    kept = resumption(stream=True, n=2, stream_options={"include_usage": True})
    for index in (0, 1):
        assert kept.take(chunk(index, role="assistant")) is not None
    assert kept.take(chunk(0, "a", 1, finish_reason="stop")) is not None
    assert kept.take(chunk(1, "b", 2)) is not None
    assert kept.request()["extra_body"]["resumable"]["from_token"] == [1, 1]
    later = chunk(0, role="assistant")
    later.id, later.created = "y", 6
    assert kept.take(later) is None
    assert kept.take(chunk(1, role="assistant")) is None
    assert kept.take(chunk(0, finish_reason="stop")) is None
    last = chunk(1, "c", 3, finish_reason="stop")
    last.id, last.created = "y", 6
    seen = kept.take(last)
    assert seen is not None
    assert (seen.id, seen.created) == ("x", 5)
    assert not kept.is_complete
    usage: Any = {"prompt_tokens": 1}
    assert kept.take(ChatCompletionChunk(id="x", created=5, model="m", choices=[], usage=usage))
    assert kept.is_complete


UNREADABLE: list[object] = [
    5,
    [],
    "",
    {"resumable": "yes"},
    {"resumable": 1},
    {"resumable": {"enabled": 5}},
    {"resumable": {"session_id": 5}},
    {"resumable": {"from_token": {}}},
    {"resumable": {"session_id": "a", "sessionId": "b"}},
    {"return_token_ids": 5},
    {"request_id": 5},
]


@pytest.mark.parametrize("extra_body", UNREADABLE)
def test_what_cannot_be_read_is_left_to_the_engine(extra_body: object) -> None:
    assert Resumption.of({"extra_body": extra_body}, persist=True) is None


@pytest.mark.parametrize("resumable", [{"session_id": ""}, {"sessionId": ""}])
def test_an_empty_id_is_left_to_the_engine(resumable: dict[str, Any]) -> None:
    kept = resumption(extra_body={"resumable": resumable})
    assert kept.request()["extra_body"]["resumable"]["session_id"] == ""


def test_a_field_that_is_none_is_left_out() -> None:
    assert resumption(extra_body={"resumable": None}).is_own


def test_an_interrupt_names_the_request_as_its_sender_does() -> None:
    for request_ids, is_interrupted in (["other"], False), (["r"], True), (None, True):
        kept = resumption(extra_body={"request_id": "r"})
        kept.interrupt(request_ids)
        assert kept.is_interrupted is is_interrupted


async def test_an_interrupt_during_the_recovery_reaches_the_next_worker() -> None:
    script = Script(
        lambda message: LOST if message["kind"].endswith("NextChunk") else None,
        streaming(text("a", 1, finish_reason="abort")),
    )
    engine = await script.engine()
    stream: Any = await engine.completion({"prompt": "1", "stream": True})
    pull = asyncio.create_task(anext(stream))
    while engine._client.lost is None:
        await asyncio.sleep(0)
    engine.interrupt_generate()
    assert (await pull).choices[0].finish_reason == "abort"
    session_id = script.extras("completionStreamInit")[0]["resumable"]["session_id"]
    [told] = [each["content"] for each in script.seen if each["kind"] == "interruptGenerate"]
    assert told == {"requestIds": [session_id]}
    await stream.aclose()
