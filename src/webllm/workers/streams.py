"""The open streams of one client in a worker. The client pulls each chunk with a message.

Any number of streams with ids may be open. A stream without an id, as of an older WebLLM, is the
only one of its model: the next one waits for its end.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from webllm.errors import ModelNotLoadedError, ModelReplacedError, RequestError
from webllm.workers.messages import StreamInitParams, StreamParams

Chunks = AsyncGenerator[Any, None]

END = object()


@dataclass(eq=False)
class AskedRequest:
    """A request that the engine is asked to answer.

    replaced: set when its model makes way for another client's. What the engine has generated until
    then is still read; the error comes in place of the end.
    """

    id: str
    replaced: ModelReplacedError | None = None

    def check(self, response: Any) -> None:
        """Raises the error for a whole answer or a chunk that was aborted as the model made way."""
        choices = getattr(response, "choices", ())
        if self.replaced and any(choice.finish_reason == "abort" for choice in choices):
            raise self.replaced

    def error(self, error: BaseException) -> BaseException:
        """Returns what to raise for an error of the engine."""
        if self.replaced and isinstance(error, ModelNotLoadedError):
            return self.replaced
        return error


class Stream:
    """The chunks of one answer. Several pulls may wait at once, as with JavaScript's generators."""

    def __init__(self, chunks: Chunks, request: AskedRequest, on_end: Callable[[], None]) -> None:
        self.request = request
        self.is_interrupted = False
        self.is_read = False  # since the last interrupt
        self.chunks = chunks
        self._on_end = on_end
        self._is_open = True
        self._turn = asyncio.Lock()
        self._pulls: set[asyncio.Task[Any]] = set()

    async def next(self) -> Any:
        """Returns the next chunk, or END after the last one and once the stream is closed."""
        pull = asyncio.current_task()
        assert pull is not None
        self.is_read = True
        self._pulls.add(pull)
        try:
            async with self._turn:
                return await self._next()
        except asyncio.CancelledError:
            if pull in self._pulls:
                raise
            pull.uncancel()
            return END
        finally:
            self._pulls.discard(pull)

    async def _next(self) -> Any:
        try:
            chunk = await anext(self.chunks, END)
            self.request.check(chunk)
        except BaseException as error:
            self._end()
            await self.chunks.aclose()  # does nothing if the error is theirs
            raise self.request.error(error) from None
        if chunk is END:
            self._end()
        return chunk

    @property
    def is_under_way(self) -> bool:
        """Whether an interrupt would end it."""
        return self._is_open and not self.is_interrupted

    @property
    def is_abandoned(self) -> bool:
        """Whether it was interrupted and no pull waits for the rest."""
        return self.is_interrupted and not self._pulls

    async def close(self) -> None:
        """Ends the answer; waiting pulls return END."""
        pulls, self._pulls = self._pulls, set()
        for pull in pulls:
            pull.cancel()
        self._end()
        async with self._turn:
            await self.chunks.aclose()

    def _end(self) -> None:
        if self._is_open:
            self._is_open = False
            self._on_end()


class Streams:
    """All streams of one client."""

    def __init__(self) -> None:
        self._by_id: dict[str, Stream] = {}
        self._interrupted: dict[str, Stream] = {}  # by id; the client may still read the rest
        self._by_model: dict[str | None, Stream] = {}  # without an id; the last ones, maybe ended
        self._turns: dict[str | None, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def open(
        self,
        params: StreamInitParams,
        request: AskedRequest,
        begin: Callable[[], Awaitable[Chunks]],
    ) -> None:
        """Begins a stream; one without an id waits for its turn. Raises what `begin` raises."""
        if params.stream_id is not None:
            await self.add(params.stream_id, request, await begin())
            return
        model_id = params.selected_model_id
        turn = await self._take_turn(model_id)
        try:
            self._by_model[model_id] = Stream(await begin(), request, turn.release)
        except BaseException:
            turn.release()
            raise

    async def add(self, stream_id: str, request: AskedRequest, chunks: Chunks) -> None:
        """Opens a stream that has begun. Raises RequestError if there is one with this id."""
        if stream_id in self._by_id or stream_id in self._interrupted:
            await chunks.aclose()
            raise RequestError(f"the stream {stream_id!r} is open already; give each its own id")
        self._by_id[stream_id] = Stream(chunks, request, lambda: self._forget(stream_id))

    async def next(self, params: StreamParams) -> Any:
        """Returns the next chunk, or END after the last one."""
        stream = self._find(params)
        if stream is None:
            name = params.stream_id or params.selected_model_id
            raise RequestError(
                f"no stream {name!r} is open here, as after a restart of the worker; begin one"
            )
        return await stream.next()

    async def end(self, params: StreamParams) -> None:
        """Ends a stream of which its client reads no more. Does nothing if it has ended."""
        if stream := self._find(params):
            await stream.close()

    @property
    def under_way(self) -> list[AskedRequest]:
        """The requests of the streams that an interrupt would end."""
        return [stream.request for stream in self._all() if stream.is_under_way]

    def of(self, request: AskedRequest) -> list[Stream]:
        """Returns the streams with the id of a request."""
        return [stream for stream in self._all() if stream.request.id == request.id]

    def interrupt(self) -> list[Stream]:
        """Marks all streams as interrupted, and returns those that the caller should close.

        A client may read the rest of an interrupted answer. If it has read nothing of it until the
        next interrupt, it is closed then; a stream without an id, when the next one of its model
        begins.
        """
        interrupted = self._interrupted.values()
        unread = [each for each in interrupted if each.is_abandoned and not each.is_read]
        self._interrupted |= self._by_id
        self._by_id = {}
        for stream in [*self._interrupted.values(), *self._by_model.values()]:
            stream.is_interrupted = True
            stream.is_read = False
        return unread

    async def close(self) -> None:
        """Ends all streams, then raises the first error."""
        await close_all(self._all())

    def _all(self) -> list[Stream]:
        return [*self._by_id.values(), *self._interrupted.values(), *self._by_model.values()]

    async def _take_turn(self, model_id: str | None) -> asyncio.Lock:
        last = self._by_model.get(model_id)
        if last is not None and last.is_abandoned:
            await last.close()
        turn = self._turns[model_id]
        await turn.acquire()
        return turn

    def _find(self, params: StreamParams) -> Stream | None:
        if params.stream_id is None:
            return self._by_model.get(params.selected_model_id)
        stream_id = params.stream_id
        return self._by_id.get(stream_id) or self._interrupted.get(stream_id)

    def _forget(self, stream_id: str) -> None:
        self._by_id.pop(stream_id, None)
        self._interrupted.pop(stream_id, None)


async def close_all(streams: Iterable[Stream]) -> None:
    """Closes all streams, also after an error; then raises the first error."""
    ends = await asyncio.gather(*(each.close() for each in streams), return_exceptions=True)
    for error in ends:
        if isinstance(error, BaseException):
            raise error
