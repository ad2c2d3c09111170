"""The download of both hosts without network, disk or browser: every fault, a kill anywhere."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webllm.artifacts import transfer as transfer_module
from webllm.artifacts.destination import Chunk, RemoteVersion
from webllm.artifacts.download import download
from webllm.artifacts.progress import InitProgressReport, Phase, ProgressReporter
from webllm.artifacts.response_head import BrokenError, Head
from webllm.artifacts.retry import RetryPolicy
from webllm.artifacts.transfer import RemoteFile
from webllm.errors import FetchError, IntegrityError, ModelNotFoundError, StorageFullError

BODY = bytes(range(95))
PART = 10
SHA = sha256(BODY).hexdigest()
QUICK = RetryPolicy(attempts=4, unreached_attempts=2, first_pause_s=0.0)
URL = "https://host/model.gguf"


class Killed(BaseException):
    """Stands for the end of the process."""


@dataclass
class Machine:
    """Counts the steps of input and output; the process is killed at one of them."""

    kill_at: int | None = None
    step: int = 0

    def tick(self) -> None:
        self.step += 1
        if self.step == self.kill_at:
            raise Killed


@dataclass
class Folder:
    """A destination in memory that outlives the process."""

    machine: Machine = field(default_factory=Machine)
    part_bytes: int = PART
    version: RemoteVersion = field(default_factory=RemoteVersion)
    parts: dict[int, bytes] = field(default_factory=dict)
    sums: dict[int, bytes] = field(default_factory=dict)
    space: int = 1000
    done: bytes | None = None
    kept: tuple[RemoteVersion, str] | None = None

    async def recover(self) -> tuple[RemoteVersion, set[int]]:
        self.machine.tick()
        return self.version, set(self.parts)

    async def restart(self, version: RemoteVersion) -> None:
        await self.drop()
        self.machine.tick()
        self.version = version

    async def require_space(self, num_bytes: int) -> None:
        if num_bytes > self.space:
            raise StorageFullError(f"{num_bytes} do not fit")

    async def put(self, part: int, chunks: Sequence[Chunk]) -> None:
        self.machine.tick()
        await asyncio.sleep(0)
        self.machine.tick()
        self.parts[part] = self.sums[part] = b"".join(map(bytes, chunks))
        self.machine.tick()

    async def read(self, part: int) -> bytes | None:
        self.machine.tick()
        await asyncio.sleep(0)
        data = self.parts[part]
        if data == self.sums[part]:
            return data
        del self.parts[part]
        return None

    async def keep(self, version: RemoteVersion, sha256: str) -> None:
        self.machine.tick()
        assert version.size is not None
        num_parts = -(-version.size // PART)
        self.done = b"".join(self.parts[part] for part in range(num_parts))
        self.kept = version, sha256

    async def drop(self) -> None:
        self.machine.tick()
        self.parts, self.version = {}, RemoteVersion()


@dataclass
class Fault:
    """What is wrong with one response."""

    status: int | None = None
    cut: int | None = None  # the connection breaks after this many bytes
    ends: int | None = None  # the body ends after this many bytes, without an error
    ignores_range: bool = False
    shift: int = 0  # of the offset of the body, which its header states
    headers: dict[str, str] = field(default_factory=dict)
    unreachable: bool = False


@dataclass
class Server:
    """A server with one file, as a `Client` sees it. Faults are those of the next responses."""

    body: bytes = BODY
    headers: dict[str, str] = field(default_factory=lambda: {"etag": '"1"'})
    faults: list[Fault] = field(default_factory=list)
    machine: Machine = field(default_factory=Machine)
    cors: bool = False
    takes_ranges: bool = True
    states_length: bool = True
    chunk_bytes: int = 7
    chunk_s: float = 0.0
    max_open: int = 100  # more responses at a time are refused
    num_open: int = 0
    refused: str | None = None  # a range
    ranges: list[str | None] = field(default_factory=list)
    sent: int = 0

    @asynccontextmanager
    async def get(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[Answer]:
        assert url == URL
        self.machine.tick()
        await asyncio.sleep(0)
        self.ranges.append(headers.get("Range"))
        fault = self.faults.pop(0) if self.faults else Fault()
        if fault.unreachable:
            raise BrokenError("the connection broke")
        if self.cors:
            assert set(headers) <= {"Range"}
        if self.num_open >= self.max_open or headers.get("Range", "") == self.refused:
            fault = Fault(status=503)
        self.num_open += 1
        try:
            yield self._answer(headers, fault)
        finally:
            self.num_open -= 1

    def _answer(self, headers: Mapping[str, str], fault: Fault) -> Answer:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("Range", ""))
        unchanged = headers.get("If-Range") in (None, *self.headers.values())
        size = len(self.body)
        if fault.status is not None:
            return Answer(self, Head(fault.status, "", fault.headers), b"", fault)
        if asked and self.takes_ranges and unchanged and not fault.ignores_range:
            first, last = int(asked[1]) + fault.shift, min(int(asked[2] or size - 1), size - 1)
            if first >= size:
                return Answer(self, Head(416, "", {}), b"", fault)
            body, status = self.body[first : last + 1], 206
            stated = {"content-range": f"bytes {first}-{last}/{size}"}
        else:
            body, status, stated = self.body, 200, {}
        if self.states_length:
            stated["content-length"] = str(len(body))
        if self.takes_ranges:
            stated["accept-ranges"] = "bytes"
        if self.cors:
            stated.pop("content-range", None)  # as long as the server does not expose it
        return Answer(self, Head(status, "", stated | self.headers | fault.headers), body, fault)


@dataclass
class Answer:
    server: Server
    head: Head
    body: bytes
    fault: Fault

    async def chunks(self) -> AsyncIterator[bytes]:
        end = min(
            each for each in (self.fault.cut, self.fault.ends, len(self.body)) if each is not None
        )
        for start in range(0, end, self.server.chunk_bytes):
            self.server.machine.tick()
            await asyncio.sleep(self.server.chunk_s)
            chunk = self.body[start : min(end, start + self.server.chunk_bytes)]
            self.server.sent += len(chunk)
            yield chunk
        if self.fault.cut is not None:
            raise BrokenError("the connection broke")


FILE, HASHED = RemoteFile(URL), RemoteFile(URL, SHA)


async def fetch(
    server: Server,
    folder: Folder,
    file: RemoteFile = FILE,
    reports: list[InitProgressReport] | None = None,
    retry: RetryPolicy = QUICK,
) -> bytes:
    callback = None if reports is None else reports.append
    reporter = ProgressReporter(callback, Phase.FETCH, interval_s=0)
    await download(file, server, folder, reporter, retry)
    assert folder.done is not None
    assert folder.kept is not None
    version, digest = folder.kept
    assert (version.size, digest) == (len(folder.done), sha256(folder.done).hexdigest())
    return folder.done


@pytest.fixture(params=[False, True], ids=["native", "browser"])
def server(request: pytest.FixtureRequest) -> Server:
    return Server(cors=request.param)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part takes too long, so that the rest is requested in parts."""
    monkeypatch.setattr(transfer_module, "_SLOW_PART_S", -1.0)


