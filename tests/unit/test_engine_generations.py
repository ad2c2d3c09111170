"""Generations: they run without readers, have several, and go on from the journal."""

from __future__ import annotations

import asyncio
import gc
import itertools
import shutil
from collections.abc import AsyncIterator, MutableSequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from memory_journal import MemoryStorage

from webllm import ChatOptions, MLCEngine, MLCEngineConfig
from webllm.api.chat_completion import ChatCompletion, ChatCompletionChunk
from webllm.api.resumable import ResumeResult
from webllm.artifacts.journal_files import JournalFiles
from webllm.config import LogitProcessor
from webllm.engine.journal import Journal, _records
from webllm.engine.journaling import models_of
from webllm.errors import (
    ArtifactError,
    ConfigError,
    DeviceLostError,
    ModelNotLoadedError,
    RequestError,
    SessionNotFoundError,
)
from webllm.host import Host
from webllm.testing import fake_engine

ANSWER = "Die Wale singen, und ihre Lieder sind sehr lang; 鯨の歌. 🐋!"
QUESTION: dict[str, Any] = {"messages": [{"role": "user", "content": "Do whales sing?"}]}
LONG = [{"role": "user", "content": ANSWER * 9}]  # its answer is as long


def new_engine(folder: Path, config: MLCEngineConfig | None = None) -> MLCEngine:
    engine = fake_engine(lambda text: text if len(text) > len(ANSWER) else ANSWER, config)
    engine._journal = Journal(JournalFiles(folder))
    return engine


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[MLCEngine]:
    async with new_engine(tmp_path / "journal") as engine:
        await engine.reload("m.gguf")
        yield engine


def asked(session_id: str | None = "s", **fields: Any) -> dict[str, Any]:
    """A request for a resumable stream whose chunks have token ids."""
    resumable = {"enabled": True, "sessionId": session_id, **fields.pop("resumable", {})}
    extra = {"resumable": resumable, "return_token_ids": True}
    return {**QUESTION, "stream": True, "extra_body": extra, **fields}


class Reader:
    """Reads a stream as a client does that may lose its worker at any time."""

    def __init__(self, num_choices: int = 1) -> None:
        self.texts = [""] * num_choices
        self.num_tokens = [0] * num_choices
        self.num_logprobs = [0] * num_choices
        self.reasons: list[str | None] = [None] * num_choices

    def take(self, chunk: ChatCompletionChunk) -> None:
        for choice in chunk.choices:
            if self.reasons[choice.index] is not None:
                continue  # it had ended before the worker was lost
            self.texts[choice.index] += choice.delta.content or ""
            self.num_tokens[choice.index] += len(choice.token_ids or ())
            if choice.logprobs:
                self.num_logprobs[choice.index] += len(choice.logprobs.content or ())
            self.reasons[choice.index] = choice.finish_reason

    async def read(self, stream: Any, num_chunks: int | None = None) -> None:
        """Reads some chunks, or all, and leaves the stream open."""
        while num_chunks is None or num_chunks > 0:
            try:
                self.take(await anext(stream))
            except StopAsyncIteration:
                return
            num_chunks = None if num_chunks is None else num_chunks - 1

    def state(self) -> object:
        return self.texts, self.num_tokens, self.num_logprobs, self.reasons


def cut(journal: Path, num_records: int) -> None:
    """Leaves the first records of a journal's only session, as if its process was killed then."""
    [file] = journal.iterdir()
    data = file.read_bytes()
    *_, (_, end) = itertools.islice(_records(data), num_records)
    file.write_bytes(data[: end + 1])


async def whole(engine: MLCEngine, **fields: Any) -> Reader:
    reader = Reader(fields.get("n", 1))
    await reader.read(await engine.chat_completion(asked(None, **fields)))
    return reader


FORMS: list[dict[str, Any]] = [
    {},
    {"n": 2, "logprobs": True, "top_logprobs": 1},
    {"max_tokens": 20},
    {"stop": ["lang"]},
    {"stop": ["鯨の星"]},  # its first characters are held back
]


