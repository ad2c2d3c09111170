"""`Client`: the calls that wait for answers from one worker. Knows no engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

import msgspec

from webllm.errors import RequestError, WebLLMError, WorkerLostError
from webllm.workers.error_info import rebuild
from webllm.workers.messages import (
    Abort,
    AnyAnswer,
    Hello,
    HelloAnswer,
    InitProgress,
    InitProgressCallback,
    InterruptGenerate,
    Return,
    Throw,
    Work,
    read_answer,
)
from webllm.workers.port import Port, Unreadable


class Client:
    """One worker, from its port's opening until it is lost; then `lost` says why."""

    def __init__(self, port: Port, on_progress: Callable[[InitProgress], None]) -> None:
        self.port = port
        self.lost: str | None = None
        self._on_progress = on_progress
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._closing: asyncio.Task[None] | None = None
        self.protocol: int | None = None  # the worker's; None: WebLLM's and no more
        self._hello = Hello(uuid=new_uuid())
        port.listen(self._receive, self._lose)
        self.tell(self._hello)

    async def call(self, request: Work) -> Any:
        """Posts a request and waits for its answer's content; cancelled, it ends the work.

        Raises what the worker throws, WorkerLostError, and RequestError for what is no plain data.
        """
        if self.lost is not None:
            raise worker_lost(self.lost)
        future = self._waiting[request.uuid] = asyncio.get_running_loop().create_future()
        try:
            self._post(request)
            return await future
        except asyncio.CancelledError:
            self.tell(Abort(uuid=request.uuid))
            raise
        finally:
            del self._waiting[request.uuid]

    def tell(self, request: Work) -> None:
        """Posts a request whose answer nobody waits for, if there is still a worker."""
        with suppress(WorkerLostError):
            self._post(request)

    def end_stream(self, stream_id: str) -> None:
        """WebLLM's workers can only end every answer."""
        is_ours = self.protocol is not None
        self.tell(Abort(uuid=stream_id) if is_ours else InterruptGenerate(uuid=new_uuid()))

    def _post(self, request: Work) -> None:
        try:
            self.port.post(request)
        except RequestError:
            raise
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise RequestError(f"a request is made of plain data: {error}") from None

    def _receive(self, message: object) -> None:
        """Messages of other protocols are skipped, as in the handler."""
        if self.lost is not None:
            return
        if isinstance(message, Unreadable):
            self._fail(message.kind, message.uuid, message.reason)
        elif isinstance(message, dict) and "kind" in message:
            try:
                answer = read_answer(message)
            except (ValueError, RecursionError) as error:
                self._fail(message["kind"], message.get("uuid"), str(error))
            else:
                self._take(answer)

    def _take(self, answer: AnyAnswer) -> None:
        if isinstance(answer, InitProgressCallback):
            self._report(answer)
        elif answer.uuid == self._hello.uuid:
            if isinstance(answer, Return):
                self.protocol = _protocol(answer.content)
        elif isinstance(answer, Return):
            if future := self._still_waiting(answer.uuid):
                future.set_result(answer.content)
        elif isinstance(answer, Throw) and (future := self._still_waiting(answer.uuid)):
            future.set_exception(rebuild(answer))

    def _still_waiting(self, uuid: str) -> asyncio.Future[Any] | None:
        future = self._waiting.get(uuid)
        return None if future is None or future.done() else future

    def _report(self, answer: InitProgressCallback) -> None:
        """A callback that raises fails the load, as it does without a worker."""
        try:
            self._on_progress(answer.content)
        except Exception as error:
            if not self._abort(answer.uuid, error):
                raise

    def _abort(self, uuid: str, error: Exception) -> bool:
        """Fails a call, if it still waits, and ends its work in the worker."""
        if future := self._still_waiting(uuid):
            future.set_exception(error)
            self.tell(Abort(uuid=uuid))
        return future is not None

    def _fail(self, kind: object, uuid: object, why: str) -> None:
        """An answer that cannot be read fails its call. Whose answer it is may be what cannot be
        read: then the worker is lost, because somebody would wait for it forever.
        """
        if kind == "initProgressCallback":
            return  # tells nothing; the load will still be answered
        if isinstance(uuid, str):
            if future := self._still_waiting(uuid):
                future.set_exception(unreadable_answer(why))
        elif kind in ("return", "throw"):
            self._lose(f"it sent an answer that cannot be read: {why}")
            self._closing = asyncio.get_running_loop().create_task(self.port.close())

    def _lose(self, reason: str) -> None:
        if self.lost is None:
            self.lost = reason
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(worker_lost(self.lost))


def new_uuid() -> str:
    return str(uuid4())


def worker_lost(reason: str) -> WorkerLostError:
    return WorkerLostError(f"the worker is lost: {reason}; restart() it, or make a new engine")


def unreadable_answer(why: str) -> WebLLMError:
    return WebLLMError(
        f"the worker's answer cannot be read: {why}; use the same version of webllm in the worker"
    )


def _protocol(content: object) -> int | None:
    try:
        return msgspec.convert(content, HelloAnswer).protocol
    except msgspec.ValidationError:
        return None  # no hello of ours
