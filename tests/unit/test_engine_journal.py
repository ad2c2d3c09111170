"""The journal: records, damage at every byte, batches, errors, expiry."""

import asyncio
import gc
import struct
import time
import warnings
import zlib
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import msgspec
import pytest
from memory_journal import MemoryStorage, begun

from webllm.engine.journal import (
    Begin,
    Journal,
    Recorder,
    RecoveredChoice,
    pack_token_ids,
    read_journal,
)
from webllm.errors import ArtifactError, RequestError, SessionNotFoundError, StorageFullError
from webllm.host import BROWSER
from webllm.ops.sampled import TokenLogprobs

LOGPROBS = TokenLogprobs(-0.125, ((7, -0.125), (8, -2.5)))


def begin(session_id: str = "s", n: int | None = None, created: float = 5.5) -> Begin:
    request = {"messages": [{"role": "user", "content": "Hi"}], "logit_bias": {7: -1.5}}
    return Begin(
        session_id=session_id,
        created=created,
        kind="chat",
        request=request if n is None else {**request, "n": n},
        seed=0xFFFFFFFF,
        prompt_ids=pack_token_ids([0, 1, 0xFFFFFFFF]),
        model_id="m",
        models=[{"model_id": "m", "options": {}}],
        forms="cpu-1",
    )


def new_journal(storage: MemoryStorage, **settings: Any) -> Journal:
    return Journal(storage, host=BROWSER, **settings)


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def journal(storage: MemoryStorage) -> Journal:
    return new_journal(storage)


def framed(record: object) -> bytes:
    payload = msgspec.msgpack.encode(record)
    return struct.pack("<II", len(payload), zlib.crc32(payload)) + payload


def frames(data: bytes) -> list[tuple[int, dict[str, Any]]]:
    """Returns where each record ends, and its plain data."""
    found, start = [], 0
    while start < len(data):
        (num_bytes,) = struct.unpack_from("<I", data, start)
        payload = data[start + 8 : start + 8 + num_bytes]
        start += 8 + num_bytes
        found.append((start, msgspec.msgpack.decode(payload)))
    return found