@pytest.mark.parametrize("fields", FORMS)
async def test_an_answer_goes_on_in_another_process_from_every_chunk(
    engine: MLCEngine, tmp_path: Path, fields: dict[str, Any]
) -> None:
    expected = (await whole(engine, **fields)).state()
    reader = Reader(fields.get("n", 1))
    stream: Any = await engine.chat_completion(asked("s", **fields))
    num_chunks = 0
    while True:
        shutil.copytree(tmp_path / "journal", copy := tmp_path / f"copy{num_chunks}")
        async with new_engine(copy) as other:
            await other.reload("m.gguf")
            again = Reader(fields.get("n", 1))
            again.__dict__.update({k: v[:] for k, v in reader.__dict__.items()})
            position = {"from_token": reader.num_tokens[:]} if num_chunks else {}
            if None in reader.reasons:
                request = asked("s", **fields, resumable=position)
                await again.read(await other.chat_completion(request))
            assert again.state() == expected
        before = num_chunks
        async for chunk in stream:
            reader.take(chunk)
            num_chunks += 1
            break
        if num_chunks == before:
            break
    assert reader.state() == expected


async def test_a_second_reader_reads_the_same_answer_from_its_start(engine: MLCEngine) -> None:
    first: Any = await engine.chat_completion(asked())
    reader, other = Reader(), Reader()
    await reader.read(first, 5)
    second: Any = await engine.chat_completion(asked())
    await other.read(second)
    await reader.read(first)
    assert reader.texts == other.texts == [ANSWER]
    assert not engine._generations._by_id


async def test_a_whole_answer_attaches_too(engine: MLCEngine) -> None:
    stream: Any = await engine.chat_completion(asked())
    answer = await engine.chat_completion({**asked(), "stream": False})
    assert isinstance(answer, ChatCompletion)
    assert answer.choices[0].message.content == ANSWER
    assert answer.id == "chatcmpl-s"
    await stream.aclose()


async def test_the_last_reader_that_leaves_ends_it(engine: MLCEngine) -> None:
    scheduler = engine._session(None).model.loop.scheduler
    first: Any = await engine.chat_completion(asked())
    second: Any = await engine.chat_completion(asked())
    await first.aclose()
    assert scheduler.has_work
    await second.aclose()
    assert not scheduler.has_work


async def test_an_id_of_another_request_is_refused(engine: MLCEngine) -> None:
    stream: Any = await engine.chat_completion(asked())
    with pytest.raises(RequestError, match="'s' is the id of another request"):
        await engine.chat_completion(asked(temperature=0.5))
    await stream.aclose()
    await engine._generations.written()
    with pytest.raises(RequestError, match="'s' is the id of another request"):  # in the journal
        await engine.chat_completion(asked(temperature=0.5))


async def test_only_the_named_answers_are_interrupted(engine: MLCEngine) -> None:
    long = {"messages": [{"role": "user", "content": ANSWER * 9}]}
    readers = {name: Reader() for name in "abc"}
    answering = [asyncio.create_task(engine.chat_completion(asked(x, **long))) for x in readers]
    while len(engine._generations._by_id) < len(answering):
        await asyncio.sleep(0)
    engine.interrupt_generate({"a", "chatcmpl-b"})
    for reader, stream in zip(readers.values(), await asyncio.gather(*answering), strict=True):
        await reader.read(stream)
    assert [reader.reasons[0] for reader in readers.values()] == ["abort", "abort", "stop"]


async def test_an_answer_interrupted_while_its_prompt_is_encoded_ends(engine: MLCEngine) -> None:
    long = {"messages": [{"role": "user", "content": "long " * 700}]}
    answering = asyncio.create_task(engine.chat_completion({**asked(), **long}))
    while not engine._generations._by_id:
        await asyncio.sleep(0)
    engine.interrupt_generate(["s"])
    stream: Any = await answering
    reader = Reader()
    await reader.read(stream)
    assert reader.texts == [""]
    assert reader.reasons == ["abort"]


