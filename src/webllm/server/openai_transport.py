"""Transports for HTTP clients that ask an engine in the same process: nothing is sent anywhere.

For clients of `httpx` and of `httpx2`, which OpenAI's client uses from version 3 on. Neither is
imported here: a transport answers with the classes of the library that its request comes from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from functools import cache
from importlib import import_module
from typing import Any, Self, TypeVar

from webllm.api.interface import MLCEngineInterface
from webllm.engine.blocking import BlockingMLCEngine
from webllm.engine.event_loop_thread import BlockingStream
from webllm.errors import WebLLMError
from webllm.server.event_stream import EventStream
from webllm.server.routes import Reply, Routes, error_reply

_T = TypeVar("_T")


class OpenAITransport:
    """For `httpx.AsyncClient(transport=…)`; the requests are those of OpenAI's HTTP interface.

    Any host will do; paths begin with "/v1". A client's read timeout is for a whole answer, or for
    each event of a stream. Closing the client leaves the engine as it is. Use from the engine's
    event loop.
    """

    def __init__(self, engine: MLCEngineInterface) -> None:
        self._routes = Routes(engine)

    async def handle_async_request(self, request: Any) -> Any:
        """httpx's response to httpx's request; raises its ReadTimeout."""
        await request.aread()
        reply = await _answer(self._routes, request)
        body = reply.body
        if isinstance(body, EventStream):
            stream = _body_class(_Events, _library(request).AsyncByteStream)(body, request)
            return _response(request, reply, stream=stream)
        return _response(request, reply, content=body)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None: ...


class BlockingOpenAITransport:
    """The same for `httpx.Client(transport=…)`; any number of threads may use it at once."""

    def __init__(self, engine: BlockingMLCEngine) -> None:
        self._engine = engine
        self._routes = Routes(engine.on_thread)

    def handle_request(self, request: Any) -> Any:
        """httpx's response to httpx's request; raises its ReadTimeout."""
        request.read()
        try:
            reply = self._engine.wait_for(_answer(self._routes, request))
        except WebLLMError as error:  # the engine is closed
            reply = error_reply(error)
        body = reply.body
        if isinstance(body, EventStream):
            base = _library(request).SyncByteStream
            events = self._engine.iterate(_Events(body, request))
            stream = _body_class(_BlockingEvents, base)(events)
            return _response(request, reply, stream=stream)
        return _response(request, reply, content=body)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None: ...


class _Events:
    """The body of a streamed response: every event within the client's read timeout."""

    def __init__(self, events: EventStream, request: Any) -> None:
        self._events = events
        self._request = request

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        return await _in_time(self._events.__anext__(), self._request)

    async def aclose(self) -> None:
        await self._events.aclose()


class _BlockingEvents:
    def __init__(self, events: BlockingStream[bytes]) -> None:
        self._events = events

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._events)

    def close(self) -> None:
        self._events.close()


async def _answer(routes: Routes, request: Any) -> Reply:
    answer = routes.answer(request.method, request.url.path, request.content)
    return await _in_time(answer, request)


async def _in_time(work: Coroutine[Any, Any, _T], request: Any) -> _T:
    read_s = request.extensions.get("timeout", {}).get("read")
    try:
        async with asyncio.timeout(read_s) as limit:
            return await work
    except TimeoutError as error:
        if not limit.expired():
            raise
        message = f"no answer within {read_s} seconds, the client's read timeout"
        raise _library(request).ReadTimeout(message, request=request) from error


def _response(request: Any, reply: Reply, **body: object) -> Any:
    return _library(request).Response(reply.status, headers=reply.headers, request=request, **body)


def _library(request: Any) -> Any:
    """`httpx` or `httpx2`."""
    return import_module(type(request).__module__.partition(".")[0])


@cache
def _body_class(kind: type, base: type) -> Any:
    """`kind` as the subclass of the library's own that the library insists on."""
    return type(kind.__name__, (kind, base), {})