async def test_one_stream_is_enough(server: Server) -> None:
    reports: list[InitProgressReport] = []
    assert await fetch(server, Folder(), FILE, reports) == BODY
    assert (server.ranges, server.sent) == ([None], len(BODY))
    loaded = [report.loaded_bytes for report in reports]
    assert loaded == sorted(loaded)
    assert reports[-1].progress == 1.0


@pytest.mark.parametrize("chunk_bytes", [1, 10, 11, 95, 1000])
async def test_chunks_of_every_size(server: Server, chunk_bytes: int) -> None:
    server.chunk_bytes = chunk_bytes
    folder = Folder()
    assert await fetch(server, folder) == BODY
    assert {len(part) for part in folder.parts.values()} == {PART, 5}


async def test_a_broken_connection_continues_at_the_byte(server: Server) -> None:
    server.faults = [Fault(cut=33), Fault(status=503), Fault(cut=9), Fault(ends=0)]
    assert await fetch(server, Folder()) == BODY
    assert server.ranges == [None, "bytes=33-", "bytes=33-", "bytes=42-", "bytes=42-"]
    assert server.sent == len(BODY)


@pytest.mark.usefixtures("slow")
async def test_a_slow_stream_is_continued_in_parts(server: Server) -> None:
    assert await fetch(server, Folder()) == BODY
    assert server.ranges[:3] == [None, "bytes=10-19", "bytes=20-29"]
    assert server.ranges[-1] == "bytes=90-94"
    assert len(server.ranges) == 10


