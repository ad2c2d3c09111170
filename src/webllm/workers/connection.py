"""`Connection`: one client of a worker, with its port, running requests and open streams."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from webllm.errors import RequestError, WebLLMError, WorkerLostError
from webllm.workers import messages as m
from webllm.workers.port import Port, Unreadable
from webllm.workers.streams import Streams

Handle = Callable[["Connection", m.Request], Awaitable[m.AnyReply | None]]

_SETTINGS = (m.SET_APP_CONFIG.name, m.SET_LOG_LEVEL.name)


class Connection:
    """Runs each request as a task, and ends all tasks when the client is gone."""

    def __init__(self, port: Port, handle: Handle, on_end: Callable[[Connection], None]) -> None:
        self.streams = Streams()
        self._port = port
        self._handle = handle
        self._on_end = on_end
        self._tasks: dict[str | None, asyncio.Task[None]] = {}
        self._setting_errors: dict[str, Exception] = {}  # by kind of setting, of the last one
        self._ending: asyncio.Task[None] | None = None
        port.listen(self._receive, self._on_close)

    def post(self, reply: m.AnyReply) -> None:
        """Posts to the client, if it is still there."""
        try:
            self._port.post(reply)
        except WorkerLostError:
            return  # its tasks are ending

    def check_settings(self) -> None:
        """Raises the error of a setting that this client posted.

        No client waits for the reply to a setting. So its error fails every later load instead,
        until the client posts the setting again.
        """
        for error in self._setting_errors.values():
            raise error

    def _receive(self, message: object) -> None:
        """Skips messages of other protocols, as WebLLM does."""
        if isinstance(message, Unreadable):
            self._refuse(message.kind, message.uuid, RequestError(message.reason))
        elif isinstance(message, dict) and "kind" in message:
            try:
                request = m.read_request(message)
            except (ValueError, RecursionError) as error:
                self._refuse(message["kind"], message.get("uuid"), error)
            else:
                self._dispatch(request)

    def _dispatch(self, request: m.Request | m.KeepAlive) -> None:
        """Replies to a hello at once; starts a task for other requests.

        A client for whom another reply comes first takes the worker for one of WebLLM's.
        """
        if isinstance(request, m.KeepAlive):
            if request.uuid is not None:
                self.post(m.Heartbeat(uuid=request.uuid))
        elif request.kind == m.HELLO.name:
            self.post(m.Return(uuid=request.uuid, content=m.Greeting(protocol=m.PROTOCOL)))
        elif request.kind in _SETTINGS:
            self._start(request.uuid, self._set(request.kind, request))
        elif request.kind != m.ABORT.name or not self._cancel(request.uuid):
            self._start(request.uuid, self._run(request))

    def _refuse(self, kind: object, uuid: object, error: Exception) -> None:
        """Replies with an error, if the message has a uuid for which its sender may wait."""
        if isinstance(kind, str) and kind in _SETTINGS:
            self._start(None, self._set(kind, error))
        elif isinstance(uuid, str | int):
            self.post(m.Throw.of(error, uuid))

    def _cancel(self, uuid: str) -> bool:
        """Cancels a running request. Returns False if none has this uuid; a stream may have it."""
        task = self._tasks.get(uuid)
        return task is not None and task.cancel()

    def _start(self, uuid: str | None, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks[uuid] = task
        task.add_done_callback(lambda _: self._forget(uuid, task))

    def _forget(self, uuid: str | None, task: asyncio.Task[None]) -> None:
        if self._tasks.get(uuid) is task:  # an abort has the uuid of the request that it ends
            del self._tasks[uuid]

    async def _set(self, kind: str, setting: m.Request | Exception) -> None:
        """Applies a setting, or records the error of one that could not be read.

        As a task, like any request, so that settings and requests keep their order.
        """
        self._setting_errors.pop(kind, None)
        try:
            if isinstance(setting, Exception):
                raise setting
            await self._handle(self, setting)
        except Exception as error:
            self._setting_errors[kind] = error

    async def _run(self, request: m.Request) -> None:
        try:
            reply = await self._handle(self, request)
            if reply is not None:
                self.post(reply)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the client has cancelled and waits no longer
            dropped = WebLLMError("the worker dropped this request; send it again")
            self.post(m.Throw.of(dropped, request.uuid))
        except Exception as error:
            self.post(m.Throw.of(error, request.uuid))

    def _on_close(self, _reason: str) -> None:
        self._ending = asyncio.get_running_loop().create_task(self._end())

    async def _end(self) -> None:
        for task in list(self._tasks.values()):
            task.cancel()
        try:
            await self.streams.close()
        finally:
            self._on_end(self)
