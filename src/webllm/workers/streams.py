"""The streams that one client has open in a worker, pulled chunk by chunk.

Any number of streams with ids may be open. A stream without an id is the only one of its model, as
in older WebLLM: the next one waits for its end.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Any

from webllm.errors import RequestError
from webllm.workers.messages import StreamInitParams, StreamParams

Chunks = AsyncGenerator[Any, None]

END = object()


class Stream:
    """One answer's chunks. Several may be asked for at a time, as from JavaScript's generators."""

    def __init__(self, chunks: Chunks, on_end: Callable[[], None]) -> None:
        self.is_interrupted = False
        self.has_begun = False  # the engine computes nothing before the first pull
        self.chunks = chunks
        self._on_end = on_end
        self._is_open = True
        self._turn = asyncio.Lock()
        self._pulls: set[asyncio.Task[Any]] = set()

    async def next(self) -> Any:
        """Returns the next chunk, or END after the last one and once the stream is closed."""
        pull = asyncio.current_task()
        assert pull is not None
        self.has_begun = True
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
        except BaseException:
            self._end()
            raise
        if chunk is END:
            self._end()
        return chunk

    @property
    def is_abandoned(self) -> bool:
        """Whether it was interrupted and nobody asks for the rest."""
        return self.is_interrupted and not self._pulls

    async def close(self) -> None:
        """Ends the answer; pulls under way return END."""
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
        self._interrupted: dict[str, Stream] = {}  # with an id; the rest may be read
        self._by_model: dict[str | None, Stream] = {}  # the last of each; may have ended
        self._turns: dict[str | None, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def open(self, params: StreamInitParams, begin: Callable[[], Awaitable[Chunks]]) -> None:
        """Begins a stream, once it is its turn; raises what `begin` raises."""
        if params.stream_id is not None:
            await self._open_with_id(params.stream_id, await begin())
            return
        model_id = params.selected_model_id
        turn = await self._take_turn(model_id)
        try:
            self._by_model[model_id] = Stream(await begin(), turn.release)
        except BaseException:
            turn.release()
            raise

    async def _open_with_id(self, stream_id: str, chunks: Chunks) -> None:
        if stream_id in self._by_id or stream_id in self._interrupted:
            await chunks.aclose()
            raise RequestError(f"the stream {stream_id!r} is open already; give each its own id")
        self._by_id[stream_id] = Stream(chunks, lambda: self._forget(stream_id))

    async def next(self, params: StreamParams) -> Any:
        """Returns the next chunk, or END after the last one."""
        stream = self._find(params)
        if stream is None:
            raise RequestError(
                f"no stream {params.stream_id or params.selected_model_id!r} is open; begin one"
            )
        return await stream.next()

    async def end(self, params: StreamParams) -> None:
        """Ends a stream that its client reads no further, unless it has ended already."""
        if stream := self._find(params):
            await stream.close()

    def interrupt(self) -> list[Stream]:
        """Marks all streams as interrupted by the engine, and returns those to be closed.

        The rest of an interrupted answer waits for its reader, until the next interrupt finds that
        nobody reads on. A stream without an id waits until the next one of its model begins.
        """
        unread = [stream for stream in self._interrupted.values() if stream.is_abandoned]
        self._interrupted |= self._by_id
        self._by_id = {}
        for stream in [*self._interrupted.values(), *self._by_model.values()]:
            stream.is_interrupted = True
        return unread

    async def end_unbegun(self) -> None:
        """Ends the streams that the engine does not know yet, and therefore cannot interrupt."""
        for stream in self._all():
            if not stream.has_begun:
                await stream.chunks.aclose()

    async def close(self) -> None:
        """Ends all streams, then raises the first error that came of it."""
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
    """Closes each, whatever the others raise, then raises the first error."""
    ends = await asyncio.gather(*(each.close() for each in streams), return_exceptions=True)
    for error in ends:
        if isinstance(error, BaseException):
            raise error
