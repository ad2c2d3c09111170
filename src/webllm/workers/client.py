"""`Client`: the calls that wait for answers from one worker. Knows no engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

import msgspec

from webllm.errors import RequestError, WorkerLostError
from webllm.workers.error_info import rebuild
from webllm.workers.messages import (
    Abort,
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
from webllm.workers.port import Port


class Client:
    """One worker, from its port's opening until it is lost; then `lost` says why."""

    def __init__(self, port: Port, on_progress: Callable[[InitProgress], None]) -> None:
        self.port = port
        self.lost: str | None = None
        self._on_progress = on_progress
        self._waiting: dict[str, asyncio.Future[Any]] = {}
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
        except (TypeError, ValueError, OverflowError) as error:
            raise RequestError(f"a request is made of plain data: {error}") from None

    def _receive(self, message: object) -> None:
        """Messages of another kind of protocol are skipped, as in the handler."""
        if not isinstance(message, dict) or "kind" not in message:
            return
        answer = read_answer(message)
        if isinstance(answer, InitProgressCallback):
            self._on_progress(answer.content)
        elif answer.uuid == self._hello.uuid and isinstance(answer, Return):
            self.protocol = msgspec.convert(answer.content, HelloAnswer).protocol
        elif (future := self._waiting.get(answer.uuid)) and not future.done():
            if isinstance(answer, Return):
                future.set_result(answer.content)
            elif isinstance(answer, Throw):
                future.set_exception(rebuild(answer))

    def _lose(self, reason: str) -> None:
        self.lost = reason
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(worker_lost(reason))


def new_uuid() -> str:
    return str(uuid4())


def worker_lost(reason: str) -> WorkerLostError:
    return WorkerLostError(f"the worker is lost: {reason}; restart() it, or make a new engine")
