"""Ports over Unix sockets."""

from __future__ import annotations

import asyncio
import random
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from webllm.errors import ConfigError, RequestError, WorkerLostError
from webllm.workers import frames, unix_socket
from webllm.workers.frames import frame
from webllm.workers.unix_socket import SocketPort, check_path, connect, listen


@pytest.fixture
def path() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="webllm-test-"))
    yield folder / "x.sock"
    shutil.rmtree(folder)


class Received:
    """What a port delivered."""

    def __init__(self, port: SocketPort) -> None:
        self.messages: list[Any] = []
        self.reasons: list[str] = []
        self.is_closed = asyncio.Event()
        self._news = asyncio.Event()
        port.listen(self._receive, self._close)

    async def until(self, num_messages: int) -> list[Any]:
        async with asyncio.timeout(30):
            while len(self.messages) < num_messages:
                self._news.clear()
                await self._news.wait()
        return self.messages

    def _receive(self, message: object) -> None:
        self.messages.append(message)
        self._news.set()

    def _close(self, reason: str) -> None:
        self.reasons.append(reason)
        self.is_closed.set()


@asynccontextmanager
async def pair(path: Path) -> AsyncIterator[tuple[SocketPort, SocketPort]]:
    accepted: asyncio.Queue[SocketPort] = asyncio.Queue()
    server = await listen(path, accepted.put_nowait)
    ours = await connect(path)
    assert ours is not None
    theirs = await accepted.get()
    try:
        yield ours, theirs
    finally:
        server.close()
        await asyncio.gather(ours.close(), theirs.close())


async def test_messages_cross_in_order(path: Path) -> None:
    async with pair(path) as (ours, theirs):
        here, there = Received(ours), Received(theirs)
        sizes = (0, 10, 5_000_000, 3)
        for size in sizes:
            ours.post({"text": "x" * size})
            theirs.post({"size": size})
        assert [len(message["text"]) for message in await there.until(4)] == [*sizes]
        assert [message["size"] for message in await here.until(4)] == [*sizes]


async def test_messages_wait_for_a_listener(path: Path) -> None:
    async with pair(path) as (ours, theirs):
        for i in range(4):
            ours.post({"n": i})
        assert await theirs.first() == {"n": 0}
        await ours.close()
        await theirs.wait_closed()
        there = Received(theirs)
        assert await there.until(3) == [{"n": 1}, {"n": 2}, {"n": 3}]
        await there.is_closed.wait()
        assert there.reasons == ["the other end is gone"]
        with pytest.raises(WorkerLostError, match="nothing came: the other end is gone"):
            await theirs.first()
        for port in (ours, theirs):
            with pytest.raises(WorkerLostError, match="closed"):
                port.post({})
            await port.close()


async def test_a_listener_that_raises_gets_the_next_message(path: Path) -> None:
    async with pair(path) as (ours, theirs):
        here = Received(ours)
        errors: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))

        def receive(message: dict[str, Any]) -> None:
            ours_n = message["n"]
            theirs.post({"got": ours_n})
            raise ValueError(ours_n)

        theirs.listen(receive, lambda reason: None)
        for i in range(3):
            ours.post({"n": i})
        assert await here.until(3) == [{"got": 0}, {"got": 1}, {"got": 2}]
        assert len(errors) == 3


async def test_an_end_that_does_not_read_is_cut_off(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix_socket, "MAX_UNSENT_BYTES", 1_000_000)
    async with pair(path) as (ours, theirs):
        theirs._transport.pause_reading()
        here = Received(ours)

        def flood() -> None:
            for _ in range(1000):
                ours.post({"text": "x" * 100_000})

        with pytest.raises(WorkerLostError, match="does not read"):
            flood()
        await here.is_closed.wait()
        assert "unread" in here.reasons[0]
        with pytest.raises(WorkerLostError):
            ours.post({})
        await ours.wait_closed()


async def test_closing_waits_only_so_long_for_an_end_that_does_not_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix_socket, "_GRACE_S", 0.05)
    async with pair(path) as (ours, theirs):
        theirs._transport.pause_reading()
        for _ in range(100):
            ours.post({"text": "x" * 100_000})
        await ours.close()


async def test_closing_delivers_what_was_posted(path: Path) -> None:
    async with pair(path) as (ours, theirs):
        there = Received(theirs)
        for _ in range(100):
            ours.post({"text": "x" * 100_000})
        await ours.close()
        assert len(await there.until(100)) == 100


async def test_what_cannot_be_sent_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair(path) as (ours, _):
        with pytest.raises(TypeError):
            ours.post({"content": object()})
        monkeypatch.setattr(frames, "MAX_BYTES", 10)
        with pytest.raises(RequestError, match="too long"):
            ours.post({"content": "x" * 20})


async def test_nonsense_ends_the_connection_after_the_messages_before_it(path: Path) -> None:
    generator = random.Random(12)
    server_ports: asyncio.Queue[SocketPort] = asyncio.Queue()
    server = await listen(path, server_ports.put_nowait)
    for _ in range(200):
        _, writer = await asyncio.open_unix_connection(path)
        port = await server_ports.get()
        received = Received(port)
        writer.write(frame({"n": 1}) + generator.randbytes(generator.randrange(50)))
        writer.close()
        async with asyncio.timeout(30):
            await received.is_closed.wait()
        assert received.messages[0] == {"n": 1}
        await port.wait_closed()
        await writer.wait_closed()
    server.close()


async def test_nobody_listens(path: Path) -> None:
    assert await connect(path) is None
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    assert await connect(path) is None
    async with pair(path) as (ours, theirs):  # takes its place
        ours.post({"n": 1})
        assert await theirs.first() == {"n": 1}
        assert not path.with_name("x.sock.new").exists()
        assert path.stat().st_mode & 0o777 == 0o600


async def test_what_is_no_socket_is_an_error(path: Path) -> None:
    (path.parent / "file").touch()
    with pytest.raises(WorkerLostError, match="cannot be connected to"):
        await connect(path.parent / "file" / "x")
    with pytest.raises(OSError, match="No such file"):
        await listen(path.parent / "nowhere" / "x.sock", lambda port: None)


async def test_long_paths_are_refused(path: Path) -> None:
    check_path(path)
    longest = 107 if sys.platform != "darwin" else 103
    check_path(Path("/" + "x" * (longest - 1)))
    with pytest.raises(ConfigError, match=rf"has {longest + 1} bytes, .* at most {longest}"):
        check_path(Path("/" + "x" * longest))
    with pytest.raises(ConfigError, match="WEBLLM_RUNTIME_DIR"):
        await listen(path.parent / ("ä" * 60), lambda port: None)


@pytest.mark.skipif(sys.platform == "darwin", reason="a full queue refuses there")
async def test_connections_wait_for_a_busy_owner(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX) as owner:
        owner.bind(str(path))
        owner.listen(0)
        first = await connect(path)  # takes the only place in the queue
        assert first is not None
        waiting = asyncio.create_task(connect(path))
        await asyncio.sleep(0)
        accepted = [owner.accept()[0]]
        second = await waiting
        accepted.append(owner.accept()[0])
        assert second is not None
        monkeypatch.setattr(unix_socket, "_ACCEPT_S", 0.0)
        third = await connect(path)
        with pytest.raises(WorkerLostError, match="has taken no connection for 0 s"):
            await connect(path)
        assert third is not None
        for port in (first, second, third):
            port.post({"kind": "a message"})  # they are connected
        for each in accepted:
            each.close()
    for port in (first, second, third):
        await port.close()
