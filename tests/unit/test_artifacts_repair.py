"""Stored files that were damaged: noticed, refused, and repaired from the server."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from file_server import BODY, PART, SHA, Departure, FileServer, serving

from webllm.artifacts.destination import WINDOW_BYTES
from webllm.artifacts.fetch_source import FetchOptions
from webllm.artifacts.resolve import ensure_artifact
from webllm.artifacts.retry import RetryPolicy
from webllm.artifacts.source import HTTPSource
from webllm.artifacts.store import DirectoryStore
from webllm.errors import FetchError, IntegrityError, StorageFullError

QUICK = FetchOptions(RetryPolicy(attempts=2, unreached_attempts=2, first_pause_s=0.001))
RANGES = [f"bytes=0-{PART - 1}", f"bytes={PART}-{2 * PART - 1}"]
STRIDE = 4  # 1 kills at every change of the disk


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(FileServer()) as server:
        yield server


@pytest.fixture
async def stored(server: FileServer, tmp_path: Path) -> DirectoryStore:
    """A store with the server's file; its requests are forgotten."""
    store = DirectoryStore(tmp_path / "store")
    await ensure_artifact(server.url, store, None, QUICK)
    server.ranges.clear()
    return store


def flip(file: Path, *positions: int) -> None:
    with file.open("r+b") as stream:
        for position in positions:
            stream.seek(position)
            byte = stream.read(1)[0]
            stream.seek(position)
            stream.write(bytes([byte ^ 0x10]))


def _part(requested: str | None) -> int:
    """Returns the part that a Range asks for, and no byte more."""
    first, _, last = (requested or "").removeprefix("bytes=").partition("-")
    part = int(first) // PART
    assert last in ({"", str(len(BODY) - 1)} if part == 2 else {str((part + 1) * PART - 1)})
    assert int(first) == part * PART
    return part


def blob(store: DirectoryStore) -> Path:
    return store.root / "blobs" / f"sha256-{SHA}"


def sums(store: DirectoryStore) -> Path:
    return store.root / "blobs" / f"sha256-{SHA}.xxh64"


@pytest.mark.parametrize(
    ("flipped", "parts"),
    [
        ([0], [0]),  # the first window
        ([WINDOW_BYTES], [0]),
        ([PART + 5, 2 * PART - 1], [1]),
        ([len(BODY) - 1], [2]),  # the last one
        ([7, len(BODY) - 2], [0, 2]),
        ([0, PART, 2 * PART], [0, 1, 2]),
    ],
)
async def test_only_damaged_parts_are_requested(
    server: FileServer,
    stored: DirectoryStore,
    caplog: pytest.LogCaptureFixture,
    flipped: list[int],
    parts: list[int],
) -> None:
    flip(blob(stored), *flipped)
    with caplog.at_level(logging.WARNING):
        path = await ensure_artifact(server.url, stored, None, QUICK)
    assert path == blob(stored)
    assert path.read_bytes() == BODY
    if len(parts) == 3:
        assert server.ranges == [None]
    else:
        assert sorted(map(_part, server.ranges)) == parts
    assert f"{server.url} is damaged (parts: {len(parts)})" in caplog.text
    assert not list((stored.root / "partial").iterdir())
    requests = len(server.ranges)
    assert await ensure_artifact(server.url, stored, None, QUICK) == path
    assert len(server.ranges) == requests


