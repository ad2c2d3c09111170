"""`Connection`: one client of a worker, with its port, running requests and open streams.

A client that is lost keeps its answers for a while, since it may come back on another connection
and ask for the rest of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from webllm.config import AppConfig, ChatOptions, ModelRecord
from webllm.errors import (
    ModelNotFoundError,
    ModelNotLoadedError,
    ModelReplacedError,
    RequestError,
    WebLLMError,
    WorkerLostError,
)
from webllm.workers import messages as m
from webllm.workers.port import Port, Unreadable
from webllm.workers.streams import AskedRequest, Streams

Handle = Callable[["Connection", m.Request], Awaitable[m.AnyReply | None]]

_SETTINGS = (m.SET_APP_CONFIG.name, m.SET_LOG_LEVEL.name)
# They go on without their client: a pull that is cancelled ends its stream.
_OUTLIVE_CLIENT = {m.NEXT_CHUNK.name, m.END_STREAM.name, m.ABORT.name, m.INTERRUPT.name}
_DELETE_SESSION = "deleteResumableSession"


@dataclass(frozen=True)
class Models:
    """Models as a client names them, with the catalogue in which it looks names up."""

    ids: list[str]
    options: list[ChatOptions] | None
    app_config: AppConfig

    def has_names_of(self, other: Models) -> bool:
        return self.ids == other.ids

    def is_same(self, other: Models) -> bool:
        """Whether another client means the same models and options."""
        return self._records() == other._records()

    def __str__(self) -> str:
        return ", ".join(self.ids)

    def _records(self) -> list[tuple[ModelRecord | str, ChatOptions]]:
        options = self.options or [ChatOptions()] * len(self.ids)
        return [(self._record(each), given) for each, given in zip(self.ids, options, strict=False)]

    def _record(self, model_id: str) -> ModelRecord | str:
        try:
            return self.app_config.find(model_id)
        except ModelNotFoundError:
            return model_id


class Connection:
    """Runs each request as a task.

    app_config: the client's catalogue; None stands for the engine's own. models: those that the
    client has loaded, or asked and found loaded. replaced: why it has to reload them.

    grace_s: how long the answers of a lost client are kept, in seconds. Its other requests end at
    once, except for deletions of sessions: nobody else knows that they are to be deleted.
    """

    def __init__(
        self,
        port: Port,
        handle: Handle,
        on_end: Callable[[Connection], None],
        grace_s: float = 0.0,
    ) -> None:
        self.streams = Streams()
        self.app_config: AppConfig | None = None
        self.models: Models | None = None
        self.replaced: ModelReplacedError | None = None
        self._grace_s = grace_s
        self._grace_is_over = asyncio.Event()
        self._asked: dict[asyncio.Task[Any], AskedRequest] = {}
        self._outlive_client: set[asyncio.Task[None]] = set()
        self._deleting: set[asyncio.Task[None]] = set()
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

    @contextmanager
    def asking(self, request: AskedRequest) -> Iterator[None]:
        """Marks the current task as one that waits for the engine's answer to a request."""
        task = asyncio.current_task()
        assert task is not None
        self._asked[task] = request
        try:
            yield
        except ModelNotLoadedError as error:
            raise request.error(error) from None
        finally:
            del self._asked[task]

    @property
    def under_way(self) -> list[AskedRequest]:
        """The requests whose answers an interrupt would end."""
        return [*self._asked.values(), *self.streams.under_way]

    def replace_models(self, error: ModelReplacedError) -> None:
        """Ends the answers under way with this error, in place of the abort that follows.

        Later requests raise it too, if the client has loaded models.
        """
        if self.models is not None:
            self.models, self.replaced = None, error
        for request in self.under_way:
            request.replaced = error

    def let_go(self, request: AskedRequest) -> None:
        """Ends the streams of a request, soon."""
        for stream in self.streams.of(request):
            self._start(m.new_uuid(), stream.close())

    async def end(self) -> None:
        """Ends all requests and streams at once, and closes the port; raises the first error."""
        self._grace_is_over.set()
        self._on_close("")
        assert self._ending is not None
        try:
            await asyncio.shield(self._ending)
        finally:
            await self._port.close()

    @property
    def is_lost(self) -> bool:
        return self._ending is not None

    def check_models(self) -> None:
        """Raises ModelReplacedError if the client has to reload its models."""
        if self.replaced is not None:
            raise self.replaced.with_traceback(None)

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
            task = self._start(request.uuid, self._run(request))
            if request.kind in _OUTLIVE_CLIENT:
                _hold(task, self._outlive_client)
            if request.kind == _DELETE_SESSION:
                _hold(task, self._deleting)

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

    def _start(self, uuid: str | None, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks[uuid] = task
        task.add_done_callback(lambda _: self._forget(uuid, task))
        return task

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
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._end())

    async def _end(self) -> None:
        keep = self._outlive_client | self._deleting | self._asked.keys()
        for task in [task for task in self._tasks.values() if task not in keep]:
            task.cancel()
        if self.under_way:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._grace_is_over.wait(), self._grace_s)
        for task in [task for task in self._tasks.values() if task not in self._deleting]:
            task.cancel()
        try:
            await self.streams.close()
        finally:
            if self._deleting:
                await asyncio.wait(self._deleting)
            self._on_end(self)


def _hold(task: asyncio.Task[None], tasks: set[asyncio.Task[None]]) -> None:
    """Keeps a task in a set until it is done."""
    tasks.add(task)
    task.add_done_callback(tasks.discard)
