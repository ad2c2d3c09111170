"""The streams that one client has open in a worker, pulled chunk by chunk.

A stream with an id is one of any number. A stream without one is the only one of its model, as in
WebLLM: the next one waits for its end.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from webllm.errors import RequestError
from webllm.workers.messages import NextChunkParams, StreamInitParams

Chunks = AsyncGenerator[Any, None]

END = object()


class Stream:
    """Chunks that may be asked for several at a time, as JavaScript's generators allow."""

    def __init__(self, chunks: Chunks, on_end: Callable[[], None]) -> None:
        self.is_interrupted = False
        self._chunks = chunks
        self._on_end = on_end
        self._is_open = True
        self._turn = asyncio.Lock()
        self._pulls: set[asyncio.Task[Any]] = set()

    async def next(self) -> Any:
        """The next chunk; END after the last one."""
        pull = asyncio.current_task()
        assert pull is not None
        self._pulls.add(pull)
        try:
            async with self._turn:
                return await self._next()
        finally:
            self._pulls.discard(pull)

    async def _next(self) -> Any:
        try:
            chunk = await anext(self._chunks, END)
        except BaseException:
            self._end()
            raise
        if chunk is END:
            self._end()
        return chunk

    @property
    def is_abandoned(self) -> bool:
        """Interrupted, and nobody asks how it ended."""
        return self.is_interrupted and not self._pulls

    async def close(self) -> None:
        for pull in self._pulls:
            pull.cancel()
        self._end()
        async with self._turn:
            await self._chunks.aclose()

    def _end(self) -> None:
        if self._is_open:
            self._is_open = False
            self._on_end()


class Streams:
    def __init__(self) -> None:
        self._by_id: dict[str, Stream] = {}
        self._by_model: dict[str | None, Stream] = {}  # the last one of each; it may have ended
        self._turns: dict[str | None, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def open(self, params: StreamInitParams, begin: Callable[[], Awaitable[Chunks]]) -> None:
        """Begins a stream, once it is its turn; raises what `begin` raises."""
        if params.stream_id is not None:
            stream_id = params.stream_id
            chunks = await begin()
            self._by_id[stream_id] = Stream(chunks, lambda: self._forget(stream_id))
            return
        model_id = params.selected_model_id
        turn = await self._take_turn(model_id)
        try:
            self._by_model[model_id] = Stream(await begin(), turn.release)
        except BaseException:
            turn.release()
            raise

    async def next(self, params: NextChunkParams) -> Any:
        """The next chunk; END after the last one."""
        if params.stream_id is not None:
            stream = self._by_id.get(params.stream_id)
        else:
            stream = self._by_model.get(params.selected_model_id)
        if stream is None:
            raise RequestError(
                f"no stream {params.stream_id or params.selected_model_id!r} is open; begin one"
            )
        return await stream.next()

    async def abort(self, stream_id: str) -> None:
        if stream := self._by_id.get(stream_id):
            await stream.close()

    def interrupt(self) -> None:
        """Every answer was interrupted: a stream that nobody reads on makes way for the next."""
        for stream in self._by_model.values():
            stream.is_interrupted = True

    async def close(self) -> None:
        for stream in [*self._by_id.values(), *self._by_model.values()]:
            await stream.close()

    async def _take_turn(self, model_id: str | None) -> asyncio.Lock:
        last = self._by_model.get(model_id)
        if last is not None and last.is_abandoned:
            await last.close()
        turn = self._turns[model_id]
        await turn.acquire()
        return turn

    def _forget(self, stream_id: str) -> None:
        del self._by_id[stream_id]
