"""Turns a stream of responses into server-sent events, in OpenAI's form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import msgspec

from webllm.api.base import ResponseStruct
from webllm.server.error_body import error_body


class EventStream:
    """One event for each chunk, then "[DONE]", or an event with the error that ended the stream.

    `aclose` ends the answer at once, even before the first read or while another task waits for an
    event; that task's loop then ends. A stream has one reader.
    """

    def __init__(self, chunks: AsyncGenerator[ResponseStruct, None]) -> None:
        self._chunks = chunks
        self._events = self._generate()
        self._pull: asyncio.Task[bytes | None] | None = None
        self._is_closed = False

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> bytes:
        if self._is_closed:
            raise StopAsyncIteration
        # In a task of its own, so that `aclose` can cancel it without cancelling the reader.
        self._pull = asyncio.create_task(self._next())
        try:
            event = await self._pull
        except asyncio.CancelledError:
            if not self._is_closed or _is_cancelled():
                raise
            event = None
        finally:
            self._pull = None
        if event is None:
            raise StopAsyncIteration
        return event

    async def aclose(self) -> None:
        self._is_closed = True
        if self._pull is not None:
            self._pull.cancel()
            await asyncio.wait((self._pull,))
        await self._events.aclose()
        await self._chunks.aclose()

    async def _next(self) -> bytes | None:
        return await anext(self._events, None)

    async def _generate(self) -> AsyncGenerator[bytes, None]:
        try:
            async for chunk in self._chunks:
                yield _event(msgspec.json.encode(chunk))
        except Exception as error:
            yield _event(error_body(error)[1])
            return
        yield _event(b"[DONE]")


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _event(data: bytes) -> bytes:
    return b"data: %b\n\n" % data
