"""The daemon: one process with the engine that all programs of a user share.

`daemon_client` starts it. It holds a lock for as long as it lives, so that there is one. It ends
when it is told to, and after a time without clients.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import select
import signal
import sys
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import msgspec

from webllm.api.interface import MLCEngineInterface
from webllm.api.stats import EngineStats
from webllm.artifacts.file_lock import FileLock
from webllm.config import MLCEngineConfig
from webllm.errors import ConfigError, RequestError, WebLLMError, WorkerLostError
from webllm.plain_data import explained
from webllm.workers.daemon_files import DaemonFiles
from webllm.workers.frames import frame
from webllm.workers.handler import MLCEngineHandler
from webllm.workers.messages import Return, Throw
from webllm.workers.start import ENGINE_FACTORY, Start
from webllm.workers.unix_socket import SocketPort, listen

_LOCK_S = 30.0  # for an earlier daemon to end
_POLL_S = 0.02
_DRAIN_S = 5.0  # for clients to read the ends of their answers


class Control(msgspec.Struct, kw_only=True, frozen=True):
    """A first message that begins no client. It gets a `DaemonStatus`; "stop" then ends all."""

    uuid: str
    command: Literal["status", "stop"]


class DaemonStatus(msgspec.Struct, kw_only=True, frozen=True):
    pid: int
    version: str  # of webllm
    started: float  # Unix time, seconds
    socket: str
    idle_s: float  # seconds without clients after which the daemon ends
    clients: int
    engine: EngineStats
    settings: dict[str, Any]  # by their names in DEVICE_SETTINGS; empty before the first client


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the daemon until it is stopped. Tells its starter by a pipe when it can be reached."""
    parser = argparse.ArgumentParser(prog="python -m webllm.workers.daemon")
    parser.add_argument("--idle-s", type=float, default=600.0)
    parser.add_argument("--ready-fd", type=int, help="a pipe that gets one reply, then ends")
    options = parser.parse_args(arguments)
    os.umask(0o077)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the end of the terminal that started it
    asyncio.run(_run(options.idle_s, options.ready_fd))


async def _run(idle_s: float, ready_fd: int | None) -> None:
    try:
        files = DaemonFiles.find()
        lock = files.lock()  # until the process ends
        await _take(lock, ready_fd)
        files.write_pid()
        daemon = Daemon(files, idle_s)
        server = await listen(files.socket, daemon.serve)
        own_socket = files.socket.stat()
    except (WebLLMError, OSError) as error:
        _tell(ready_fd, Throw.of(error, ""))
        sys.exit(f"webllm's daemon: {error}")
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, daemon.stop)
    _tell(ready_fd, Return(uuid=""))
    await daemon.stopped.wait()
    with suppress(FileNotFoundError):
        # Whoever comes now starts another daemon; one may run already if the folder was removed.
        if os.path.samestat(files.socket.stat(), own_socket):
            files.socket.unlink()
    server.close()
    await daemon.close()


async def _take(lock: FileLock, ready_fd: int | None) -> None:
    """Waits for the end of an earlier daemon.

    Raises WorkerLostError if it does not end, and if the starter of this one is gone meanwhile.
    """
    try:
        async with asyncio.timeout(_LOCK_S):
            while not lock.try_acquire():
                if ready_fd is not None and _is_closed(ready_fd):
                    raise WorkerLostError("an earlier daemon runs, and the starter of this is gone")
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise WorkerLostError(
            f"an earlier daemon has not ended within {_LOCK_S:.0f} s; end it with `webllm daemon "
            "stop`"
        ) from None


def _is_closed(pipe: int) -> bool:
    """Whether nobody can read any more what is written to a pipe."""
    poll = select.poll()
    poll.register(pipe, 0)  # errors alone
    return bool(poll.poll(0))


def _tell(ready_fd: int | None, reply: Return | Throw) -> None:
    """Tells the starter how it went, unless it is gone. May be called once."""
    if ready_fd is not None:
        with suppress(OSError):
            os.write(ready_fd, frame(reply))
            os.close(ready_fd)