def folded(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the choices of a session of three, as plain data."""
    choices = [asdict(RecoveredChoice()) for _ in range(3)]
    for record in records[1:]:
        choice = choices[record["choice"]]
        if record["record"] == "finish":
            choice["finish_reason"] = record["reason"]
            choice["num_output_tokens"] = record["num_output_tokens"]
        else:
            choice["text"] += record["text"]
            choice["token_ids"] += record["token_ids"]
            choice["logprobs"] += record.get("logprobs") or [None] * len(record["token_ids"])
            choice["num_output_tokens"] = len(choice["token_ids"])
    return choices


def plain(value: object) -> Any:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value))


def read(data: bytes) -> tuple[Any, int]:
    """Returns the choices of a journal as plain data, and its good bytes."""
    recovered, num_bytes = read_journal(data)
    if recovered is None:
        return None, num_bytes
    assert recovered.begin == begin(n=3)
    return plain(recovered.choices), num_bytes


async def three_choices() -> bytes:
    """Returns a journal in which one choice has ended, one has logprobs, and one has no token."""
    storage = MemoryStorage()
    recorder = await begun(new_journal(storage), begin(n=3))
    for token_id in range(70000, 70009):
        recorder.token(0, token_id, "x")
        recorder.token(1, token_id, "x", LOGPROBS)
    recorder.finish(0, "stop", 8)
    recorder.token(1, 5, "x", LOGPROBS)
    recorder.token(2, 6, "x")
    await recorder.close()
    return bytes(*storage.strings.values())


async def test_a_session_is_read_as_it_was_written(
    storage: MemoryStorage, journal: Journal
) -> None:
    recorder = await begun(journal, begin(n=3))
    assert await journal.find("other") is None
    recovered = await journal.find("s")
    assert recovered is not None
    assert recovered.begin == begin(n=3)
    assert recovered.begin.prompt_token_ids == [0, 1, 0xFFFFFFFF]
    assert recovered.choices == [RecoveredChoice()] * 3
    assert recovered.num_tokens == 0
    recorder.token(0, 1, "x", LOGPROBS)
    recorder.token(1, 2, "x")
    recorder.token(0, 3, "x", LOGPROBS)
    recorder.finish(0, "length", 2)
    recorder.token(0, 9, "x")  # of a step that was in flight
    recorder.finish(1, "stop", 1)
    await recorder.close()
    recovered = await journal.find("s")
    assert recovered is not None
    assert recovered.choices == [
        RecoveredChoice("xx", [1, 3], [LOGPROBS, LOGPROBS], "length", 2),
        RecoveredChoice("x", [2], [None], "stop", 1),
        RecoveredChoice(),
    ]
    assert recovered.num_tokens == 3
    assert not recovered.is_finished
    reopened = await journal.reopen("s")
    assert reopened is not None
    recovered, recorder = reopened
    assert recovered.num_tokens == 3
    recorder.finish(2, "abort", 0)
    await recorder.close()
    recovered = await journal.find("s")
    assert recovered is not None
    assert recovered.is_finished


async def test_every_prefix_recovers_the_whole_records_in_it() -> None:
    data = await three_choices()
    records = frames(data)
    kinds = ["begin", "tokens", "tokens", "finish", "tokens", "tokens"]
    assert [record["record"] for _, record in records] == kinds
    storage = MemoryStorage()
    journal = new_journal(storage)
    await (await begun(journal, begin(n=3))).close()
    (name,) = storage.strings
    for num_bytes in range(len(data) + 1):
        whole = [(end, record) for end, record in records if end <= num_bytes]
        expected = folded([record for _, record in whole]) if whole else None
        num_good_bytes = whole[-1][0] if whole else 0
        assert read(data[:num_bytes]) == (expected, num_good_bytes)

        storage.strings[name] = bytearray(data[:num_bytes])
        reopened = await journal.reopen("s")
        if expected is None:
            assert reopened is None
            assert not storage.owned
            continue
        assert reopened is not None
        recovered, recorder = reopened
        assert plain(recovered.choices) == expected
        recorder.token(2, 77, "x")
        recorder.finish(2, "stop", 1, "end")
        await recorder.close()
        expected[2]["text"] += "xend"
        expected[2]["token_ids"].append(77)
        expected[2]["logprobs"].append(None)
        expected[2] |= {"finish_reason": "stop", "num_output_tokens": 1}
        assert read(bytes(storage.strings[name])) == (expected, len(storage.strings[name]))


async def test_a_flipped_bit_costs_its_record_and_those_after_it() -> None:
    data = await three_choices()
    records = frames(data)
    for at in range(len(data)):
        whole = [(end, record) for end, record in records if end <= at]
        expected = folded([record for _, record in whole]) if whole else None
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            assert read(bytes(damaged)) == (expected, whole[-1][0] if whole else 0)


@pytest.mark.parametrize(
    "tail",
    [
        bytes(4096),  # as a file system may leave it after a power cut
        framed({"record": "checkpoint"}),
        framed({"record": "tokens", "choice": 3, "token_ids": [1]}),
        framed({"record": "tokens", "choice": -1, "token_ids": [1]}),
        framed({"record": "tokens", "choice": 0, "token_ids": [1], "logprobs": []}),
        framed({"record": "finish", "choice": 0, "reason": "tired", "num_output_tokens": 1}),
        framed(begin(n=3)),
        framed([[[]]]),
        struct.pack("<II", 0xFFFFFFFF, 0),
    ],
)
async def test_what_cannot_be_read_ends_the_journal(tail: bytes) -> None:
    data = await three_choices()
    after = framed({"record": "tokens", "choice": 0, "token_ids": [1]})
    assert read(data + tail + after) == read(data)


@pytest.mark.parametrize(
    "changes", [{"version": 2}, {"request": {"n": 129}}, {"prompt_ids": b"123"}, {"seed": "x"}]
)
def test_a_begin_that_cannot_be_is_none(changes: dict[str, Any]) -> None:
    data = framed(plain_begin() | changes)
    assert read_journal(framed(plain_begin()))[1] > 0
    assert read_journal(data) == (None, 0)
    assert read_journal(framed({"record": "tokens", "choice": 0, "token_ids": []})) == (None, 0)


def plain_begin() -> dict[str, Any]:
    fields: dict[str, Any] = plain(begin())
    return fields


class Timers:
    """Stands for the timers of an event loop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.running: list[Callable[[], object]] = []
        monkeypatch.setattr(asyncio.get_running_loop(), "call_later", self._call_later)

    def _call_later(self, delay: float, callback: Callable[[], object]) -> "Timers._Handle":
        assert 0 < delay <= 0.2
        self.running.append(callback)
        return self._Handle(self, callback)

    class _Handle:
        def __init__(self, timers: "Timers", callback: Callable[[], object]) -> None:
            self._timers, self._callback = timers, callback

        def cancel(self) -> None:
            if self._callback in self._timers.running:
                self._timers.running.remove(self._callback)

    def expire(self) -> None:
        (callback,) = self.running
        self.running.clear()
        callback()


def tokens_in(data: bytes) -> list[int]:
    return [each for _, record in frames(data) for each in record.get("token_ids", ())]


async def test_batches(
    storage: MemoryStorage, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = await begun(journal, begin())
    timers = Timers(monkeypatch)
    for token_id in range(64):
        assert len(timers.running) == (token_id > 0)
        assert storage.appends.empty()
        recorder.token(0, token_id, "x")
    assert not timers.running
    assert tokens_in(await storage.appends.get()) == list(range(64))

    for token_id in range(64, 67):
        recorder.token(0, token_id, "x")
    timers.expire()
    assert tokens_in(await storage.appends.get()) == [64, 65, 66]
    assert not timers.running

    recorder.token(0, 67, "x")
    recorder.finish(0, "stop", 68)
    assert not timers.running
    last = await storage.appends.get()
    assert [record["record"] for _, record in frames(last)] == ["tokens", "finish"]
    await recorder.close()
    assert storage.appends.empty()
    assert not timers.running


async def test_a_batch_has_64_tokens_of_each_choice(
    storage: MemoryStorage, journal: Journal
) -> None:
    recorder = await begun(journal, begin(n=3))
    for token_id in range(64):
        for choice in range(3):
            recorder.token(choice, token_id, "x")
    records = frames(await storage.appends.get())
    assert [len(record["token_ids"]) for _, record in records] == [64, 64, 64]
    await recorder.close()


async def test_a_slow_storage_gets_all_in_order(storage: MemoryStorage, journal: Journal) -> None:
    storage.gate = asyncio.Event()
    recorder = await begun(journal, begin())
    for token_id in range(64):
        recorder.token(0, token_id, "x")
    while not storage.num_appending:
        await asyncio.sleep(0)
    for token_id in range(64, 400):
        recorder.token(0, token_id, "x")
    closing = [asyncio.create_task(recorder.close()) for _ in range(2)]
    await asyncio.sleep(0)
    assert storage.owned
    storage.gate.set()
    await asyncio.gather(*closing)
    assert not storage.owned
    assert tokens_in(storage.appends.get_nowait()) == list(range(64))
    assert tokens_in(storage.appends.get_nowait()) == list(range(64, 400))
    assert storage.appends.empty()


async def test_close_ends_the_ownership_though_it_is_cancelled(
    storage: MemoryStorage, journal: Journal
) -> None:
    storage.gate = asyncio.Event()
    recorder = await begun(journal, begin())
    recorder.token(0, 1, "x")
    closing = asyncio.create_task(recorder.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert storage.owned
    storage.gate.set()
    await recorder.close()
    assert not storage.owned
    assert tokens_in(storage.appends.get_nowait()) == [1]
    recorder.token(0, 2, "x")
    recorder.finish(0, "stop", 2)
    assert storage.appends.empty()


async def test_a_full_disk_does_not_end_the_answer(
    storage: MemoryStorage, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = await begun(journal, begin())
    for token_id in range(64):
        recorder.token(0, token_id, "x")
    await storage.appends.get()
    storage.error = StorageFullError("the disk is full")
    failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
    recorder.on_error = failed.set_result
    for token_id in range(64, 128):
        recorder.token(0, token_id, "x")
    assert await failed is storage.error
    assert recorder.error is storage.error
    storage.error = None
    for token_id in range(128, 256):
        recorder.token(0, token_id, "x")
    recorder.finish(0, "stop", 256)
    await recorder.close()
    assert storage.appends.empty()
    assert caplog.text.count("the disk is full") == 1
    recovered = await journal.find("s")
    assert recovered is not None
    assert recovered.choices[0].token_ids == list(range(64))
    assert not storage.owned


async def test_close_does_not_raise(
    storage: MemoryStorage, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    storage.error = ArtifactError("no permission")
    recorder = await begun(journal, begin())
    recorder.token(0, 1, "x")
    await recorder.close()
    assert recorder.error is storage.error
    assert not storage.owned


async def test_a_session_id_is_used_once(storage: MemoryStorage, journal: Journal) -> None:
    recorder = await begun(journal, begin())
    with pytest.raises(RequestError, match="session 's' already") as caught:
        await begun(journal, begin())
    assert caught.value.field == "extra_body.resumable.session_id"
    await recorder.close()
    with pytest.raises(RequestError, match="already"):
        await begun(journal, begin())


async def test_a_session_whose_begin_was_torn_starts_anew(
    storage: MemoryStorage, journal: Journal
) -> None:
    await (await begun(journal, begin())).close()
    for damaged in storage.strings.values():
        del damaged[40:]
    assert await journal.find("s") is None
    await (await begun(journal, begin())).close()
    assert await journal.find("s") is not None


async def test_a_request_that_cannot_be_written(journal: Journal) -> None:
    large = msgspec.structs.replace(begin(), request={"seed": 2**70})
    with pytest.raises(RequestError, match="64 bits"):
        await begun(journal, large)


async def test_one_owner(storage: MemoryStorage, journal: Journal) -> None:
    recorder = await begun(journal, begin())
    assert await journal.reopen("other") is None
    with pytest.raises(RequestError, match="'s' is under way"):
        await journal.reopen("s")
    with pytest.raises(RequestError, match="'s' is under way"):
        await journal.delete("s")
    await recorder.close()
    reopened = await journal.reopen("s")
    assert reopened is not None
    with pytest.raises(RequestError, match="'s' is under way"):
        await journal.reopen("s")
    await reopened[1].close()


async def test_reopening_fails_without_keeping_the_session(
    storage: MemoryStorage, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(name: str) -> bytes | None:
        raise ArtifactError("cannot be read")

    await (await begun(journal, begin())).close()
    monkeypatch.setattr(storage, "read", refuse)
    with pytest.raises(ArtifactError):
        await journal.reopen("s")
    assert not storage.owned


async def add(journal: Journal, *session_ids: str) -> list[Recorder]:
    created = time.time()
    return [
        await begun(journal, begin(session_id, created=created + number))
        for number, session_id in enumerate(session_ids)
    ]


async def listed(journal: Journal) -> list[tuple[str, bool]]:
    return [(each.recovered.begin.session_id, each.is_owned) for each in await journal.list()]


async def test_list_and_delete(storage: MemoryStorage, journal: Journal) -> None:
    first, second, third = await add(journal, "a", "b", "c")
    await first.close()
    await second.close()
    assert await listed(journal) == [("c", True), ("b", False), ("a", False)]
    await journal.delete("a")
    with pytest.raises(SessionNotFoundError, match="no session 'a'"):
        await journal.delete("a")
    assert await listed(journal) == [("c", True), ("b", False)]
    await journal.delete_all()
    assert await listed(journal) == [("c", True)]
    await third.close()
    await journal.delete_all()
    assert not storage.strings


async def test_one_unreadable_session_does_not_hide_the_others(
    storage: MemoryStorage,
    journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for recorder in await add(journal, "a", "b"):
        await recorder.close()
    unreadable = next(iter(storage.strings))
    in_memory = storage.read

    async def read_one(name: str) -> bytes | None:
        if name == unreadable:
            raise ArtifactError("no permission")
        return await in_memory(name)

    monkeypatch.setattr(storage, "read", read_one)
    assert await listed(journal) == [("b", False)]
    assert "no permission" in caplog.text


def make_older(storage: MemoryStorage, age_s: float) -> None:
    """Makes the first session the oldest, and each later one 10 s younger."""
    for number, name in enumerate(storage.changed):
        storage.changed[name] = time.time() - age_s + 10 * number


async def test_expiry_by_age(storage: MemoryStorage) -> None:
    journal = new_journal(storage, max_age_s=100)
    running, *others = await add(journal, "running", "old", "damaged", "young")
    for recorder in others:
        await recorder.close()
    storage.strings[list(storage.strings)[2]].clear()
    make_older(storage, 125)
    assert await listed(journal) == [("young", False), ("running", True)]
    assert len(storage.strings) == 2
    await running.close()
    (recorder,) = await add(journal, "new")
    assert sorted(await listed(journal)) == [("new", True), ("young", False)]
    await recorder.close()


async def test_expiry_by_number(storage: MemoryStorage) -> None:
    journal = new_journal(storage, max_entries=2)
    running, *others = await add(journal, "running", "b", "c", "d")
    for recorder in others:
        await recorder.close()
    make_older(storage, 50)
    others = await add(journal, "e", "f", "g")  # under way, and so not counted
    names = sorted(name for name, _ in await listed(journal))
    assert names == ["c", "d", "e", "f", "g", "running"]
    for recorder in (running, *others):
        await recorder.close()
    assert len(await journal.list()) == 2


async def test_a_session_of_the_far_future_expires(storage: MemoryStorage) -> None:
    journal = new_journal(storage, max_age_s=100)
    for recorder in await add(journal, "a"):
        await recorder.close()
    make_older(storage, -200)
    assert await listed(journal) == []


async def test_a_session_that_cannot_be_deleted_does_not_stop_the_next(
    storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(name: str) -> bool:
        raise ArtifactError("no permission")

    journal = new_journal(storage, max_entries=0)
    for recorder in await add(journal, "a"):
        await recorder.close()
    monkeypatch.setattr(storage, "delete", refuse)
    for recorder in await add(journal, "b"):
        await recorder.close()
    assert "no permission" in caplog.text
    assert len(storage.strings) == 2


async def test_reading_in_a_thread(storage: MemoryStorage) -> None:
    journal = Journal(storage)
    await (await begun(journal, begin())).close()
    assert await journal.find("s") is not None


def test_a_recorder_that_is_collected_calls_no_storage(storage: MemoryStorage) -> None:
    """The collector may run while a thread pool's lock is held, for which a call would wait."""
    event_loop = asyncio.new_event_loop()

    async def leave() -> None:
        storage.gate = asyncio.Event()
        recorder = await begun(new_journal(storage), begin())
        recorder.token(0, 1, "x")
        recorder._closing = event_loop.create_task(recorder._close())
        await asyncio.sleep(0)

    event_loop.run_until_complete(leave())
    num_closes = storage.num_closes
    event_loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tasks that were pending
        gc.collect()
    assert storage.num_closes == num_closes
