"""A partial file as a download's destination: parts in any order, cut off anywhere, damaged."""

import asyncio
import os
import threading
from hashlib import sha256
from pathlib import Path

import pytest

from webllm.artifacts import partial as partial_module
from webllm.artifacts.checksum import file_checksums
from webllm.artifacts.destination import PART_BYTES, RemoteVersion
from webllm.artifacts.partial import PartialFile
from webllm.artifacts.source import HTTPSource
from webllm.artifacts.store import DirectoryStore
from webllm.errors import ArtifactError, StorageFullError

A = HTTPSource("https://host/a")
BODY = os.urandom(2 * PART_BYTES + 1000)
PARTS = [BODY[i : i + PART_BYTES] for i in range(0, len(BODY), PART_BYTES)]
VERSION = RemoteVersion('"e"', None, len(BODY))
NOTHING = RemoteVersion(), set[int]()


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


async def with_parts(store: DirectoryStore, *parts: int) -> PartialFile:
    partial = store.partial(A)
    await partial.restart(VERSION)
    for part in parts:
        await partial.put(part, [PARTS[part][:7], PARTS[part][7:]])
    return partial


async def test_parts_of_an_earlier_attempt(store: DirectoryStore) -> None:
    assert await store.partial(A).recover() == NOTHING
    await with_parts(store, 2, 0)
    partial = store.partial(A)
    assert await partial.recover() == (VERSION, {0, 2})
    assert await partial.read(2) == PARTS[2]
    await partial.put(1, [PARTS[1]])
    await partial.keep(VERSION, sha256(BODY).hexdigest())
    file = store.path(A)
    assert file.read_bytes() == BODY
    assert Path(f"{file}.xxh64").read_bytes() == b"".join(
        each.to_bytes(8, "little") for each in file_checksums(file)
    )
    assert not list((store.root / "partial").iterdir())
    [entry] = store.entries()
    assert (entry.etag, entry.last_modified, entry.size_bytes) == ('"e"', None, len(BODY))


async def test_parts_may_be_stored_at_once(store: DirectoryStore) -> None:
    partial = await with_parts(store)
    await asyncio.gather(*(partial.put(part, [data]) for part, data in enumerate(PARTS)))
    assert await store.partial(A).recover() == (VERSION, {0, 1, 2})
    assert [await partial.read(part) for part in range(3)] == PARTS


async def test_a_new_version_starts_over(store: DirectoryStore) -> None:
    partial = await with_parts(store, 0)
    other = RemoteVersion(None, "Monday", 5)
    await partial.restart(other)
    assert await store.partial(A).recover() == NOTHING
    await partial.put(0, [b"other"])
    assert await store.partial(A).recover() == (other, {0})
    await partial.drop()
    assert not list((store.root / "partial").iterdir())
    assert await store.partial(A).recover() == NOTHING


async def test_damaged_parts_are_put_again(store: DirectoryStore) -> None:
    partial = await with_parts(store, 0, 1, 2)
    data = bytearray(BODY)
    data[5] ^= 1
    partial.path.write_bytes(data[:-1])  # and the last part is cut
    partial = store.partial(A)
    assert await partial.recover() == (VERSION, {0, 1, 2})
    assert [await partial.read(part) for part in range(3)] == [None, PARTS[1], None]
    await partial.put(0, [PARTS[0]])
    await partial.put(2, [PARTS[2]])
    partial = store.partial(A)
    assert await partial.recover() == (VERSION, {0, 1, 2})
    assert [await partial.read(part) for part in range(3)] == PARTS


async def test_a_log_that_was_cut_anywhere(store: DirectoryStore) -> None:
    partial = await with_parts(store, 0, 1)
    log = partial.path.with_suffix(".log")
    text = log.read_bytes()
    first = text.index(b"\n") + 1
    for cut in range(len(text) + 1):
        log.write_bytes(text[:cut])
        whole = {0, 1} if cut == len(text) else {0} if cut >= first else set()
        again = store.partial(A)
        assert await again.recover() == (VERSION, whole)
        again._write_log({2: [1, 2]})
        assert await store.partial(A).recover() == (VERSION, {*whole, 2})


@pytest.mark.parametrize(
    "note", [b"", b"{", b"[]", b'{"etag": 5}', b'{"size": "9"}', b"[" * 100_000, b"\xff"]
)
async def test_parts_without_a_note_are_nobodys(store: DirectoryStore, note: bytes) -> None:
    partial = await with_parts(store, 0)
    partial.path.with_suffix(".json").write_bytes(note)
    assert await store.partial(A).recover() == NOTHING


@pytest.mark.parametrize("lost", [".part", ".log", ".json"])
async def test_what_is_left_alone_counts_as_nothing(store: DirectoryStore, lost: str) -> None:
    """Also if the process ended between moving the file and deleting its log."""
    partial = await with_parts(store, 0)
    partial.path.with_suffix(lost).unlink()
    partial = store.partial(A)
    assert await partial.recover() == NOTHING
    await partial.restart(VERSION)
    await partial.put(1, [PARTS[1]])
    assert await store.partial(A).recover() == (VERSION, {1})


@pytest.mark.parametrize("line", [b"x 0\n", b"-1 0123456789abcdef\n", b"\xff\xfe\n", b"0\n", b"\n"])
async def test_a_damaged_line_counts_as_absent(store: DirectoryStore, line: bytes) -> None:
    partial = await with_parts(store, 0)
    log = partial.path.with_suffix(".log")
    log.write_bytes(line + log.read_bytes())
    assert await store.partial(A).recover() == (VERSION, {0})


async def test_a_line_of_a_part_that_the_file_does_not_have(store: DirectoryStore) -> None:
    partial = await with_parts(store, 0, 1, 2)
    partial._write_log({3: [1, 2], 7: [1]})
    partial = store.partial(A)
    await partial.recover()
    await partial.keep(VERSION, sha256(BODY).hexdigest())
    assert store.damaged_parts(A) == []
    assert Path(f"{store.path(A)}.xxh64").stat().st_size == 5 * 8


async def test_a_file_is_not_kept_without_all_of_its_parts(store: DirectoryStore) -> None:
    partial = await with_parts(store, 0, 1)
    with pytest.raises(KeyError):
        await partial.keep(VERSION, sha256(BODY).hexdigest())
    assert not store.has(A)


async def test_a_full_disk(store: DirectoryStore) -> None:
    partial = await with_parts(store, 0)
    partial.path.unlink()
    partial.path.symlink_to("/dev/full")
    with pytest.raises(StorageFullError, match=r"is full.*free some space.*another disk"):
        await partial.put(1, [PARTS[1]])
    assert (await store.partial(A).recover())[1] == {0}


async def test_a_disk_that_refuses(store: DirectoryStore) -> None:
    partial = await with_parts(store, 0)
    partial.path.unlink()
    partial.path.mkdir()
    for refused in (partial.put(1, [b"x"]), partial.read(0), partial.drop()):
        with pytest.raises(ArtifactError, match="cannot be read or written"):
            await refused


async def test_a_cancelled_call_ends_before_the_lock_is_released(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = await with_parts(store, 0)
    began, may_end = threading.Event(), threading.Event()

    def slow(data: bytes) -> list[int]:
        began.set()
        may_end.wait(10)
        return [1, 2]

    monkeypatch.setattr(partial_module, "checksums", slow)
    task = asyncio.create_task(partial.put(1, [PARTS[1]]))
    await asyncio.to_thread(began.wait, 10)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await store.partial(A).recover())[1] == {0, 1}
