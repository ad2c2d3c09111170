"""`MLCEngineHandler`: answers clients' messages with an engine, also those of WebLLM's npm clients.

Does not know the host: a `Port` carries the messages.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from webllm.api.base import ResponseStruct
from webllm.api.interface import MLCEngineInterface
from webllm.artifacts.progress import InitProgressReport, Phase
from webllm.config import MLCEngineConfig
from webllm.engine.engine import MLCEngine
from webllm.engine.loads import Loads
from webllm.errors import RequestError
from webllm.workers import messages as m
from webllm.workers.connection import Connection
from webllm.workers.port import Port
from webllm.workers.streams import END, Chunks, Stream, close_all

OnCustomRequest = Callable[[str, Any], Awaitable[object]]


class MLCEngineHandler:
    """Serves any number of ports and concurrent requests with one engine.

    Logit processors are registered with the engine, here in the worker. reuse_loaded: a reload of
    the loaded models returns at once, as in WebLLM's service workers, which outlive their pages.
    on_custom_request: answers the application's own requests; it is called with name and message.
    """

    def __init__(
        self,
        engine: MLCEngineInterface | None = None,
        config: MLCEngineConfig | None = None,
        *,
        reuse_loaded: bool = False,
        on_custom_request: OnCustomRequest | None = None,
    ) -> None:
        self.engine: MLCEngineInterface = engine or MLCEngine(config)
        self._reuse_loaded = reuse_loaded
        self._on_custom_request = on_custom_request
        self._connections: list[Connection] = []
        self._loaded: m.ReloadParams | None = None
        self._loads = Loads()
        # How each kind is handled. For the others, `_call_engine` calls the engine's method; the
        # connection itself replies to "hello".
        self._table: dict[m.Kind[Any], Callable[[Connection, m.Request], Awaitable[object]]] = {
            m.RELOAD: self._reload,
            m.UNLOAD: self._unload,
            m.CHAT_COMPLETION: self._complete,
            m.COMPLETION: self._complete,
            m.EMBEDDING: self._complete,
            m.CHAT_COMPLETION_STREAM: self._begin_stream,
            m.COMPLETION_STREAM: self._begin_stream,
            m.NEXT_CHUNK: self._next_chunk,
            m.END_STREAM: self._end_stream,
            m.ABORT: self._abort,
            m.INTERRUPT: self._interrupt,
            m.CUSTOM_REQUEST: self._custom_request,
        }

    def serve(self, port: Port) -> None:
        """Answers the messages of a port from now on, until the port is closed."""
        self._connections.append(Connection(port, self._handle, self._connections.remove))

    async def _handle(self, client: Connection, request: m.Request) -> m.AnyReply | None:
        kind = m.KINDS[request.kind]
        content = await self._table.get(kind, self._call_engine)(client, request)
        if not kind.is_answered:
            return None
        if content is END:
            return m.Return(uuid=request.uuid)
        return m.Return(uuid=request.uuid, content=content)

    async def _call_engine(self, _: Connection, request: m.Request) -> object:
        """Calls the engine's method with the content: its fields, or the setting itself."""
        method = self._method(request)
        match request.content:
            case None:
                result = method()
            case m.WireStruct() as params:
                result = method(**msgspec.structs.asdict(params))
            case setting:
                result = method(setting)
        return await result if inspect.isawaitable(result) else result

    def _method(self, request: m.Request) -> Callable[..., Any]:
        name = m.KINDS[request.kind].method
        if name is None:
            raise RequestError(
                f"this worker knows no sessions to resume and cannot answer {request.kind!r}; send "
                "the whole conversation as a new request"
            )
        method: Callable[..., Any] = getattr(self.engine, name)
        return method

    async def _reload(self, client: Connection, request: m.Request) -> None:
        params: m.ReloadParams = request.content

        async def load() -> None:
            if self._reuse_loaded and params == self._loaded:
                client.post(_progress(request.uuid, _ALREADY_LOADED))
            else:
                await self._load(client, request.uuid, params)

        client.check_settings()
        await self._loads.run(load, params.model_id)

    async def _load(self, client: Connection, uuid: str, params: m.ReloadParams) -> None:
        def report(progress: InitProgressReport) -> None:
            client.post(_progress(uuid, progress))

        self._loaded = None
        await close_all(self._interrupt_streams())
        await self.engine.reload(params.model_id, params.chat_opts, on_progress=report)
        self._loaded = params

    async def _ensure_loaded(self, client: Connection, request: m.Request) -> None:
        """Loads the models that the client expects, if this worker was restarted since."""
        params: m.EngineParams = request.content
        if not params.model_id:
            return
        models = m.ReloadParams(model_id=params.model_id, chat_opts=params.chat_opts)

        async def load() -> None:
            if self._loaded is None or self._loaded.model_id != models.model_id:
                client.check_settings()
                await self._load(client, request.uuid, models)

        await self._loads.run(load, models.model_id)

    def _interrupt_streams(self) -> list[Stream]:
        """Marks all clients' streams as interrupted; returns those to close."""
        connections = list(self._connections)
        return [stream for each in connections for stream in each.streams.interrupt()]

    async def _complete(self, client: Connection, request: m.Request) -> ResponseStruct:
        await self._ensure_loaded(client, request)
        return await _whole(await self._method(request)(request.content.request))

    async def _begin_stream(self, client: Connection, request: m.Request) -> None:
        async def begin() -> Chunks:
            await self._ensure_loaded(client, request)
            return _streamed(await self._method(request)(request.content.request))

        await client.streams.open(request.content, begin)

    async def _next_chunk(self, client: Connection, request: m.Request) -> object:
        return await client.streams.next(request.content)

    async def _end_stream(self, client: Connection, request: m.Request) -> None:
        await client.streams.end(request.content)

    async def _abort(self, client: Connection, request: m.Request) -> None:
        await client.streams.end(m.StreamParams(stream_id=request.uuid))

    async def _interrupt(self, _: Connection, __: m.Request) -> None:
        abandoned = self._interrupt_streams()
        self.engine.interrupt_generate()
        for connection in list(self._connections):
            await connection.streams.end_unstarted()
        await close_all(abandoned)

    async def _unload(self, _: Connection, __: m.Request) -> None:
        async with self._loads.stopped():
            self._loaded = None
            try:
                await close_all(self._interrupt_streams())
            finally:
                await self.engine.unload()

    async def _custom_request(self, _: Connection, request: m.Request) -> object:
        params: m.CustomRequestParams = request.content
        if self._on_custom_request is None:
            raise RequestError(
                f"custom request {params.request_name!r}: this worker takes none; give its handler "
                "on_custom_request"
            )
        return await self._on_custom_request(params.request_name, params.request_message)


_ALREADY_LOADED = InitProgressReport(1.0, 0.0, "The model is loaded already", Phase.COMPILE)


def _progress(uuid: str, report: InitProgressReport) -> m.InitProgressCallback:
    content = m.InitProgress(
        progress=report.progress,
        time_elapsed=report.time_elapsed,
        text=report.text,
        phase=report.phase.value,
        loaded_bytes=report.loaded_bytes,
        total_bytes=report.total_bytes,
    )
    return m.InitProgressCallback(uuid=uuid, content=content)


async def _whole(reply: ResponseStruct | Chunks) -> ResponseStruct:
    if isinstance(reply, ResponseStruct):
        return reply
    await reply.aclose()
    raise RequestError("stream is True in a message for whole answers", field="stream")


def _streamed(reply: ResponseStruct | Chunks) -> Chunks:
    if isinstance(reply, ResponseStruct):
        raise RequestError("stream is not True in a message that begins a stream", field="stream")
    return reply