async def test_an_answer_is_interrupted_by_each_of_its_names(engine: MLCEngine) -> None:
    for name in ("s", "r", "chatcmpl-s"):
        request = asked("s", messages=LONG)
        request["extra_body"]["request_id"] = "r"
        answering = asyncio.create_task(engine.chat_completion(request))
        while not engine._generations._by_id:
            await asyncio.sleep(0)
        engine.interrupt_generate([name])
        reader = Reader()
        await reader.read(await answering)
        assert reader.reasons == ["abort"]
        await engine._generations.written()
        await engine.delete_resumable_session("s")


async def test_a_request_that_is_cancelled_while_it_starts_can_be_sent_again(
    engine: MLCEngine,
) -> None:
    await whole(engine)
    for session_id in ("new", "known"):
        for num_turns in range(40):
            answering = asyncio.create_task(engine.chat_completion(asked(session_id)))
            for _ in range(num_turns):
                await asyncio.sleep(0.0001)
            answering.cancel()
            with suppress(asyncio.CancelledError):
                await (await answering).aclose()  # type: ignore[union-attr]
            reader = Reader()
            await reader.read(await engine.chat_completion(asked(session_id)))
            assert reader.texts == [ANSWER]
            if session_id == "new":
                await engine._generations.written()
                await engine.delete_resumable_session(session_id)


async def test_an_answer_that_its_unloading_ended_goes_on_for_the_next_reader(
    engine: MLCEngine,
) -> None:
    slow: Any = await engine.chat_completion(asked("s", messages=LONG))
    await engine.reload("m.gguf")
    reader = Reader()
    await reader.read(await engine.chat_completion(asked("s", messages=LONG)))
    assert reader.reasons == ["stop"]
    assert reader.texts == [LONG[0]["content"]]
    reader = Reader()
    await reader.read(slow)
    assert reader.reasons == ["abort"]


async def test_an_answer_that_the_device_ended_goes_on_for_the_next_reader(
    engine: MLCEngine,
) -> None:
    slow: Any = await engine.chat_completion(asked("s", messages=LONG))
    backend: Any = engine._session(None).model.loop.runner.backend
    backend.error = DeviceLostError("gone")
    while engine._session(None).model.loop.scheduler.has_work:
        await asyncio.sleep(0)
    backend.recover()
    reader = Reader()
    await reader.read(await engine.chat_completion(asked("s", messages=LONG)))
    assert reader.texts == [LONG[0]["content"]]
    with pytest.raises(DeviceLostError):
        await reader.read(slow)


async def test_a_request_whose_start_was_unloaded_is_not_attached_to(engine: MLCEngine) -> None:
    first = asyncio.create_task(engine.chat_completion(asked()))
    while not engine._generations._by_id:
        await asyncio.sleep(0)
    await engine.reload("m.gguf")
    reader = Reader()
    await reader.read(await engine.chat_completion(asked()))
    assert reader.texts == [ANSWER]
    with pytest.raises(ModelNotLoadedError):
        await first


async def test_text_that_is_held_back_at_an_abort_is_not_doubled(engine: MLCEngine) -> None:
    held = "Wale singen, und"
    stream: Any = await engine.chat_completion(asked(stop=[f"{held} schweigen"]))
    [generation] = engine._generations._by_id.values()
    while not generation.sequences or generation.sequences[0].num_output_tokens < 12:
        await asyncio.sleep(0)
    await engine.unload()
    reader = Reader()
    await reader.read(stream)
    assert (reader.texts, reader.num_tokens) == (["Die "], [4])
    await engine.reload("m.gguf")
    past: Any = await engine.resume_chat_completion("s")
    assert past.recovered_text == "Die "
    assert past.emitted_tokens >= 12
    rest: Any = await engine.resume_chat_completion("s", True, stream=True)
    reader = Reader()
    await reader.read(rest)
    assert reader.texts == [ANSWER.removeprefix("Die ")]
    await engine._generations.written()
    past = await engine.resume_chat_completion("s")
    assert past.recovered_text == ANSWER