@pytest.mark.usefixtures("slow")
async def test_parts_that_break_are_continued(server: Server) -> None:
    server.faults = [Fault(), Fault(cut=3), Fault(status=500), Fault(ends=9), Fault(cut=0)]
    assert await fetch(server, Folder()) == BODY
    assert {"bytes=13-19", "bytes=20-29", "bytes=39-39", "bytes=40-49"} <= set(server.ranges)
    assert server.sent <= len(BODY) + 7  # what the stream had begun of the second part


class SlowFolder(Folder):
    """A destination that takes long to store one part."""

    slow_part = 9
    error: Exception | None = None

    async def put(self, part: int, chunks: Sequence[Chunk]) -> None:
        if part == self.slow_part:
            for _ in range(100):
                await asyncio.sleep(0)
            if self.error:
                raise self.error
        await super().put(part, chunks)


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("slow_part", [6, 8, 9])
async def test_a_file_is_whole_when_its_parts_are_stored(server: Server, slow_part: int) -> None:
    """All parts may be received and hashed while one is still being written."""
    folder = SlowFolder()
    folder.slow_part = slow_part
    assert await fetch(server, folder) == BODY
    assert len(folder.parts) == 10


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("slow_part", [6, 8, 9])
async def test_a_part_that_cannot_be_stored_at_the_end(server: Server, slow_part: int) -> None:
    folder = SlowFolder()
    folder.slow_part, folder.error = slow_part, StorageFullError("the disk is full")
    with pytest.raises(StorageFullError):
        await fetch(server, folder)
    assert folder.kept is None


@pytest.mark.usefixtures("slow")
async def test_a_server_that_refuses_several_requests_at_a_time(server: Server) -> None:
    server.max_open, server.chunk_bytes, server.chunk_s = 1, 1, 0.002
    retry = RetryPolicy(attempts=4, first_pause_s=0.004, longest_pause_s=0.01)
    assert await fetch(server, Folder(), retry=retry) == BODY


@pytest.mark.usefixtures("slow")
async def test_a_part_that_the_server_never_sends(server: Server) -> None:
    """The others arrive as far as they may, then the download fails."""
    server.refused = "bytes=20-29"
    folder = Folder()
    with pytest.raises(FetchError, match=r"failed 4 times in a row"):
        await fetch(server, folder)
    assert set(folder.parts) == {0, 1, 3, 4}


@pytest.mark.usefixtures("slow")
async def test_a_server_without_ranges_is_streamed(server: Server) -> None:
    server.takes_ranges = False
    assert await fetch(server, Folder()) == BODY
    assert server.ranges == [None]


async def test_the_next_attempt_requests_the_missing_parts_only(server: Server) -> None:
    folder = Folder()
    await fetch(server, folder)
    del folder.parts[0], folder.parts[4]
    folder.parts[9] = b"wrong"
    server.ranges = []
    assert await fetch(server, folder) == BODY
    assert server.ranges == ["bytes=0-9", "bytes=40-49", "bytes=90-94"]


async def test_a_stored_part_that_the_file_does_not_have(server: Server) -> None:
    folder = Folder()
    server.faults = [Fault(cut=33), *[Fault(status=500)] * 4]
    with pytest.raises(FetchError):
        await fetch(server, folder)
    folder.parts[20], server.ranges, server.faults = b"another file's", [], []
    assert await fetch(server, folder) == BODY
    assert server.ranges == ["bytes=30-"]


