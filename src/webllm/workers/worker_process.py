"""What runs in a worker process: an engine and its handler, for as long as the parent wants it.

Standard input and output are the channel; what anything here prints goes to standard error.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from queue import SimpleQueue
from threading import Thread
from typing import Any, cast

import msgspec

from webllm.api.interface import MLCEngineInterface
from webllm.config import MLCEngineConfig
from webllm.errors import ConfigError
from webllm.workers.error_info import throw
from webllm.workers.frames import FrameReader, frame
from webllm.workers.handler import MLCEngineHandler
from webllm.workers.messages import Return
from webllm.workers.port import OnClose, OnMessage
from webllm.workers.process import Start

_PIECE_BYTES = 1 << 16
_GRACE_S = 5.0  # to end by itself once the parent is gone


def main() -> None:
    """Serves the parent until it closes the channel or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then closes
    channel = Channel()
    for message in channel.messages():
        start = msgspec.convert(message, Start)
        try:
            engine = _make_engine(start)
        except Exception as error:
            channel.write(frame(throw(start.uuid, error)))
            return
        channel.write(frame(Return(uuid=start.uuid)))
        asyncio.run(_serve(engine, channel))
        return


async def _serve(engine: MLCEngineInterface, channel: Channel) -> None:
    port = ParentPort(channel)
    MLCEngineHandler(engine).serve(port)
    await port.closed.wait()
    await engine.unload()


def _make_engine(start: Start) -> MLCEngineInterface:
    module, _, function = start.engine_factory.partition(":")
    try:
        factory = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"engine_factory is {start.engine_factory!r}, which cannot be imported: {error}; give "
            "'module:function' of a module that can be imported"
        ) from error
    config = MLCEngineConfig(
        device=start.device,
        num_threads=start.num_threads,
        kv_cache_tokens=start.kv_cache_tokens,
        max_waiting_sequences=start.max_waiting_sequences,
    )
    return cast(MLCEngineInterface, factory(config))


class Channel:
    """The pipes from and to the parent, taken away from whatever reads and prints here."""

    def __init__(self) -> None:
        self._from_parent, self._to_parent = os.dup(0), os.dup(1)
        self._frames = FrameReader()
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)

    def messages(self) -> Iterator[Any]:
        """Waits for each; ends when the parent has closed its end."""
        while piece := os.read(self._from_parent, _PIECE_BYTES):
            yield from self._frames.feed(piece)

    def write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._to_parent, data) :]


class ParentPort:
    """The child's end of the channel. Pipes block, so that a thread reads and another writes."""

    def __init__(self, channel: Channel) -> None:
        self.closed = asyncio.Event()
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._to_write: SimpleQueue[bytes] = SimpleQueue()

    def listen(self, on_message: OnMessage, on_close: OnClose) -> None:
        """Once."""
        reads = Thread(target=self._read, args=(on_message, on_close), daemon=True)
        writes = Thread(target=self._write, daemon=True)
        reads.start()
        writes.start()

    def post(self, message: object) -> None:
        self._to_write.put(frame(message))

    async def close(self) -> None:
        """Only the parent closes the channel; a child that wants to end does so."""

    def _read(self, on_message: OnMessage, on_close: OnClose) -> None:
        for message in self._channel.messages():
            self._loop.call_soon_threadsafe(on_message, message)
        self._loop.call_soon_threadsafe(on_close, "the parent is gone")
        self._loop.call_soon_threadsafe(self.closed.set)
        time.sleep(_GRACE_S)
        os._exit(1)  # something here does not end, and nobody is left to end it

    def _write(self) -> None:
        with suppress(OSError):  # the parent is gone, as the reading thread will find
            while True:
                self._channel.write(self._to_write.get())