class Daemon:
    """Serves every connection with one handler. The first client makes the engine."""

    def __init__(self, files: DaemonFiles, idle_s: float) -> None:
        self.stopped = asyncio.Event()
        self._files = files
        self._idle_s = idle_s
        self._started = time.time()
        self._handler: MLCEngineHandler | None = None
        self._settings: dict[str, Any] = {}
        self._engine_factory = ENGINE_FACTORY
        self._ports: set[SocketPort] = set()  # of clients
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: asyncio.TimerHandle | None = None
        self._wait_for_clients()

    def serve(self, port: SocketPort) -> None:
        self._run(self._serve(port))

    def stop(self) -> None:
        self.stopped.set()

    async def close(self) -> None:
        """Ends all answers, lets the clients read their ends, and unloads."""
        if self._idle is not None:
            self._idle.cancel()
        try:
            if self._handler is not None:
                self._handler.engine.interrupt_generate()
                await self._drained(self._handler)
                await self._handler.close()
                await self._handler.engine.unload()
                await self._handler.close()
        finally:
            await asyncio.gather(*(port.close() for port in self._ports))
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, port: SocketPort) -> None:
        """Serves one connection to its end. A peer that sends nonsense loses it."""
        try:
            message = await port.first()
            await self._begin(port, message)
        except WorkerLostError:
            return  # nothing came but an end, or bytes that are no message
        finally:
            await port.close()

    async def _begin(self, port: SocketPort, message: object) -> None:
        uuid = message.get("uuid") if isinstance(message, dict) else None
        uuid = uuid if isinstance(uuid, str) else ""
        try:
            first = _read_first(message)
            if isinstance(first, Control):
                port.post(Return(uuid=uuid, content=await self.status()))
                if first.command == "stop":
                    self.stop()
                return
            handler = self._start(first)
        except Exception as error:
            port.post(Throw.of(error, uuid))
            return
        port.post(Return(uuid=uuid))
        self._ports.add(port)
        try:
            handler.serve(port)
            await port.wait_closed()
        finally:
            self._ports.discard(port)
            self._wait_for_clients()

    def _start(self, start: Start) -> MLCEngineHandler:
        """Makes the engine, or checks that the one that runs has these settings."""
        self._files.trim_log()
        if self._handler is None:
            engine = start.make_engine()
            config = MLCEngineConfig(**start.settings)
            complete = Start.of(config, start.engine_factory)
            self._settings, self._engine_factory = complete.settings, complete.engine_factory
            self._handler = MLCEngineHandler(engine, reuse_loaded=True)
            return self._handler
        running = self._settings | {"engine_factory": self._engine_factory}
        asked = dict(start.settings)
        if start.engine_factory != ENGINE_FACTORY:
            asked["engine_factory"] = start.engine_factory
        for name, value in asked.items():
            if value != running.get(name):
                raise ConfigError(
                    f"{name} is {value!r}, and the shared engine of this user runs with "
                    f"{running.get(name)!r}; leave it out, or end that engine with `webllm daemon "
                    "stop`"
                )
        return self._handler

    async def status(self) -> DaemonStatus:
        engine = EngineStats(models=[])
        if self._handler is not None:
            engine = await self._handler.engine.engine_stats()
        return DaemonStatus(
            pid=os.getpid(),
            version=_version(),
            started=self._started,
            socket=str(self._files.socket),
            idle_s=self._idle_s,
            clients=len(self._ports),
            engine=engine,
            settings=self._settings,
        )

    def _wait_for_clients(self) -> None:
        """Stops after `idle_s` without a client, unless answers are still under way then."""
        if self._idle is not None:
            self._idle.cancel()
        loop = asyncio.get_running_loop()
        self._idle = loop.call_later(self._idle_s, self._check_idle)

    def _check_idle(self) -> None:
        if not self._ports:
            self._run(self._stop_if_idle())

    async def _stop_if_idle(self) -> None:
        if self._handler is not None and await _is_busy(self._handler.engine):
            self._wait_for_clients()
        elif not self._ports:
            self.stop()

    async def _drained(self, handler: MLCEngineHandler) -> None:
        """Waits until the clients have read the ends of their answers, but not for long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                while handler.has_unread_answers:
                    await asyncio.sleep(_POLL_S)


async def _is_busy(engine: MLCEngineInterface) -> bool:
    stats = await engine.engine_stats()
    return bool(stats.loading) or any(each.running or each.waiting for each in stats.models)


def _version() -> str:
    try:
        return version("webllm")
    except PackageNotFoundError:
        return "unknown, not installed"


def _read_first(message: object) -> Start | Control:
    """Raises RequestError for what is neither, perhaps because its sender has another version."""
    is_control = isinstance(message, dict) and "command" in message
    kind: type[Control] | type[Start] = Control if is_control else Start
    try:
        return msgspec.convert(message, kind)
    except msgspec.ValidationError as error:
        raise RequestError(
            f"the daemon cannot read the first message: {explained(error, message, kind)}; end it "
            "with `webllm daemon stop`, so that it runs the same version of webllm"
        ) from None


if __name__ == "__main__":
    main()