async def test_an_id_is_not_shared_by_answers_of_two_kinds(engine: MLCEngine) -> None:
    await engine.reload(["m.gguf", "k.gguf"])
    request = {**QUESTION, "model": "m", "stream": True}
    stream: Any = await engine.chat_completion({**request, "extra_body": {"request_id": "s"}})
    with pytest.raises(RequestError, match="'s' is being answered without a journal"):
        await engine.chat_completion(asked("s", model="m"))
    await stream.aclose()
    stream = await engine.chat_completion(asked("s", model="m"))
    with pytest.raises(RequestError, match="'s' was begun by m, not k"):
        await engine.chat_completion(asked("s", model="k"))
    await stream.aclose()


async def test_tokens_of_an_answer_that_was_not_kept_are_not_continued(engine: MLCEngine) -> None:
    position = {"from_token": 5}
    with pytest.raises(SessionNotFoundError, match="'s' was not kept"):
        await engine.chat_completion(asked(resumable=position))
    for fields in ({"temperature": 0}, {"seed": 7}):  # a new answer is the same one
        reader = Reader()
        request = asked(None, resumable=position, **fields)
        await reader.read(await engine.chat_completion(request))
        assert reader.texts == [ANSWER[5:]]


async def test_a_journal_that_cannot_be_opened_leaves_no_generation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(host: Host) -> Journal:
        raise ConfigError("there is no folder for it")

    monkeypatch.setattr("webllm.engine.engine.default_journal", refuse)
    engine = fake_engine(lambda text: ANSWER)
    await engine.reload("m.gguf")
    for _ in range(2):
        with pytest.raises(ConfigError, match="no folder for it"):
            await engine.chat_completion(asked())
    assert not engine._generations._by_id


async def test_a_strict_answer_that_is_resumed_ends_with_the_journals_error(
    engine: MLCEngine,
) -> None:
    engine._journal = Journal(storage := MemoryStorage())
    request = asked(messages=LONG, resumable={"strictPersistence": True})
    stream: Any = await engine.chat_completion(request)
    await Reader().read(stream, 20)
    await stream.aclose()
    await engine._generations.written()
    storage.error = ArtifactError("no disk")
    stream = await engine.chat_completion(request)
    with pytest.raises(ArtifactError, match="no disk"):
        await Reader().read(stream)


async def test_reading_a_finished_answer_again_writes_nothing(
    engine: MLCEngine, tmp_path: Path
) -> None:
    for num_reads in range(3):
        reader = Reader()
        await reader.read(await engine.chat_completion(asked()))
        await engine._generations.written()
        [file] = (tmp_path / "journal").iterdir()
        if not num_reads:
            written = file.read_bytes()
        assert file.read_bytes() == written


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of what it left
def test_an_answer_that_its_event_loop_left_does_not_hold_up_the_next_loop(tmp_path: Path) -> None:
    leave_answers_and_ask_again(new_engine(tmp_path / "journal"))
    gc.collect()


def leave_answers_and_ask_again(engine: MLCEngine) -> None:
    streams: list[Any] = []

    async def read() -> None:
        streams.append(await engine.chat_completion(asked("a", messages=LONG)))
        await Reader().read(streams[-1], 2)
        await asyncio.Event().wait()  # it never reads the rest

    async def leave() -> None:
        await engine.reload("m.gguf")
        reading = asyncio.create_task(read())
        while not streams:
            await asyncio.sleep(0)
        streams.append(await engine.chat_completion(asked("b", messages=LONG)))
        assert not reading.done()

    async def ask_again() -> None:
        reader = Reader()
        await reader.read(await engine.chat_completion(asked("c")))
        assert reader.texts == [ANSWER]
        await engine.unload()

    asyncio.run(leave())
    asyncio.run(asyncio.wait_for(ask_again(), 20))


async def test_text_that_is_not_unicode_is_refused(engine: MLCEngine) -> None:
    with pytest.raises(RequestError, match="not Unicode"):
        await engine.chat_completion(asked(messages=[{"role": "user", "content": "\ud800"}]))


async def test_tokens_from_the_journal_do_not_count_as_decoded(
    engine: MLCEngine, tmp_path: Path
) -> None:
    for _ in range(2):
        answer = await engine.chat_completion({**asked(), "stream": False})
        assert isinstance(answer, ChatCompletion)
        assert answer.usage is not None
        assert answer.usage.completion_tokens == len(ANSWER.encode()) + 1
        rates = answer.usage.extra.decode_tokens_per_s, answer.usage.extra.time_per_output_token_s
    assert rates == (0.0, 0.0)


