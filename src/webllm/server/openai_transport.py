"""Transports that connect HTTP clients to an engine in the same process, without a network.

They work with `httpx` and with `httpx2`, which OpenAI's client uses from version 3 on. Neither is
imported here: a transport responds with the classes of the library that its request comes from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any, Self
from weakref import WeakMethod

from webllm.api.interface import MLCEngineInterface
from webllm.engine.blocking import BlockingMLCEngine
from webllm.engine.event_loop_thread import BlockingStream
from webllm.errors import WebLLMError
from webllm.server.event_stream import EventStream
from webllm.server.routes import Reply, Routes, error_reply


class OpenAITransport:
    """A transport for `httpx.AsyncClient(transport=…)` that serves OpenAI's HTTP API.

    The host is ignored; paths begin with "/v1". The client's read timeout applies to a whole
    answer, or to each event of a stream. Closing the client does not close the engine. Use it in
    the engine's event loop.
    """

    def __init__(self, engine: MLCEngineInterface) -> None:
        self._routes = Routes(engine)

    async def handle_async_request(self, request: Any) -> Any:
        """Returns httpx's response to httpx's request; raises httpx's ReadTimeout."""
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
    """The same for `httpx.Client(transport=…)`; it may be used from any number of threads."""

    def __init__(self, engine: BlockingMLCEngine) -> None:
        self._engine = engine
        self._routes = Routes(engine.on_thread)

    def handle_request(self, request: Any) -> Any:
        """Returns httpx's response to httpx's request; raises httpx's ReadTimeout."""
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
    """The body of a streamed response, which applies the client's read timeout to each event.

    A stream has a single timer, because Pyodide keeps cancelled timers until they are due. The
    timer has only a weak reference to the stream, so that an abandoned stream ends.
    """

    def __init__(self, events: EventStream, request: Any) -> None:
        self._events = events
        self._request = request
        self._read_s = _read_timeout(request)
        self._read_began_s: float | None = None  # of the waiting reader, by the event loop's clock
        self._timer: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None  # closes the stream after a timeout

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        loop = asyncio.get_running_loop()
        self._read_began_s = loop.time()
        if self._timer is None and self._read_s is not None:
            self._check_in(self._read_s)
        try:
            return await self._events.__anext__()
        except StopAsyncIteration:
            if self._ending is None:
                raise
            await self._ending
            raise _read_timed_out(self._request) from None
        finally:
            self._read_began_s = None

    async def aclose(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await (self._ending or self._events.aclose())

    def _check_in(self, delay_s: float) -> None:
        check = WeakMethod(self._check)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(delay_s, lambda: (alive := check()) and alive())

    def _check(self) -> None:
        self._timer = None
        if self._read_began_s is None or self._read_s is None:
            return  # the next read sets the timer
        loop = asyncio.get_running_loop()
        left_s = self._read_began_s + self._read_s - loop.time()
        if left_s > 0:
            self._check_in(left_s)
        else:
            self._ending = loop.create_task(self._events.aclose())


class _BlockingEvents:
    def __init__(self, events: BlockingStream[bytes]) -> None:
        self._events = events

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._events)

    def close(self) -> None:
        self._events.close()


async def _answer(routes: Routes, request: Any) -> Reply:
    try:
        async with asyncio.timeout(_read_timeout(request)) as limit:
            return await routes.answer(request.method, request.url.path, request.content)
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise _read_timed_out(request) from error


def _read_timeout(request: Any) -> float | None:
    """The client's read timeout in seconds; None if it has none."""
    seconds: float | None = request.extensions.get("timeout", {}).get("read")
    return seconds


def _read_timed_out(request: Any) -> Exception:
    message = f"nothing arrived within {_read_timeout(request)} seconds, the client's read timeout"
    error: Exception = _library(request).ReadTimeout(message, request=request)
    return error


def _response(request: Any, reply: Reply, **body: object) -> Any:
    return _library(request).Response(reply.status, headers=reply.headers, request=request, **body)


def _library(request: Any) -> Any:
    """The library of a request: `httpx` or `httpx2`."""
    return import_module(type(request).__module__.partition(".")[0])


@cache
def _body_class(kind: type, base: type) -> Any:
    """Makes `kind` a subclass of the library's `base`, which the library checks for."""
    return type(kind.__name__, (kind, base), {})
