"""The program of a worker process: an engine and its handler, until the parent closes the channel.

Standard input and output are the channel; all that is printed here goes to standard error.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock, Thread

import msgspec

from webllm.api.interface import MLCEngineInterface
from webllm.errors import WorkerLostError
from webllm.workers.frames import FrameReader, frame
from webllm.workers.handler import MLCEngineHandler
from webllm.workers.messages import Return, Throw
from webllm.workers.port import OnClose, OnMessage
from webllm.workers.start import Start

_PIECE_BYTES = 1 << 16
_GRACE_S = 5.0  # for this process to end by itself, once the parent is gone


def main() -> None:
    """Serves the parent until it closes the channel or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then closes
    channel = Channel()
    first = channel.first()
    if isinstance(first, Closed):
        return
    start = msgspec.convert(first, Start)
    try:
        engine = start.make_engine()
    except Exception as error:
        channel.write(frame(Throw.of(error, start.uuid)))
        return
    channel.write(frame(Return(uuid=start.uuid)))
    asyncio.run(_serve(engine, channel))
    if channel.is_broken:
        sys.exit(1)


async def _serve(engine: MLCEngineInterface, channel: Channel) -> None:
    port = ParentPort(channel)
    handler = MLCEngineHandler(engine)
    handler.serve(port)
    await port.closed.wait()
    try:
        await handler.close()  # a child's only client does not come back
    finally:
        await engine.unload()


@dataclass(frozen=True, slots=True)
class Closed:
    """Stands for the end of a channel; comes after its last message."""

    reason: str


class Channel:
    """The pipes from and to the parent. Other code here can neither read nor print to them.

    A thread reads, since reading a pipe blocks. It also ends the process soon after the parent is
    gone or has sent bytes that are no message, even if something else here is stuck.
    """

    def __init__(self) -> None:
        self._from_parent, self._to_parent = os.dup(0), os.dup(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        self._early: SimpleQueue[object] = SimpleQueue()
        self._receive: Callable[[object], None] = self._early.put
        self._receiving = Lock()
        self.is_broken = False
        Thread(target=self._read, daemon=True).start()

    def first(self) -> object:
        """Waits for the first message, or for `Closed`."""
        return self._early.get()

    def listen(self, receive: Callable[[object], None]) -> None:
        """Hands all further messages to a function, and `Closed` at last, in the reading thread."""
        with self._receiving:
            while not self._early.empty():
                receive(self._early.get())
            self._receive = receive

    def write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._to_parent, data) :]

    def _read(self) -> None:
        try:
            self._hand_over(Closed(self._read_all()))
        finally:
            time.sleep(_GRACE_S)
            os._exit(1)  # something here is stuck, and nobody is left to kill this process

    def _read_all(self) -> str:
        """Hands over all messages; returns the reason why there are no more."""
        frames = FrameReader()
        try:
            while piece := os.read(self._from_parent, _PIECE_BYTES):
                for message in frames.feed(piece):
                    self._hand_over(message)
        except (OSError, WorkerLostError) as error:
            print(f"webllm's worker process ends: {error}", file=sys.stderr, flush=True)
            self.is_broken = True
            return str(error)
        return "the parent is gone"

    def _hand_over(self, message: object) -> None:
        with self._receiving, suppress(RuntimeError):  # the event loop has ended already
            self._receive(message)


class ParentPort:
    """The child's `Port`. A thread writes, since writing to a pipe blocks."""

    def __init__(self, channel: Channel) -> None:
        self.closed = asyncio.Event()
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._to_write: SimpleQueue[bytes] = SimpleQueue()

    def listen(self, on_message: OnMessage, on_close: OnClose) -> None:
        """Sets the callbacks; may be called once."""

        def receive(message: object) -> None:
            if isinstance(message, Closed):
                self._loop.call_soon_threadsafe(on_close, message.reason)
                self._loop.call_soon_threadsafe(self.closed.set)
            else:
                self._loop.call_soon_threadsafe(on_message, message)

        self._channel.listen(receive)
        Thread(target=self._write, daemon=True).start()

    def post(self, message: object) -> None:
        self._to_write.put(frame(message))

    async def close(self) -> None:
        """Does nothing: only the parent closes the channel; a child may simply exit."""

    def _write(self) -> None:
        with suppress(OSError):  # the parent is gone, as the reading thread will find
            while True:
                self._channel.write(self._to_write.get())