async def test_the_names_of_webllm(
    engine: MLCEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, may_end = engine._session(None).model.loop.runner, asyncio.Event()
    read_oldest, num_steps = runner.read_oldest, itertools.count()

    async def read_later() -> Any:
        if next(num_steps) > 40:
            await may_end.wait()
        return await read_oldest()

    monkeypatch.setattr(runner, "read_oldest", read_later)
    stream: Any = await engine.chat_completion(asked())
    reader = Reader()
    await reader.read(stream, 30)
    [listed] = await engine.list_resumable_sessions()
    assert listed.resumable, "one can attach to it"
    kept: Any = await engine.resume_chat_completion("s")
    attached: Any = await engine.resume_chat_completion("s", True, True, kept.emitted_tokens)
    with pytest.raises(RequestError, match="from_token is 3, which needs stream=True"):
        await engine.resume_chat_completion("s", True, from_token=3)
    with pytest.raises(RequestError, match="under way"):
        await engine.delete_resumable_session("s")
    may_end.set()
    await reader.read(stream)
    following = Reader()
    await following.read(attached)
    assert kept.recovered_text + following.texts[0] == ANSWER
    await engine._generations.written()
    cut(tmp_path / "journal", 2)

    async with new_engine(tmp_path / "journal") as other:  # which has no model loaded
        [listed] = await other.list_resumable_sessions()
        assert listed.to_dict() == {
            "sessionId": "s",
            "resumable": True,
            "modelId": "m",
            "emittedTokens": listed.emitted_tokens,
            "processedSeqLen": listed.processed_seq_len,
            "recoveryMode": "token_replay",
            "created": listed.created,
        }
        text = await other.resume_chat_completion("s")
        assert isinstance(text, ResumeResult)
        assert ANSWER.startswith(text.recovered_text)
        assert text.recovered_text
        rest: Any = await other.resume_chat_completion("s", True, stream=True)
        following = Reader()
        await following.read(rest)
        assert text.recovered_text + following.texts[0] == ANSWER
        assert other.loaded_model_ids() == ["m"]

        result = await other.resume_chat_completion("s", continue_generation=True)
        assert isinstance(result, ResumeResult)
        assert result.recovered_text == ANSWER
        assert result.is_exact
        [listed] = await other.list_resumable_sessions()
        assert listed.recovery_mode == "text_only"
        assert listed.is_exact
        await other.delete_resumable_session("s")
        assert await other.list_resumable_sessions() == []
        with pytest.raises(SessionNotFoundError, match="no session 's'"):
            await other.resume_chat_completion("s")


async def test_a_text_completion_is_resumed_as_one(engine: MLCEngine, tmp_path: Path) -> None:
    request = {"prompt": "Sing.", "extra_body": {"resumable": {"session_id": "c"}}}
    await engine.completion(request)
    await engine._generations.written()
    cut(tmp_path / "journal", 2)
    result: Any = await engine.resume_chat_completion("c")
    rest: Any = await engine.resume_chat_completion("c", True, stream=True)
    texts = [chunk.choices[0].text async for chunk in rest]
    assert 0 < len(result.recovered_text) < len(ANSWER)
    assert result.recovered_text + "".join(texts) == ANSWER


class TokensSeen(LogitProcessor):
    """A logit processor that changes nothing and notes each token."""

    def __init__(self) -> None:
        self.token_ids: list[int] = []

    def process_logits(self, logits: MutableSequence[float]) -> MutableSequence[float]:
        return logits

    def process_sampled_token(self, token_id: int) -> None:
        self.token_ids.append(token_id)

    def reset_state(self) -> None:
        self.token_ids.clear()


async def test_a_logit_processor_sees_the_tokens_of_a_resumed_answer(tmp_path: Path) -> None:
    processor = TokensSeen()
    config = MLCEngineConfig(logit_processor_registry={"m": processor})
    async with new_engine(tmp_path / "journal", config) as engine:
        await engine.reload("m.gguf")
        await whole(engine, n=2)
        seen = processor.token_ids[:]
        assert len(seen) == 2 * len(ANSWER.encode()) + 2
        await engine._generations.written()
        cut(tmp_path / "journal", 3)  # a batch of each choice
        [listed] = await engine.list_resumable_sessions()
        assert listed.resumable
        await engine.resume_chat_completion(listed.session_id, continue_generation=True)
        assert processor.token_ids == seen


async def test_options_of_the_model_belong_to_the_session(
    engine: MLCEngine, tmp_path: Path
) -> None:
    await engine.reload("m.gguf", ChatOptions(temperature=0.5))
    stream: Any = await engine.chat_completion(asked())
    await stream.aclose()
    await engine.reload("m.gguf")
    await engine.resume_chat_completion("s", continue_generation=True)
    assert engine.has_loaded("m.gguf", ChatOptions(temperature=0.5))
    assert not engine.has_loaded("m.gguf")


async def test_nothing_is_written_unless_asked(tmp_path: Path) -> None:
    async with new_engine(tmp_path / "a", MLCEngineConfig(persist=False)) as engine:
        await engine.reload("m.gguf")
        stream: Any = await engine.chat_completion(asked())
        again: Any = await engine.chat_completion(asked())  # it still attaches
        reader = Reader()
        await reader.read(again)
        await stream.aclose()
        assert reader.texts == [ANSWER]
        assert await engine.list_resumable_sessions() == []
    async with new_engine(tmp_path / "b") as engine:
        await engine.reload("m.gguf")
        await engine.chat_completion(QUESTION)
        await engine.chat_completion(
            {**QUESTION, "extra_body": {"resumable": {"enabled": False, "session_id": "s"}}}
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("from_token", [9, [9]])
async def test_a_position_behind_the_end_is_refused(engine: MLCEngine, from_token: object) -> None:
    stream: Any = await engine.chat_completion(
        asked("s", max_tokens=4, seed=7, resumable={"from_token": from_token})
    )
    with pytest.raises(RequestError, match="from_token is 5 beyond the end of choice 0"):
        await Reader().read(stream)


@pytest.mark.parametrize("session_id", ["", 5, None, b"s", "\ud800", "s" * 10**6])
async def test_an_id_that_no_session_can_have_is_refused(
    engine: MLCEngine, session_id: Any
) -> None:
    for call in (engine.resume_chat_completion, engine.delete_resumable_session):
        with pytest.raises(RequestError, match=r"session_id (is|has)") as raised:
            await call(session_id)
        assert len(str(raised.value)) < 200


async def test_flags_are_bools(engine: MLCEngine) -> None:
    with pytest.raises(RequestError, match="continue_generation is 'yes'; give True or False"):
        await engine.resume_chat_completion("s", continue_generation=cast(bool, "yes"))


@pytest.mark.parametrize("request_ids", ["session", 5, True, [5], b"session"])
async def test_what_names_no_requests_interrupts_none(engine: MLCEngine, request_ids: Any) -> None:
    stream: Any = await engine.chat_completion(asked("s", max_tokens=4))
    with pytest.raises(RequestError, match="request_ids"):
        engine.interrupt_generate(request_ids)
    reader = Reader()
    await reader.read(stream)
    assert reader.reasons == ["length"]


async def test_a_text_that_cannot_be_kept_is_refused(engine: MLCEngine) -> None:
    with pytest.raises(RequestError, match="not Unicode"):
        await engine.chat_completion(asked("s", stop=["\ud800"]))
    assert await engine.list_resumable_sessions() == []


async def test_a_session_of_another_version_has_a_way_out(engine: MLCEngine) -> None:
    stream: Any = await engine.chat_completion(asked())
    await stream.aclose()
    past = await engine._find_session("s")
    assert past is not None
    begin = msgspec.structs.replace(past.begin, models=[{"record": {"model": 5}}])
    with pytest.raises(ArtifactError, match="by another version of webllm"):
        models_of(begin)