async def test_a_file_that_is_stored_whole_needs_no_server(server: Server) -> None:
    folder = Folder()
    await fetch(server, folder)
    server.ranges = []
    assert await fetch(server, folder) == BODY
    assert server.ranges == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"etag": '"1"'}, {"etag": '"2"'}),
        ({"etag": 'W/"1"'}, {"etag": 'W/"2"'}),
        ({"last-modified": "Monday"}, {"last-modified": "Tuesday"}),
        ({"etag": '"1"'}, {"last-modified": "Tuesday"}),
        ({}, {}),
    ],
)
@pytest.mark.parametrize("is_stored", [True, False])
async def test_another_version_starts_over(
    server: Server, before: dict[str, str], after: dict[str, str], is_stored: bool
) -> None:
    folder = Folder()
    server.headers, server.faults = before, [Fault(cut=33), *[Fault(status=500)] * 4]
    stored = 30 if before else 0
    with pytest.raises(FetchError, match=f"failed 4 times in a row.* {stored} bytes are stored"):
        await fetch(server, folder)
    if not is_stored:
        folder.parts = {}
    server.headers, server.body = after, BODY[::-1]
    assert await fetch(server, folder) == BODY[::-1]


async def test_a_known_hash_stands_for_a_version(server: Server) -> None:
    server.headers, server.faults = {}, [Fault(cut=33)]
    assert await fetch(server, Folder(), HASHED) == BODY
    assert server.ranges == [None, "bytes=33-"]


async def test_a_version_that_no_header_can_hold(server: Server) -> None:
    server.headers, server.faults = {"etag": '"\xe9"'}, [Fault(cut=33)]
    assert await fetch(server, Folder()) == BODY
    assert server.ranges == [None, "bytes=33-"]


@pytest.mark.parametrize("fault", [Fault(ignores_range=True), Fault(shift=3), Fault(status=416)])
async def test_wrong_ranges_start_over(server: Server, fault: Fault) -> None:
    server.cors = False  # a browser may not see the offset
    server.faults = [Fault(cut=33), fault]
    assert await fetch(server, Folder()) == BODY


async def test_a_shorter_version_starts_over(server: Server) -> None:
    folder = Folder()
    server.faults = [Fault(cut=33), *[Fault(status=500)] * 4]
    with pytest.raises(FetchError):
        await fetch(server, folder)
    server.body = BODY[:25]
    assert await fetch(server, folder) == BODY[:25]


async def test_a_body_of_unknown_length(server: Server) -> None:
    server.states_length = False
    assert await fetch(server, Folder()) == BODY
    server.body = b""
    assert await fetch(server, Folder()) == b""


async def test_a_compressed_body() -> None:
    """A browser decodes it: then its length is not that of the file."""
    headers = {"content-encoding": "gzip", "content-length": "5"}
    with pytest.raises(FetchError, match="gzip"):
        await fetch(Server(headers=headers), Folder())
    server = Server(headers=headers, cors=True, faults=[Fault(cut=33)])
    assert await fetch(server, Folder()) == BODY
    assert server.ranges == [None, None]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
async def test_a_refusal_is_final(server: Server, status: int) -> None:
    server.faults = [Fault(status=status)]
    error = ModelNotFoundError if status in (404, 410) else FetchError
    with pytest.raises(error, match=str(status)):
        await fetch(server, Folder())
    assert len(server.ranges) == 1


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(unreachable=True), "failed 2 times in a row"),
        (Fault(status=503), "failed 4 times in a row; last error: the server answered 503"),
        (Fault(status=416), "does not send what it is asked for"),
        (Fault(ends=33), r"the body ended after 33 of 95 bytes; 0 bytes are stored"),
        (Fault(status=429, headers={"retry-after": "600"}), "asks to wait 600 s"),
    ],
)
async def test_a_fault_that_lasts_ends_in_an_error(
    server: Server, fault: Fault, message: str
) -> None:
    server.headers, server.faults = {}, [fault] * 100  # nothing identifies the version
    with pytest.raises(FetchError, match=message):
        await fetch(server, Folder())


