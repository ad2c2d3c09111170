"""`Connection`: one client of a worker: its port, its requests under way and its open streams."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from webllm.errors import RequestError, WebLLMError, WorkerLostError
from webllm.workers.error_info import throw
from webllm.workers.messages import (
    PROTOCOL,
    SETTINGS,
    Abort,
    AnyAnswer,
    Heartbeat,
    Hello,
    HelloAnswer,
    KeepAlive,
    Return,
    SetAppConfig,
    SetLogLevel,
    Work,
    read_request,
)
from webllm.workers.port import Port, Unreadable
from webllm.workers.streams import Streams

Handle = Callable[["Connection", Work], Awaitable[AnyAnswer | None]]


class Connection:
    """Runs every request as a task of its own; ends them all when the client is gone."""

    def __init__(self, port: Port, handle: Handle, on_end: Callable[[Connection], None]) -> None:
        self.streams = Streams()
        self._port = port
        self._handle = handle
        self._on_end = on_end
        self._tasks: dict[str | None, asyncio.Task[None]] = {}
        self._refused: dict[str, Exception] = {}  # kind of setting, what is wrong with the last
        self._ending: asyncio.Task[None] | None = None
        port.listen(self._receive, self._on_close)

    def post(self, answer: AnyAnswer) -> None:
        """To the client, if it is still there."""
        try:
            self._port.post(answer)
        except WorkerLostError:
            return  # its tasks are ending

    def check_settings(self) -> None:
        """Raises what is wrong with a setting of this client. No client waits for an answer to
        one, so every load that comes after it fails, until there is another of its kind.
        """
        for error in self._refused.values():
            raise error

    def _receive(self, message: object) -> None:
        """Messages of other protocols are skipped, as WebLLM does."""
        if isinstance(message, Unreadable):
            self._refuse(message.kind, message.uuid, RequestError(message.reason))
        elif isinstance(message, dict) and "kind" in message:
            try:
                request = read_request(message)
            except (ValueError, RecursionError) as error:
                self._refuse(message["kind"], message.get("uuid"), error)
            else:
                self._take(request)

    def _take(self, request: Work | KeepAlive) -> None:
        """The answer to a hello comes before all others: a worker that answers anything else first
        is one of WebLLM's.
        """
        if isinstance(request, KeepAlive):
            if request.uuid is not None:
                self.post(Heartbeat(uuid=request.uuid))
        elif isinstance(request, Hello):
            self.post(Return(uuid=request.uuid, content=HelloAnswer(protocol=PROTOCOL)))
        elif isinstance(request, SetAppConfig | SetLogLevel):
            kind = str(request.__struct_config__.tag)
            self._start(request.uuid, self._set(kind, request))
        elif not isinstance(request, Abort) or not self._cancel(request.uuid):
            self._start(request.uuid, self._run(request))

    def _refuse(self, kind: object, uuid: object, error: Exception) -> None:
        """Thrown back, if it has a uuid that its sender may wait for."""
        if isinstance(kind, str) and kind in SETTINGS:
            self._start(None, self._set(kind, error))
        elif isinstance(uuid, str | int):
            self.post(throw(uuid, error))

    def _cancel(self, uuid: str) -> bool:
        """False if there is no such request under way; a stream may have its uuid."""
        task = self._tasks.get(uuid)
        return task is not None and task.cancel()

    def _start(self, uuid: str | None, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[uuid] = task
        task.add_done_callback(lambda _: self._forget(uuid, task))

    def _forget(self, uuid: str | None, task: asyncio.Task[None]) -> None:
        if self._tasks.get(uuid) is task:  # an abort has the uuid of what it ends
            del self._tasks[uuid]

    async def _set(self, kind: str, setting: Work | Exception) -> None:
        """In its turn among the requests, also if it could not be read."""
        self._refused.pop(kind, None)
        try:
            if isinstance(setting, Exception):
                raise setting
            await self._handle(self, setting)
        except Exception as error:
            self._refused[kind] = error

    async def _run(self, request: Work) -> None:
        try:
            answer = await self._handle(self, request)
            if answer is not None:
                self.post(answer)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # by the client, who waits no longer
            self.post(
                throw(request.uuid, WebLLMError("the worker dropped this request; send it again"))
            )
        except Exception as error:
            self.post(throw(request.uuid, error))

    def _on_close(self, _reason: str) -> None:
        self._ending = asyncio.get_running_loop().create_task(self._end())

    async def _end(self) -> None:
        for task in list(self._tasks.values()):
            task.cancel()
        try:
            await self.streams.close()
        finally:
            self._on_end(self)
