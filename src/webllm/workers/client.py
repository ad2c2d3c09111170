"""`Client`: sends requests to a worker and waits for the replies. Knows no engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from webllm.errors import RequestError, WebLLMError, WorkerLostError
from webllm.workers import messages as m
from webllm.workers.port import Port, Unreadable

OnProgress = Callable[[m.InitProgress], None]

_MAX_SILENT_BEATS = 3


class Client:
    """The connection to one worker. When the worker is lost, `lost` gives the reason.

    keep_alive_s: how often to ask whether the worker still runs. One that says nothing for three
    times as long is lost. None: never, because the port tells.
    """

    def __init__(
        self, port: Port, on_progress: OnProgress, keep_alive_s: float | None = None
    ) -> None:
        self.port = port
        self.lost: str | None = None
        self.protocol = 0  # of the worker, see `messages.PROTOCOL`; 0: a worker of WebLLM's
        self._on_progress = on_progress
        self._on_progress_of: dict[str, OnProgress] = {}  # by uuid of a load
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._kept: set[str] = set()  # uuids of calls that `abort_all` leaves
        self._closing: asyncio.Task[None] | None = None
        self._open: set[str] = set()  # ids of streams
        self._question: str | None = None  # uuid of `ask_for_end_stream`
        self._knows_end_stream = False
        self._ending: set[str] = set()  # uuids of messages that end a stream of WebLLM's
        self._keep_alive_s = keep_alive_s
        self._num_silent_beats = 0
        self._next_beat: asyncio.TimerHandle | None = None
        self._hello = m.HELLO.request()
        port.listen(self._receive, self._lose)
        self.notify(self._hello)
        self._schedule_beat()

    async def call(
        self,
        request: m.Request,
        on_progress: OnProgress | None = None,
        *,
        is_kept: bool = False,
    ) -> Any:
        """Posts a request and returns the content of its reply. Cancelling it aborts the request.

        on_progress: called with the progress of this request, besides the client's callback.
        is_kept: `abort_all` leaves it. Raises what the worker throws, WorkerLostError, and
        RequestError for a request that is not plain data.
        """
        if self.lost is not None:
            raise worker_lost(self.lost)
        future = self._waiting[request.uuid] = asyncio.get_running_loop().create_future()
        if on_progress is not None:
            self._on_progress_of[request.uuid] = on_progress
        if is_kept:
            self._kept.add(request.uuid)
        try:
            self._post(request)
            return await future
        except asyncio.CancelledError:
            self.notify(m.ABORT.request(uuid=request.uuid))
            raise
        finally:
            del self._waiting[request.uuid]
            self._on_progress_of.pop(request.uuid, None)
            self._kept.discard(request.uuid)

    def abort_all(self) -> None:
        """Ends all requests and streams of this client in the worker."""
        for uuid in [*self._waiting, *self._open]:
            if uuid not in self._kept:
                self.notify(m.ABORT.request(uuid=uuid))

    def notify(self, request: m.Request | m.KeepAlive) -> None:
        """Posts a request and waits for no reply. Does nothing if the worker is lost."""
        with suppress(WorkerLostError):
            self._post(request)

    def ask_for_end_stream(self) -> None:
        """Asks a worker of WebLLM's whether it can end one stream.

        Those of before 0.2.84 skip a kind that they do not know if it has no content, and else
        report an error of their script. The reply comes before that to the message that begins the
        next stream.
        """
        if self.protocol < m.ABORT.since and self._question is None:
            question = m.END_STREAM.request()
            self._question = question.uuid
            self.notify(question)

    def begin_stream(self, stream_id: str) -> None:
        """Notes a stream, which `abort_all` ends until `forget_stream`."""
        self._open.add(stream_id)

    def forget_stream(self, stream_id: str) -> None:
        self._open.discard(stream_id)

    def end_stream(self, stream_id: str) -> None:
        """Ends one stream. A worker of WebLLM's of before 0.2.84 can only end all answers."""
        if self.protocol >= m.ABORT.since:
            self.notify(m.ABORT.request(uuid=stream_id))
        elif self._knows_end_stream:
            end = m.END_STREAM.request(m.StreamParams(stream_id=stream_id))
            self._ending.add(end.uuid)
            self.notify(end)
        else:
            self.notify(m.INTERRUPT.request())

    def _post(self, request: m.Request | m.KeepAlive) -> None:
        try:
            self.port.post(request)
        except RequestError:
            raise
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise RequestError(f"a request is made of plain data: {error}") from None

    def _receive(self, message: object) -> None:
        """Handles a message. Skips those of other protocols, as the handler does."""
        if self.lost is not None:
            return
        self._num_silent_beats = 0
        if isinstance(message, Unreadable):
            self._fail(message.kind, message.uuid, message.reason)
        elif isinstance(message, dict) and "kind" in message:
            try:
                reply = m.read_reply(message)
            except (ValueError, RecursionError) as error:
                self._fail(message["kind"], message.get("uuid"), str(error))
            else:
                self._dispatch(reply)

    def _dispatch(self, reply: m.AnyReply) -> None:
        if isinstance(reply, m.InitProgressCallback):
            self._report(reply)
        elif reply.uuid == self._hello.uuid:
            if isinstance(reply, m.Return):
                self.protocol = _protocol(reply.content)
        elif reply.uuid == self._question:
            self._knows_end_stream = True
        elif reply.uuid in self._ending:
            self._ending.discard(reply.uuid)
            if isinstance(reply, m.Throw):
                self.notify(m.INTERRUPT.request())  # it refuses to end one
        elif isinstance(reply, m.Return):
            if future := self._pending(reply.uuid):
                future.set_result(reply.content)
        elif isinstance(reply, m.Throw) and (future := self._pending(reply.uuid)):
            future.set_exception(reply.rebuilt())

    def _pending(self, uuid: str) -> asyncio.Future[Any] | None:
        future = self._waiting.get(uuid)
        return None if future is None or future.done() else future

    def _report(self, progress: m.InitProgressCallback) -> None:
        """Calls the callbacks. If one raises, the load fails, as it does without a worker."""
        try:
            if own := self._on_progress_of.get(progress.uuid):
                own(progress.content)
            self._on_progress(progress.content)
        except Exception as error:
            if not self._abort(progress.uuid, error):
                raise

    def _abort(self, uuid: str, error: Exception) -> bool:
        """Fails a waiting call and aborts its request. Returns False if no call waits."""
        if future := self._pending(uuid):
            future.set_exception(error)
            self.notify(m.ABORT.request(uuid=uuid))
        return future is not None

    def _fail(self, kind: object, uuid: object, why: str) -> None:
        """Fails the call whose reply cannot be read.

        If its uuid cannot be read either, the worker counts as lost: a call would wait forever.
        """
        if kind == "initProgressCallback":
            return  # the load will still be answered
        if isinstance(uuid, str):
            if future := self._pending(uuid):
                future.set_exception(unreadable_answer(why))
        elif kind in ("return", "throw"):
            self._drop(f"it sent an answer that cannot be read: {why}")

    def _schedule_beat(self) -> None:
        if self._keep_alive_s is not None and self.lost is None:
            loop = asyncio.get_running_loop()
            self._next_beat = loop.call_later(self._keep_alive_s, self._beat)

    def _beat(self) -> None:
        if self._num_silent_beats == _MAX_SILENT_BEATS:
            silent_s = _MAX_SILENT_BEATS * (self._keep_alive_s or 0)
            self._drop(f"it has not said anything for {silent_s:g} s")
            return
        self._num_silent_beats += 1
        self.notify(m.KeepAlive(uuid=m.new_uuid()))
        self._schedule_beat()

    def _drop(self, reason: str) -> None:
        self._lose(reason)
        self._closing = asyncio.get_running_loop().create_task(self.port.close())

    def _lose(self, reason: str) -> None:
        if self.lost is None:
            self.lost = reason
        if self._next_beat is not None:
            self._next_beat.cancel()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(worker_lost(self.lost))


def worker_lost(reason: str) -> WorkerLostError:
    return WorkerLostError(f"the worker is lost: {reason}; restart() it, or make a new engine")


def unreadable_answer(why: str) -> WebLLMError:
    return WebLLMError(
        f"the worker's answer cannot be read: {why}; use the same version of webllm in the worker"
    )


def _protocol(greeting: object) -> int:
    try:
        return msgspec.convert(greeting, m.Greeting).protocol
    except msgspec.ValidationError:
        return 0