async def test_a_file_that_is_not_the_promised_one(server: Server) -> None:
    promises = [
        (RemoteFile(URL, "0" * 64), f"its SHA-256 is {SHA}, expected 000"),
        (RemoteFile(URL, size=94), "the server has 95 bytes, expected 94"),
    ]
    for promise, message in promises:
        folder = Folder()
        with pytest.raises(IntegrityError, match=message):
            await fetch(server, folder, promise)
        assert not folder.parts
    server.states_length = False
    with pytest.raises(IntegrityError, match="it has 95 bytes, expected 94"):
        await fetch(server, Folder(), RemoteFile(URL, size=94))


async def test_more_bytes_than_announced(server: Server) -> None:
    server.faults = [Fault(headers={"content-length": "50"})]
    with pytest.raises(IntegrityError, match="more than the 50 bytes it announced"):
        await fetch(server, Folder())


async def test_no_space(server: Server) -> None:
    folder = Folder(space=94)
    with pytest.raises(StorageFullError):
        await fetch(server, folder)
    assert server.sent == 0


async def test_cancelled_downloads_resume(server: Server) -> None:
    folder = Folder()
    task = asyncio.create_task(fetch(server, folder))
    while not folder.parts:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert folder.parts
    server.sent = 0
    assert await fetch(server, folder) == BODY
    assert server.sent <= len(BODY) - PART


async def killed_and_resumed(server: Server, folder: Folder, kill_at: int) -> bool:
    """Kills a download at a step, and resumes it; returns whether it came to that step."""
    machine = Machine(kill_at)
    server.machine = folder.machine = machine
    try:
        await fetch(server, folder)
    except Killed:
        pass
    else:
        return False
    await asyncio.sleep(0)
    server.machine = folder.machine = Machine()
    stored, server.sent = sum(map(len, folder.parts.values())), 0
    folder.done = None
    assert await fetch(server, folder) == BODY
    assert server.sent <= len(BODY) - stored + PART
    return True


@pytest.mark.parametrize("speed", ["fast", "slow"])
async def test_a_kill_at_every_step(
    server: Server, speed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each of some sixty steps: requests, chunks, and before, in and after each write."""
    monkeypatch.setattr(transfer_module, "_SLOW_PART_S", -1.0 if speed == "slow" else 3600.0)
    kills = 0
    while await killed_and_resumed(Server(cors=server.cors), Folder(), kills + 1):
        kills += 1
    assert kills >= 45


FAULTS = st.builds(
    Fault,
    status=st.sampled_from([None, None, None, 500, 416, 429]),
    cut=st.none() | st.integers(0, 95),
    ends=st.none() | st.integers(0, 95),
    ignores_range=st.booleans(),
)


@settings(deadline=None)
@given(
    faults=st.lists(FAULTS, max_size=8),
    kills=st.lists(st.integers(1, 60), max_size=5),
    cors=st.booleans(),
    is_slow=st.booleans(),
    takes_ranges=st.booleans(),
    headers=st.sampled_from([{"etag": '"1"'}, {"last-modified": "Monday"}, {}]),
)
def test_any_faults_and_kills_end_in_the_file_or_an_error(
    faults: list[Fault],
    kills: list[int],
    cors: bool,
    is_slow: bool,
    takes_ranges: bool,
    headers: dict[str, str],
) -> None:
    async def run() -> None:
        server = Server(headers=headers, faults=faults, cors=cors, takes_ranges=takes_ranges)
        folder = Folder()
        for kill_at in kills:
            server.machine = folder.machine = Machine(kill_at)
            try:
                await fetch(server, folder)
            except (Killed, FetchError):
                await asyncio.sleep(0)
        server.machine = folder.machine = Machine()
        server.faults = []
        assert await fetch(server, folder) == BODY

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer_module, "_SLOW_PART_S", -1.0 if is_slow else 3600.0)
        asyncio.run(run())
