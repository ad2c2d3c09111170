"""`Port` carries messages between a client and its worker, `LoopbackPort` within one program.

Knows no message kinds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from webllm.errors import WorkerLostError

OnMessage = Callable[[Any], None]
OnClose = Callable[[str], None]

_CLOSED = "the port was closed"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message that is not plain data, with the parts of it that could be read."""

    kind: object
    uuid: object
    reason: str


class Port(Protocol):
    """One end of a channel. Messages arrive in the order in which they were posted."""

    def listen(self, on_message: OnMessage, on_close: OnClose) -> None:
        """Calls back on the event loop from now on: with each message, as plain data or
        `Unreadable`, and once, with the reason, when the other end is gone, when nothing more can
        be read from it or when this one is closed, also if it is already.

        Messages that arrive before anybody listens wait. A later listener replaces an earlier one.
        """

    def post(self, message: object) -> None:
        """Sends plain data or structs, without waiting.

        Raises RequestError for a message that is too long, TypeError, ValueError, OverflowError or
        RecursionError for one that is not plain data, and WorkerLostError once the port is closed.
        """

    async def close(self) -> None:
        """Returns when nothing is left of the channel. May be repeated."""


class LoopbackPort:
    """A port whose other end is in the same event loop; for tests, and for workers' own tests.

    Messages are copied as plain data, so that nothing gets through that could not leave a program.
    """

    def __init__(self) -> None:
        self._other: LoopbackPort | None = None
        self._waiting: list[object] = []
        self._on_message: OnMessage | None = None
        self._on_close: OnClose | None = None

    @classmethod
    def pair(cls) -> tuple[LoopbackPort, LoopbackPort]:
        ours, theirs = cls(), cls()
        ours._other, theirs._other = theirs, ours
        return ours, theirs

    def listen(self, on_message: OnMessage, on_close: OnClose) -> None:
        self._on_message, self._on_close = on_message, on_close
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            on_message(message)
        if self._other is None:
            on_close(_CLOSED)

    def post(self, message: object) -> None:
        if self._other is None:
            raise WorkerLostError("the port is closed; open a new one")
        copy = msgspec.msgpack.decode(msgspec.msgpack.encode(message))
        asyncio.get_running_loop().call_soon(self._other._receive, copy)

    async def close(self) -> None:
        self._end()

    def _receive(self, message: object) -> None:
        if self._other is None:
            return  # nobody wants it any more
        if self._on_message is None:
            self._waiting.append(message)
        else:
            self._on_message(message)

    def _end(self) -> None:
        other, self._other = self._other, None
        if other is not None:
            if self._on_close is not None:
                self._on_close(_CLOSED)
            asyncio.get_running_loop().call_soon(other._end)
