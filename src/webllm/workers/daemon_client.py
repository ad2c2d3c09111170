"""The client of the user's daemon: starts it, and starts it again if it is killed.

    engine = await create_service_worker_mlc_engine("SmolLM2-135M-Instruct")

All programs of a user then share one engine, with one copy of each model in memory.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from webllm.artifacts.file_lock import FileLock
from webllm.config import (
    AppConfig,
    ChatOptions,
    InitProgressCallback,
    MLCEngineConfig,
    engine_config,
    model_ids,
)
from webllm.errors import ConfigError, WorkerLostError
from webllm.workers.daemon import Control, DaemonStatus
from webllm.workers.daemon_files import DaemonFiles
from webllm.workers.frames import FrameReader
from webllm.workers.messages import Throw, new_uuid, read_reply
from webllm.workers.proxy import Recovery, WorkerMLCEngine
from webllm.workers.start import ENGINE_FACTORY, Start, ask_first, sent_settings
from webllm.workers.unix_socket import SocketPort, connect

DEFAULT_IDLE_S = 600.0
_MIN_IDLE_S = 0.1

_MAX_TRIES = 5
_POLL_S = 0.02
_START_S = 60.0  # for the daemon's process to start
_LOCK_S = 120.0  # for another program to start it
_REPLY_S = 30.0  # for its first reply
_STOP_S = 30.0  # for it to end
# The process that is started forks and ends, so that its starter has no child to wait for.
_BOOT = (
    "import os, sys; os.fork() and os._exit(0); sys.path.append(sys.argv.pop(1)); "
    "from webllm.workers.daemon import main; main()"
)


async def create_service_worker_mlc_engine(
    model_id: str | Sequence[str] | None = None,
    config: MLCEngineConfig | None = None,
    chat_options: ChatOptions | Sequence[ChatOptions] | None = None,
    *,
    persist: bool = True,
    keep_alive_s: float = 10.0,
    engine_factory: str = ENGINE_FACTORY,
) -> DaemonMLCEngine:
    """Connects to the shared engine of this user, with a model loaded if one is named.

    Starts the engine's process if there is none. If that is killed, it is started again, and the
    answers under way go on without a token lost or doubled. Close the returned engine, or use it as
    `async with await create_service_worker_mlc_engine(...) as engine`; that ends this client's
    answers, while the process stays for others.

    persist: False keeps no answer on disk; then the end of the process raises WorkerLostError in
    those under way. keep_alive_s: after three times as long without a word the process counts as
    lost. engine_factory: see `create_worker_process`; the process must be able to import it.

    Raises ConfigError if the engine runs already with other settings than `config` names, or where
    there are no Unix sockets; WorkerLostError if it cannot be started; what `MLCEngine.reload`
    raises.
    """
    if not (isinstance(keep_alive_s, int | float) and keep_alive_s > 0):
        raise ConfigError(f"keep_alive_s is {keep_alive_s!r}; give a number of seconds above 0")
    config = engine_config(config)
    start = _start_message(config, engine_factory)

    async def open_port() -> SocketPort:
        return await _open_port(start, _idle_s_from_environment())

    engine = DaemonMLCEngine(
        await open_port(),
        sent_settings(config),
        open_port=open_port,
        recovery=Recovery(persist, keep_alive_s),
    )
    try:
        if model_id is not None:
            await engine.reload(model_id, chat_options)
    except BaseException:
        await engine.close()
        raise
    return engine


class DaemonMLCEngine(WorkerMLCEngine):
    """The engine in the daemon. Its paths of models are those of this process."""

    async def reload(
        self,
        model_id: str | Sequence[str],
        chat_options: ChatOptions | Sequence[ChatOptions] | None = None,
        *,
        on_progress: InitProgressCallback | None = None,
    ) -> None:
        """See `MLCEngine.reload`. Returns at once if the models are loaded with these options."""
        catalogue = self._app_config.model_list if self._app_config else ()
        known = {record.model_id for record in catalogue}
        models = [each if each in known else _absolute(each) for each in model_ids(model_id)]
        await super().reload(models, chat_options, on_progress=on_progress)

    def set_app_config(self, app_config: AppConfig) -> None:
        """Sets the catalogue for the next `reload`, which raises ConfigError if it is wrong."""
        records = tuple(
            msgspec.structs.replace(record, model=_absolute(record.model))
            for record in app_config.model_list
        )
        super().set_app_config(msgspec.structs.replace(app_config, model_list=records))


async def start_daemon(
    config: MLCEngineConfig | None = None, idle_s: float | None = None
) -> DaemonStatus:
    """Starts the daemon, unless it runs, and has it make its engine.

    idle_s: seconds without clients after which it ends; None stands for the default. Raises
    ConfigError for a wrong time, or if it runs with other settings; WorkerLostError if it cannot be
    started.
    """
    start = _start_message(engine_config(config), ENGINE_FACTORY)
    wanted_s = _idle_s_from_environment() if idle_s is None else _checked_idle_s("idle_s", idle_s)
    port = await _open_port(start, wanted_s)
    try:
        status = await _control(DaemonFiles.find(), "status")
    finally:
        await port.close()
    if status is None:
        raise WorkerLostError("the daemon has just ended; start it again")
    if idle_s is not None and status.idle_s != idle_s:
        raise ConfigError(
            f"the daemon that runs ends after {status.idle_s / 60:g} minutes without clients, not "
            f"after {idle_s / 60:g}; leave the time out, or end it with `webllm daemon stop` first"
        )
    return status


async def daemon_status() -> DaemonStatus | None:
    """Returns the state of the daemon, or None if there is none.

    Raises WorkerLostError if there is one that does not answer.
    """
    return await _control(DaemonFiles.find(), "status")


async def stop_daemon() -> int | None:
    """Ends the daemon, and waits until it is gone; kills one that does not end in time.

    Returns its process id, or None if there was none.
    """
    files = DaemonFiles.find()
    pid = files.read_pid()
    try:
        status = await _control(files, "stop")
    except WorkerLostError:
        status = None
    if status is not None:
        pid = status.pid
    elif pid is not None:
        _kill(pid, signal.SIGTERM)
    if pid is None:
        return None
    if not await _is_gone(files, pid):
        _kill(pid, signal.SIGKILL)
        if not await _is_gone(files, pid):
            raise WorkerLostError(f"the daemon, process {pid}, does not end even when it is killed")
    return pid


def _start_message(config: MLCEngineConfig, engine_factory: str) -> Start:
    """Returns the first message of a client, with the settings that it wants."""
    start = Start.of(config, engine_factory)
    defaults = {field.name: field.default for field in fields(config)}
    given = {name: value for name, value in start.settings.items() if value != defaults[name]}
    return msgspec.structs.replace(start, settings=given)


def _idle_s_from_environment() -> float:
    text = os.environ.get("WEBLLM_DAEMON_IDLE_S")
    return DEFAULT_IDLE_S if not text else _checked_idle_s("WEBLLM_DAEMON_IDLE_S", text)


def _checked_idle_s(name: str, value: str | float) -> float:
    """Returns a time for the daemon to wait. Raises ConfigError for one too short to connect in."""
    with suppress(ValueError):
        if _MIN_IDLE_S <= (idle_s := float(value)) < math.inf:
            return idle_s
    raise ConfigError(f"{name} is {value!r}; give a number of seconds, {_MIN_IDLE_S} or more")


async def _open_port(start: Start, idle_s: float) -> SocketPort:
    """Connects to the daemon that runs, or to a new one, and has it make its engine.

    Raises what the daemon throws, and WorkerLostError.
    """
    files = DaemonFiles.find()
    for num_left in reversed(range(_MAX_TRIES)):
        try:
            port = await connect(files.socket) or await _connect_to_new(files, idle_s)
            await _ask(files, port, start)
            return port
        except _EndedError:  # it has ended, or is about to
            if not num_left:
                raise
    raise AssertionError


class _EndedError(WorkerLostError):
    """The daemon ended before it could be reached, or before it replied."""


async def _ask(files: DaemonFiles, port: SocketPort, message: Start | Control) -> Any:
    """Posts the first message; after an error the port is closed."""
    try:
        async with asyncio.timeout(_REPLY_S):
            return await ask_first(port, message)
    except TimeoutError:
        raise WorkerLostError(
            f"the daemon, process {files.read_pid()}, has not answered for {_REPLY_S:.0f} s; end "
            "it with `webllm daemon stop`"
        ) from None
    except WorkerLostError as error:
        raise _EndedError(f"{error}; {files.log} may say why") from error


async def _control(files: DaemonFiles, command: Any) -> DaemonStatus | None:
    port = await connect(files.socket)
    if port is None:
        return None
    try:
        reply = await _ask(files, port, Control(uuid=new_uuid(), command=command))
    except _EndedError:
        return None
    await port.close()
    try:
        return msgspec.convert(reply, DaemonStatus)
    except msgspec.ValidationError as error:
        raise WorkerLostError(
            f"the daemon is of another version of webllm ({error}); end it with `webllm daemon "
            "stop`"
        ) from None


async def _connect_to_new(files: DaemonFiles, idle_s: float) -> SocketPort:
    """Starts a daemon and connects to it. One program at a time does so."""
    async with _held(files.starting_lock(), "another program, which starts the daemon, hangs"):
        if port := await connect(files.socket):
            return port  # another program has started it meanwhile
        await _launch(files, idle_s)
        if port := await connect(files.socket):
            return port
    raise _EndedError(f"the daemon ended as soon as it was started; {files.log} may say why")


@asynccontextmanager
async def _held(lock: FileLock, otherwise: str) -> AsyncIterator[None]:
    """Waits for a lock. Raises WorkerLostError with the text `otherwise` if it does not come."""
    try:
        async with asyncio.timeout(_LOCK_S):
            while not lock.try_acquire():
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise WorkerLostError(f"{otherwise}: no lock within {_LOCK_S:.0f} s") from None
    except OSError as error:
        raise WorkerLostError(f"the daemon's lock cannot be used: {error}") from error
    try:
        yield
    finally:
        lock.release()


async def _launch(files: DaemonFiles, idle_s: float) -> None:
    """Starts the daemon's process, and waits until it can be reached. Raises what it reports."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as said:
        try:
            process = await _start_process(files, idle_s, writing)
        finally:
            os.close(writing)
        try:
            async with asyncio.timeout(_START_S):
                await process.wait()
                reply = await _read_all(said)
        except TimeoutError:
            raise WorkerLostError(
                f"the daemon has not started within {_START_S:.0f} s; {files.log} may say why"
            ) from None
    replies = [read_reply(message) for message in FrameReader().feed(reply)]
    if not replies:
        raise _EndedError(f"the daemon did not start; {files.log} may say why")
    if isinstance(replies[0], Throw):
        raise replies[0].rebuilt()


async def _start_process(files: DaemonFiles, idle_s: float, ready_fd: int) -> Process:
    """Starts the process that starts the daemon's."""
    package = str(Path(__file__).parents[2])
    try:
        with files.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-c", _BOOT, package),
                *("--idle-s", str(idle_s), "--ready-fd", str(ready_fd)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                pass_fds=(ready_fd,),
                start_new_session=True,
            )
    except OSError as error:
        raise WorkerLostError(f"the daemon could not be started: {error}") from error


async def _read_all(pipe: BinaryIO) -> bytes:
    """Returns everything that comes through a pipe, and closes it."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        return await reader.read()
    finally:
        transport.close()


async def _is_gone(files: DaemonFiles, pid: int) -> bool:
    """Waits for a daemon's end; returns whether it came in time. Another may take its place."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_STOP_S):
            while files.read_pid() == pid:
                await asyncio.sleep(_POLL_S)
            return True
    return False


def _kill(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _absolute(model: str) -> str:
    """Returns the full path of a file or folder here, and any other model as it is."""
    path, mark, digest = model.partition("#sha256=")
    return f"{os.path.abspath(path)}{mark}{digest}" if os.path.exists(path) else model
