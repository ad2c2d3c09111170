"""An engine in a process of its own, so that the caller's event loop never waits for a model.

The child runs `worker_process`. The channel is its standard input and output.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio import BaseTransport, SubprocessTransport, WriteTransport
from collections.abc import Sequence
from typing import cast

from webllm.config import ChatOptions, MLCEngineConfig, engine_config
from webllm.errors import WorkerLostError
from webllm.workers.frames import FrameReader, frame
from webllm.workers.port import OnClose, OnMessage, Port
from webllm.workers.proxy import WorkerMLCEngine
from webllm.workers.start import ENGINE_FACTORY, Start, ask_first, sent_settings

_GRACE_S = 2.0  # for the child to end by itself
_STDIN = 0
# The child sets this process's import path before it imports anything else.
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "from webllm.workers.worker_process import main; main()"
)


async def create_worker_process(
    model_id: str | Sequence[str] | None = None,
    config: MLCEngineConfig | None = None,
    chat_options: ChatOptions | Sequence[ChatOptions] | None = None,
    *,
    engine_factory: str = ENGINE_FACTORY,
) -> WorkerMLCEngine:
    """Makes an engine in a new Python process, with a model loaded if one is named.

    Close it, or use it as `async with await create_worker_process(...) as engine`. If the process
    is killed, calls raise WorkerLostError; `restart` or the next `reload` starts another.

    engine_factory: "module:function" that makes the engine in the child, given an MLCEngineConfig.
    It can register logit processors, which cannot be sent to another process. Raises what
    `MLCEngine.reload` raises.
    """
    config = engine_config(config)
    start = Start.of(config, engine_factory)

    async def open_port() -> Port:
        return await _open_port(start)

    engine = WorkerMLCEngine(await open_port(), sent_settings(config), open_port=open_port)
    try:
        if model_id is not None:
            await engine.reload(model_id, chat_options)
    except BaseException:
        await engine.close()
        raise
    return engine


async def _open_port(start: Start) -> Port:
    """Starts a process and has it make its engine; raises what the engine's factory raises."""
    port = await ProcessPort.open()
    await ask_first(port, start)
    return port


class ProcessPort(asyncio.SubprocessProtocol):
    """The parent's `Port` to a child process; `open` starts the child."""

    def __init__(self) -> None:
        self._frames = FrameReader()
        self._on_message: OnMessage = _ignore
        self._on_close: OnClose = _ignore
        self._gone = asyncio.get_running_loop().create_future()
        self._lost: str | None = None  # why
        self._killing: asyncio.TimerHandle | None = None

    @classmethod
    async def open(cls) -> ProcessPort:
        """Starts a child. Raises WorkerLostError if no process can be started."""
        command = (sys.executable, "-c", _BOOT, json.dumps([str(path) for path in sys.path]))
        try:
            _, port = await asyncio.get_running_loop().subprocess_exec(cls, *command, stderr=None)
        except OSError as error:
            raise WorkerLostError(f"no worker process could be started: {error}") from error
        return port

    @property
    def pid(self) -> int:
        return self._transport.get_pid()

    def listen(self, on_message: OnMessage, on_close: OnClose) -> None:
        """Sets the callbacks. No message can have come before: the child only replies."""
        self._on_message, self._on_close = on_message, on_close
        if self._lost is not None:
            on_close(self._lost)

    def post(self, message: object) -> None:
        data = frame(message)
        if self._lost is not None:
            raise WorkerLostError("the worker process has ended; start another")
        self._stdin.write(data)

    async def close(self) -> None:
        """Ends the child, kills it if it does not end in time, and waits until it is gone."""
        self._lose("it was closed")
        self._stdin.close()
        try:
            await asyncio.wait([self._gone], timeout=_GRACE_S)
        finally:
            self._transport.close()  # kills
        await asyncio.wait([self._gone])

    def connection_made(self, transport: BaseTransport) -> None:
        self._transport = cast(SubprocessTransport, transport)
        self._stdin = cast(WriteTransport, self._transport.get_pipe_transport(_STDIN))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Delivers each message in its own callback: one that raises must not stop the next."""
        loop = asyncio.get_running_loop()
        try:
            for message in self._frames.feed(data):
                loop.call_soon(self._on_message, message)
        except WorkerLostError as error:
            loop.call_soon(self._lose, str(error))
            loop.call_soon(self._hang_up)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """Ends a child that has closed its end: it can be of no more use."""
        if self._lost is None:
            self._hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """Reports the end of the child; all its messages have been received."""
        if self._killing is not None:
            self._killing.cancel()
        self._transport.close()
        self._lose(_exit_reason(self._transport.get_returncode()))
        self._gone.set_result(None)

    def _hang_up(self) -> None:
        """Ends the child, and kills it later if it does not end in time."""
        if self._killing is None:
            self._stdin.close()
            loop = asyncio.get_running_loop()
            self._killing = loop.call_later(_GRACE_S, self._transport.close)

    def _lose(self, reason: str) -> None:
        if self._lost is None:
            self._lost = reason
            self._on_close(reason)


def _exit_reason(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its process was killed by signal {-code}"
    return f"its process ended with exit code {code}; its standard error may say why"


def _ignore(_: object) -> None:
    """Stands for a callback that was not set yet."""
