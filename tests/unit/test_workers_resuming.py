"""Sessions that are resumed through a worker, as WebLLM's client does and as ours does."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from fake_model import settle
from fake_worker import Worker
from test_workers_clients import Client
from test_workers_wire import NO_CONTENT, Thrown

from webllm.api.chat_completion import ChatCompletionChunk, ChunkChoice, Delta
from webllm.api.resumable import ResumableSession, ResumeResult
from webllm.config import ChatOptions, ModelRecord
from webllm.engine.journaling import LoadedRecord
from webllm.errors import ModelReplacedError, RequestError, SessionNotFoundError
from webllm.workers import messages as m
from webllm.workers.port import LoopbackPort
from webllm.workers.proxy import WorkerMLCEngine

TEXT = ResumeResult(
    session_id="s",
    recovered_text="1 2 ",
    emitted_tokens=2,
    processed_seq_len=3,
    replayed_tokens=0,
    recovery_mode="text_only",
    recovered_texts=["1 2 "],
)
RESULT = {
    "sessionId": "s",
    "recoveredText": "1 2 ",
    "emittedTokens": 2,
    "processedSeqLen": 3,
    "replayedTokens": 0,
    "recoveryMode": "text_only",
    "recoveredTexts": ["1 2 "],
}
CONTINUE = {"continueGeneration": True, "stream": True}


def chunk(text: str) -> ChatCompletionChunk:
    choice = ChunkChoice(index=0, delta=Delta(content=text), finish_reason=None)
    return ChatCompletionChunk(id="1", created=1, model="m", choices=[choice])


class Sessions:
    """An engine's sessions: "s" can be continued, "ended" cannot; there are no others."""

    def __init__(self, worker: Worker) -> None:
        self.asked: list[tuple[str, bool, bool]] = []
        self.deleted: list[str] = []
        self.num_closed = 0
        self.is_loaded = True
        self.stream_of_whole = False
        self.from_token: int | list[int] | None = None  # of the last request
        for name in (
            "list_resumable_sessions",
            "session_models",
            "resume_chat_completion",
            "delete_resumable_session",
            "delete_all_resumable_sessions",
        ):
            setattr(worker.engine, name, getattr(self, name))

    async def list_resumable_sessions(self) -> list[ResumableSession]:
        return [
            ResumableSession(
                session_id=session_id,
                resumable=session_id == "s",
                model_id="m",
                emitted_tokens=2,
                processed_seq_len=3,
                recovery_mode="token_replay" if session_id == "s" else "text_only",
                is_exact=True if self.is_loaded else None,
            )
            for session_id in ("s", "ended")
        ]

    async def session_models(self, session_id: str) -> list[LoadedRecord]:
        if self.is_loaded or session_id != "s":
            return []
        return [LoadedRecord(ModelRecord(model="m.gguf", model_id="m"), ChatOptions())]

    async def resume_chat_completion(
        self,
        session_id: str,
        continue_generation: bool = False,
        stream: bool = False,
        from_token: int | list[int] | None = None,
    ) -> ResumeResult | AsyncGenerator[ChatCompletionChunk, None]:
        self.asked.append((session_id, continue_generation, stream))
        self.from_token = from_token
        if session_id not in ("s", "ended"):
            raise SessionNotFoundError(f"the journal has no session {session_id!r}")
        is_stream = self.stream_of_whole or (stream and continue_generation)
        return self._chunks() if is_stream and session_id == "s" else TEXT

    async def _chunks(self) -> AsyncGenerator[ChatCompletionChunk, None]:
        try:
            yield chunk("3 ")
            yield chunk("4 ")
        finally:
            self.num_closed += 1

    async def delete_resumable_session(self, session_id: str) -> None:
        self.deleted.append(session_id)

    async def delete_all_resumable_sessions(self) -> None:
        self.deleted.append("all")


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def sessions(worker: Worker) -> Sessions:
    return Sessions(worker)


@pytest.fixture
def npm(worker: Worker, sessions: Sessions) -> Client:
    return Client(worker.handler)


