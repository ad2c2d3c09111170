"""Ports over a Unix socket, for both ends. The frames are those of worker processes."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from asyncio import BaseTransport
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import cast

from webllm.errors import ConfigError, WorkerLostError
from webllm.workers.frames import MAX_BYTES, FrameReader, frame
from webllm.workers.port import OnClose, OnMessage

MAX_UNSENT_BYTES = MAX_BYTES  # before the next message is refused
_MAX_PATH_BYTES = 103 if sys.platform == "darwin" else 107  # of a socket
_GRACE_S = 2.0  # for the last bytes to be read
_ACCEPT_S = 30.0  # for the owner to take a connection
_POLL_S = 0.02
_BACKLOG = 1024  # connections that wait while the owner is busy


async def connect(path: Path) -> SocketPort | None:
    """Returns a port to the socket's owner; None if nobody listens there.

    Raises WorkerLostError if the socket may not be used, or if its owner takes no connection.
    """
    if sys.platform == "win32":
        raise no_unix_sockets()
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        client.setblocking(False)
        await _connect(client, path)
        loop = asyncio.get_running_loop()
        _, port = await loop.create_unix_connection(SocketPort, sock=client)
    except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError):
        client.close()
        return None
    except OSError as error:
        client.close()
        raise WorkerLostError(f"{path} cannot be connected to: {error}") from error
    except BaseException:
        client.close()
        raise
    return port


async def _connect(client: socket.socket, path: Path) -> None:
    """Connects; waits while as many connections wait for the owner as it lets wait.

    asyncio takes that case for a connection.
    """
    try:
        async with asyncio.timeout(_ACCEPT_S):
            while True:
                try:
                    return client.connect(str(path))
                except BlockingIOError:
                    await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise WorkerLostError(
            f"{path} has taken no connection for {_ACCEPT_S:.0f} s; end its process with `webllm "
            "daemon stop`"
        ) from None


async def listen(path: Path, serve: Callable[[SocketPort], None]) -> asyncio.Server:
    """Listens on a new socket that takes the place of any at this path, in one step.

    serve: called with the port of each connection. Only this user can connect. Raises ConfigError
    for a path that is too long, and OSError.
    """
    if sys.platform == "win32":
        raise no_unix_sockets()
    new = path.with_name(path.name + ".new")
    check_path(new)
    with suppress(FileNotFoundError):
        new.unlink()
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        server.bind(str(new))
        new.chmod(0o600)
        server.listen(_BACKLOG)
        new.rename(path)
        loop = asyncio.get_running_loop()
        return await loop.create_unix_server(lambda: SocketPort(serve), sock=server)
    except BaseException:
        server.close()
        raise


def check_path(path: Path) -> None:
    """Raises ConfigError for a path that is too long for a socket."""
    num_bytes = len(os.fsencode(path))
    if num_bytes > _MAX_PATH_BYTES:
        raise ConfigError(
            f"{path} has {num_bytes} bytes, and a socket's path has at most {_MAX_PATH_BYTES}; set "
            "WEBLLM_RUNTIME_DIR to a folder with a shorter path"
        )


def no_unix_sockets() -> ConfigError:
    return ConfigError(
        "the shared engine needs Unix sockets, which this system lacks; create_worker_process "
        "works here and starts an engine for this program alone"
    )


class SocketPort(asyncio.Protocol):
    """A `Port` to the other end of a connection. Both ends are the same.

    Messages wait until somebody listens. An end that does not read what it is sent is cut off.
    """

    def __init__(self, on_connect: Callable[[SocketPort], None] | None = None) -> None:
        self._on_connect = on_connect
        self._frames = FrameReader()
        self._waiting: deque[object] = deque()
        self._on_message: OnMessage | None = None
        self._on_close: OnClose | None = None
        self._lost: str | None = None  # why
        self._gone = asyncio.Event()

    def listen(self, on_message: OnMessage, on_close: OnClose) -> None:
        self._on_message, self._on_close = on_message, on_close
        for _ in self._waiting:
            asyncio.get_running_loop().call_soon(self._deliver)
        if self._lost is not None:
            asyncio.get_running_loop().call_soon(on_close, self._lost)

    def post(self, message: object) -> None:
        data = frame(message)
        if self._lost is not None:
            raise WorkerLostError("the port is closed; open a new one")
        if self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self._cut(f"the other end has left {MAX_UNSENT_BYTES} bytes unread")
            raise WorkerLostError("the port is closed: the other end does not read")
        self._transport.write(data)

    async def first(self) -> object:
        """Waits for the first message; those after it wait for `listen`.

        Raises WorkerLostError if none comes.
        """
        message: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        def receive(first: object) -> None:
            self._on_message = None
            message.set_result(first)

        def lose(reason: str) -> None:
            if not message.done():
                message.set_exception(WorkerLostError(f"nothing came: {reason}"))

        self.listen(receive, lose)
        return await message

    async def wait_closed(self) -> None:
        """Waits until the connection is gone."""
        await self._gone.wait()

    async def close(self) -> None:
        """Closes the connection once the other end has read everything, or soon in any case."""
        self._lose("the port was closed")
        self._waiting.clear()
        self._transport.close()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_GRACE_S):
                    await self._gone.wait()
        finally:
            if not self._gone.is_set():
                self._transport.abort()
        await self._gone.wait()

    def connection_made(self, transport: BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._on_connect is not None:
            self._on_connect(self)

    def data_received(self, data: bytes) -> None:
        """Delivers each message in its own callback: one that raises must not stop the next."""
        try:
            for message in self._frames.feed(data):
                self._waiting.append(message)
                asyncio.get_running_loop().call_soon(self._deliver)
        except WorkerLostError as error:
            self._cut(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        """Comes after all messages have been received."""
        self._lose("the other end is gone" if exc is None else f"the other end is gone: {exc}")
        self._gone.set()

    def _deliver(self) -> None:
        if self._on_message is not None and self._waiting:
            self._on_message(self._waiting.popleft())

    def _cut(self, reason: str) -> None:
        """Ends the connection without another word, after the messages that have come."""
        asyncio.get_running_loop().call_soon(self._lose, reason)
        self._transport.abort()

    def _lose(self, reason: str) -> None:
        if self._lost is None:
            self._lost = reason
            if self._on_close is not None:
                self._on_close(reason)
