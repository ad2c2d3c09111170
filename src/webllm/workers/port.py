"""`Port`: one end of a channel between a client and its worker. Knows no message kinds.

`LoopbackPort` is a port within one program.
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
        """Sets the callbacks, which are called on the event loop. They replace earlier ones.

        on_message: called with each message, as plain data or `Unreadable`. Messages that came
        earlier have waited. on_close: called once, with the reason, when the other end is gone,
        when nothing more can be read from it, or when this end is closed, even if it is already.
        """

    def post(self, message: object) -> None:
        """Sends plain data or structs, without waiting.

        Raises RequestError for a message that is too long, TypeError, ValueError, OverflowError or
        RecursionError for one that is not plain data, and WorkerLostError once the port is closed.
        """

    async def close(self) -> None:
        """Closes the channel, and waits until nothing is left of it. May be repeated."""


class LoopbackPort:
    """A port whose other end is on the same event loop, for tests.

    Messages are encoded and decoded, so that nothing passes that a real channel could not carry.
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
            return  # this end was closed meanwhile
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