@pytest.fixture
async def engine(worker: Worker, sessions: Sessions) -> WorkerMLCEngine:
    engine = WorkerMLCEngine(worker.port)
    await settle()  # until it knows the worker's version
    return engine


async def test_the_npm_client_lists_and_deletes(npm: Client, sessions: Sessions) -> None:
    found: Any = await npm.ask("listResumableSessions")
    assert [each["sessionId"] for each in found] == ["s", "ended"]
    assert found[0]["recoveryMode"] == "token_replay"
    assert await npm.ask("deleteResumableSession", {"sessionId": "s"}) is None
    assert await npm.ask("deleteAllResumableSessions") is None
    assert sessions.deleted == ["s", "all"]


@pytest.mark.parametrize("options", [None, {}, {"stream": True}, {"continueGeneration": False}])
async def test_the_npm_client_reads_a_text(
    npm: Client, sessions: Sessions, options: object
) -> None:
    content = {"sessionId": "s"} if options is None else {"sessionId": "s", "options": options}
    assert await npm.ask("resumeChatCompletion", content) == RESULT
    assert sessions.asked == [("s", False, False)]


async def test_the_npm_client_continues_to_the_end(npm: Client, sessions: Sessions) -> None:
    content = {"sessionId": "s", "options": {"continueGeneration": True}}
    assert await npm.ask("resumeChatCompletion", content) == RESULT
    assert sessions.asked == [("s", True, False)]


async def test_the_npm_client_continues_as_a_stream(npm: Client, sessions: Sessions) -> None:
    """It tells a stream from a result by a content that is null."""
    content = {"sessionId": "s", "options": CONTINUE, "streamId": "x"}
    assert await npm.ask("resumeChatCompletionStreamInit", content) is None
    assert [(await npm.pull("x"))["choices"][0]["delta"]["content"] for _ in "34"] == ["3 ", "4 "]
    assert await npm.pull("x") is NO_CONTENT
    content = {"sessionId": "ended", "options": CONTINUE, "streamId": "x"}
    assert await npm.ask("resumeChatCompletionStreamInit", content) == RESULT
    with pytest.raises(Thrown, match="no stream 'x' is open"):
        await npm.pull("x")


async def test_a_stream_with_an_id_in_use_is_refused_and_closed(
    npm: Client, sessions: Sessions
) -> None:
    content = {"sessionId": "s", "options": CONTINUE, "streamId": "x"}
    await npm.ask("resumeChatCompletionStreamInit", content)
    with pytest.raises(Thrown, match="the stream 'x' is open already"):
        await npm.ask("resumeChatCompletionStreamInit", content)
    assert await npm.ask("completionStreamReturn", {"streamId": "x"}) is None


async def test_a_stream_in_place_of_a_result_is_refused(npm: Client, sessions: Sessions) -> None:
    sessions.stream_of_whole = True
    with pytest.raises(Thrown, match=r"RequestError: options\.stream is true"):
        await npm.ask("resumeChatCompletion", {"sessionId": "s", "options": CONTINUE})


@pytest.mark.parametrize(
    ("kind", "content", "said"),
    [
        ("resumeChatCompletion", None, "expected object, got null"),
        ("resumeChatCompletion", {}, "sessionId is missing"),
        ("resumeChatCompletion", {"sessionId": 5}, "sessionId: expected str, got int"),
        ("resumeChatCompletion", {"sessionId": "s", "options": "all"}, "options: expected object"),
        (
            "resumeChatCompletion",
            {"sessionId": "s", "options": {"stream": "yes"}},
            "options.stream: expected bool",
        ),
        ("resumeChatCompletionStreamInit", {"sessionId": "s"}, "streamId is missing"),
        ("deleteResumableSession", {}, "sessionId is missing"),
        ("deleteResumableSession", None, "expected object, got null"),
        ("listResumableSessions", {"all": True}, "expected null"),
    ],
)
async def test_messages_that_are_wrong_are_thrown_back(
    npm: Client, sessions: Sessions, kind: str, content: object, said: str
) -> None:
    with pytest.raises(Thrown) as caught:
        await npm.ask(kind, content)
    assert str(caught.value).startswith("RequestError: ")
    assert said in str(caught.value)
    assert not sessions.asked