async def test_a_file_without_checksums_is_verified_by_its_hash_once(
    server: FileServer, stored: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sums(stored).read_bytes()
    for damage in (b"", expected[:-8], bytes(8) + expected[8:], expected + bytes(8), None):
        if damage is None:
            sums(stored).unlink()
        else:
            sums(stored).write_bytes(damage)
        assert await ensure_artifact(server.url, stored) == blob(stored)
        assert sums(stored).read_bytes() == expected
    monkeypatch.setattr("webllm.artifacts.blob.hashlib.file_digest", None)
    assert await ensure_artifact(server.url, stored) == blob(stored)
    assert server.ranges == []


async def test_a_damaged_file_without_checksums_is_fetched_whole(
    server: FileServer, stored: DirectoryStore
) -> None:
    sums(stored).unlink()
    flip(blob(stored), PART)
    assert (await ensure_artifact(server.url, stored, None, QUICK)).read_bytes() == BODY
    assert server.ranges == [None]


async def test_a_server_that_is_gone(server: FileServer, stored: DirectoryStore) -> None:
    flip(blob(stored), 3, PART)
    server.script = [Departure(status=503)] * 100  # a cancelled request may take one of them later
    said = rf"{server.url} is damaged \(parts: 2\) and could not be repaired: .*503.*try again"
    with pytest.raises(IntegrityError, match=said) as caught:
        await ensure_artifact(server.url, stored, None, QUICK)
    assert caught.value.url == server.url
    assert not stored.has(HTTPSource(server.url))
    with pytest.raises(FetchError, match=f"{len(BODY) - 2 * PART} bytes are stored"):
        await ensure_artifact(server.url, stored, None, QUICK)
    server.script, server.ranges = [], []
    assert (await ensure_artifact(server.url, stored, None, QUICK)).read_bytes() == BODY
    assert set(server.ranges) == set(RANGES)


async def test_a_file_that_changed_on_the_server(
    server: FileServer, stored: DirectoryStore
) -> None:
    flip(blob(stored), PART)
    server.headers, server.body = {"ETag": '"v2"'}, BODY[::-1]
    path = await ensure_artifact(server.url, stored, None, QUICK)
    assert path.read_bytes() == BODY[::-1]
    assert path.name == f"sha256-{sha256(BODY[::-1]).hexdigest()}"
    assert {file.name for file in path.parent.iterdir()} == {path.name, f"{path.name}.xxh64"}


async def test_a_pinned_file_that_changed_on_the_server(
    server: FileServer, stored: DirectoryStore
) -> None:
    pinned = f"{server.url}#sha256={SHA}"
    await ensure_artifact(pinned, stored, None, QUICK)  # adopted
    flip(blob(stored), PART)
    server.headers, server.body = {"ETag": '"v2"'}, BODY[::-1]
    with pytest.raises(IntegrityError, match=rf"could not be repaired: .*expected {SHA}"):
        await ensure_artifact(pinned, stored, None, QUICK)


async def test_only_damaged_parts_of_an_adopted_file_are_requested(
    server: FileServer, stored: DirectoryStore
) -> None:
    """It has no version, because its own server was never asked; its hash is known."""
    pinned = f"{server.url}#sha256={SHA}"
    await ensure_artifact(pinned, stored, None, QUICK)
    flip(blob(stored), PART)
    assert (await ensure_artifact(pinned, stored, None, QUICK)).read_bytes() == BODY
    assert server.ranges == [RANGES[1]]


async def test_a_damaged_file_is_not_adopted(
    server: FileServer, stored: DirectoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    flip(blob(stored), PART)
    other = f"{server.url}?mirror#sha256={SHA}"
    path = await ensure_artifact(other, stored, None, QUICK)
    assert "is damaged, so" in caplog.text
    assert path.read_bytes() == BODY
    assert server.ranges == [None]
    assert await ensure_artifact(server.url, stored, None, QUICK) == path  # both are whole again
    assert server.ranges == [None]


async def test_no_space_for_a_repair(
    server: FileServer, stored: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(blob(stored), PART)

    def full(*_: object) -> None:
        raise StorageFullError("the disk is full")

    monkeypatch.setattr("webllm.artifacts.partial.require_space", full)
    with pytest.raises(StorageFullError, match="the disk is full"):
        await ensure_artifact(server.url, stored, None, QUICK)
    monkeypatch.undo()
    assert (await ensure_artifact(server.url, stored, None, QUICK)).read_bytes() == BODY
    assert set(server.ranges) == {RANGES[1]}


async def test_tasks_that_want_a_damaged_file_repair_it_once(
    server: FileServer, stored: DirectoryStore
) -> None:
    flip(blob(stored), PART)
    wanted = (ensure_artifact(server.url, stored, None, QUICK) for _ in range(3))
    assert set(await asyncio.gather(*wanted)) == {blob(stored)}
    assert blob(stored).read_bytes() == BODY
    assert server.ranges == [RANGES[1]]


PULL = """
import asyncio, os, signal, sys
from webllm.artifacts.fetch_source import FetchOptions
from webllm.artifacts.resolve import ensure_artifact
from webllm.artifacts.retry import RetryPolicy
from webllm.artifacts.store import DirectoryStore
import httpx, webllm.artifacts.http_client

url, root = sys.argv[1:]
options = FetchOptions(RetryPolicy(attempts=2, first_pause_s=0.001))
CHANGES = {"open", "os.rename", "os.remove", "os.truncate"}


def pull(kill_at):
    '''Downloads; the process is killed before its change number `kill_at` of the store.'''
    step = 0

    def count(event, arguments):
        nonlocal step
        if event in CHANGES and str(arguments[0]).startswith(root):
            step += 1
            if step == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    asyncio.run(ensure_artifact(url, DirectoryStore(root), None, options))


def child(kill_at):
    if (process := os.fork()) == 0:
        try:
            pull(kill_at)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


for line in sys.stdin:
    print(child(int(line)), flush=True)
"""


class Puller:
    """Pulls in children of one process, which has imported everything already."""

    def __init__(self, url: str, store: DirectoryStore) -> None:
        command = [sys.executable, "-c", PULL, url, str(store.root)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )

    def __enter__(self) -> Puller:
        return self

    def pull(self, kill_at: int = 0) -> int:
        """Returns the exit code; -9 if the child was killed."""
        self.begin(kill_at)
        return self.end()

    def begin(self, kill_at: int = 0) -> None:
        assert self._process.stdin
        print(kill_at, file=self._process.stdin, flush=True)

    def end(self) -> int:
        assert self._process.stdout
        return int(self._process.stdout.readline())

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_download_killed_anywhere_is_resumed(server: FileServer, tmp_path: Path) -> None:
    store, source = DirectoryStore(tmp_path / "store"), HTTPSource(server.url)
    server.body = BODY[: PART + 1000]
    with Puller(server.url, store) as puller:
        for kill_at in range(1, 100, STRIDE):
            code = puller.pull(kill_at)
            if code == 0:
                break
            assert code == -9
            stored = asyncio.run(store.partial(source).recover())[1]
            server.ranges.clear()
            assert puller.pull() == 0
            assert store.path(source).read_bytes() == server.body
            assert store.damaged_parts(source) == []
            assert None not in server.ranges or not stored
            assert not list((store.root / "partial").glob("*.part"))
            store.delete(source)
    assert kill_at > 25


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
async def test_a_repair_killed_anywhere_is_resumed(
    server: FileServer, stored: DirectoryStore
) -> None:
    with Puller(server.url, stored) as puller:
        for kill_at in range(1, 100, STRIDE):
            flip(blob(stored), PART + 77)
            code = puller.pull(kill_at)
            assert code in (0, -9)
            assert puller.pull() == 0
            assert blob(stored).read_bytes() == BODY
            assert stored.damaged_parts(HTTPSource(server.url)) == []
            if code == 0:
                break
    assert kill_at > 25
    assert set(server.ranges) == {RANGES[1]}


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_processes_that_want_a_damaged_file_repair_it_once(
    server: FileServer, tmp_path: Path
) -> None:
    store, source = DirectoryStore(tmp_path / "store"), HTTPSource(server.url)
    with Puller(server.url, store) as one, Puller(server.url, store) as two:
        assert one.pull() == 0
        for kill_at in (0, 0, 12):  # the last time one of them is killed, and the other goes on
            flip(blob(store), PART + 77)
            server.ranges.clear()
            one.begin(kill_at)
            two.begin()
            assert one.end() in ({0, -9} if kill_at else {0})
            assert two.end() == 0
            assert store.path(source).read_bytes() == BODY
            assert server.ranges == [RANGES[1]] or kill_at
            assert set(server.ranges) == {RANGES[1]}