async def test_our_client(engine: WorkerMLCEngine, sessions: Sessions) -> None:
    assert await engine.list_resumable_sessions() == await sessions.list_resumable_sessions()
    assert await engine.resume_chat_completion("s") == TEXT
    assert await engine.resume_chat_completion("s", stream=True) == TEXT
    assert await engine.resume_chat_completion("s", continue_generation=True) == TEXT
    assert sessions.asked == [("s", False, False)] * 2 + [("s", True, False)]
    await engine.delete_resumable_session("s")
    await engine.delete_all_resumable_sessions()
    assert sessions.deleted == ["s", "all"]
    with pytest.raises(SessionNotFoundError, match="no session 'lost'"):
        await engine.resume_chat_completion("lost", continue_generation=True, stream=True)
    wrong: Any = 5
    with pytest.raises(RequestError, match="session_id: expected str, got int"):
        await engine.resume_chat_completion(wrong)
    with pytest.raises(RequestError, match="session_id: expected str, got int"):
        await engine.delete_resumable_session(wrong)


async def test_our_client_continues_as_a_stream(
    engine: WorkerMLCEngine, sessions: Sessions, worker: Worker
) -> None:
    reply = await engine.resume_chat_completion("s", continue_generation=True, stream=True)
    assert not isinstance(reply, ResumeResult)
    assert [each async for each in reply] == [chunk("3 "), chunk("4 ")]
    assert await engine.resume_chat_completion("ended", True, True) == TEXT
    left = await engine.resume_chat_completion("s", True, True, from_token=7)
    assert not isinstance(left, ResumeResult)
    assert sessions.from_token == 7
    await anext(left)
    await left.aclose()
    await settle()
    assert sessions.num_closed == 2
    assert not worker.handler._connections[0].streams._by_id


async def test_our_client_empties_the_journal_of_an_older_worker() -> None:
    port, theirs = LoopbackPort.pair()
    kinds: list[str] = []

    def answer(message: dict[str, Any]) -> None:
        kinds.append(message["kind"])
        is_list = message["kind"] == "listResumableSessions"
        sessions = [{**RESULT, "resumable": True, "modelId": "m", "sessionId": x} for x in "ab"]
        theirs.post(m.Return(uuid=message["uuid"], content=sessions if is_list else None))

    theirs.listen(answer, lambda reason: None)
    await WorkerMLCEngine(port).delete_all_resumable_sessions()
    assert kinds[1:] == ["listResumableSessions", *["deleteResumableSession"] * 2]


async def test_a_session_whose_model_is_not_loaded_replaces_that_of_others(
    worker: Worker, sessions: Sessions
) -> None:
    ours, theirs = Client(worker.handler), Client(worker.handler)
    await theirs.load("numbers.gguf")
    content = {"sessionId": "s", "options": {"continueGeneration": True}}
    await ours.ask("resumeChatCompletion", content)
    connection = worker.handler._connections[-1]
    assert connection.replaced is None
    sessions.is_loaded = False
    await ours.ask("resumeChatCompletion", {**content, "sessionId": "ended"})
    assert connection.replaced is None
    await ours.ask("resumeChatCompletion", content)
    assert isinstance(connection.replaced, ModelReplacedError)
    assert "numbers.gguf was unloaded and replaced by m" in str(connection.replaced)
    assert worker.engine.loaded_model_ids() == ["m"]


async def test_an_interrupt_names_the_sessions_that_are_resumed(
    worker: Worker, npm: Client
) -> None:
    told: list[object] = []
    worker.engine.interrupt_generate = told.append  # type: ignore[method-assign, assignment]
    content = {"sessionId": "s", "options": CONTINUE, "streamId": "x"}
    await npm.ask("resumeChatCompletionStreamInit", content)
    await npm.ask("interruptGenerate")
    assert told == [["s"]]
