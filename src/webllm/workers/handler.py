"""`MLCEngineHandler`: answers a client's messages with an engine; WebLLM's npm clients are served.

Knows no host: what carries the messages is a `Port`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from webllm.api.base import ResponseStruct
from webllm.api.interface import MLCEngineInterface
from webllm.artifacts.progress import InitProgressReport, Phase
from webllm.config import MLCEngineConfig
from webllm.engine.engine import MLCEngine
from webllm.errors import RequestError
from webllm.workers import messages as m
from webllm.workers.connection import Connection
from webllm.workers.port import Port
from webllm.workers.streams import END, Chunks, Stream, close_all

OnCustomRequest = Callable[[str, Any], Awaitable[object]]


class MLCEngineHandler:
    """Serves any number of ports, and of requests at once, with one engine.

    Logit processors are registered with the engine, here in the worker. `reuse_loaded`: a reload
    of what is loaded returns at once, as in WebLLM's service workers, which outlive their pages.
    `on_custom_request` answers messages of the application's own: their name, their message.
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
        self._loading = asyncio.Lock()
        self._table: dict[type[m.Work], Callable[[Connection, Any], Awaitable[object]]] = {
            m.Reload: self._reload,
            m.ChatCompletionNonStreaming: self._chat_completion,
            m.ChatCompletionStreamInit: self._chat_completion_stream,
            m.CompletionNonStreaming: self._completion,
            m.CompletionStreamInit: self._completion_stream,
            m.CompletionStreamNextChunk: self._next_chunk,
            m.CompletionStreamReturn: self._leave_stream,
            m.Embedding: self._embedding,
            m.ForwardTokensAndSample: self._forward_tokens_and_sample,
            m.RuntimeStatsText: self._runtime_stats_text,
            m.GetMessage: self._get_message,
            m.ResetChat: self._reset_chat,
            m.InterruptGenerate: self._interrupt_generate,
            m.Unload: self._unload,
            m.GetMaxStorageBufferBindingSize: self._get_max_storage_buffer_binding_size,
            m.GetGPUVendor: self._get_gpu_vendor,
            m.SetLogLevel: self._set_log_level,
            m.SetAppConfig: self._set_app_config,
            m.CustomRequest: self._custom_request,
            m.Abort: self._abort,
            m.GetDeviceName: self._get_device_name,
        }

    def serve(self, port: Port) -> None:
        """Answers what comes in at a port from now on, until it is closed."""
        self._connections.append(Connection(port, self._handle, self._connections.remove))

    async def _handle(self, client: Connection, request: m.Work) -> m.AnyAnswer | None:
        content = await self._table[type(request)](client, request)
        if isinstance(request, m.SetLogLevel | m.SetAppConfig | m.Abort):
            return None
        if content is END:
            return m.Return(uuid=request.uuid)
        return m.Return(uuid=request.uuid, content=content)

    async def _reload(self, client: Connection, request: m.Reload) -> None:
        client.check_settings()
        async with self._loading:
            if self._reuse_loaded and request.content == self._loaded:
                client.post(_progress(request.uuid, _ALREADY_LOADED))
            else:
                await self._load(client, request.uuid, request.content)

    async def _load(self, client: Connection, uuid: str, params: m.ReloadParams) -> None:
        self._loaded = None
        await close_all(self._interrupt_streams())
        with self._reporting(client, uuid):
            await self.engine.reload(params.model_id, params.chat_opts)
        self._loaded = params

    async def _expect(self, client: Connection, uuid: str, params: m.EngineParams) -> None:
        """Loads what the client thinks is loaded, if this worker was started anew since."""
        if not params.model_id:
            return
        async with self._loading:
            if self._loaded is None or self._loaded.model_id != params.model_id:
                client.check_settings()
                await self._load(client, uuid, m.ReloadParams(params.model_id, params.chat_opts))

    @contextmanager
    def _reporting(self, client: Connection, uuid: str) -> Iterator[None]:
        """Sends the engine's progress to the client, and still to the worker's own callback."""
        own = self.engine.get_init_progress_callback()

        def report(progress: InitProgressReport) -> None:
            client.post(_progress(uuid, progress))
            if own is not None:
                own(progress)

        self.engine.set_init_progress_callback(report)
        try:
            yield
        finally:
            self.engine.set_init_progress_callback(own)

    def _interrupt_streams(self) -> list[Stream]:
        """Before the engine ends every answer under way; returns what is to be closed."""
        connections = list(self._connections)
        return [stream for each in connections for stream in each.streams.interrupt()]

    async def _chat_completion(
        self, client: Connection, request: m.ChatCompletionNonStreaming
    ) -> object:
        await self._expect(client, request.uuid, request.content)
        return await _whole(await self.engine.chat_completion(request.content.request))

    async def _completion(self, client: Connection, request: m.CompletionNonStreaming) -> object:
        await self._expect(client, request.uuid, request.content)
        return await _whole(await self.engine.completion(request.content.request))

    async def _embedding(self, client: Connection, request: m.Embedding) -> object:
        await self._expect(client, request.uuid, request.content)
        return await self.engine.embedding(request.content.request)

    async def _chat_completion_stream(
        self, client: Connection, request: m.ChatCompletionStreamInit
    ) -> None:
        async def begin() -> Chunks:
            await self._expect(client, request.uuid, request.content)
            return _streamed(await self.engine.chat_completion(request.content.request))

        await client.streams.open(request.content, begin)

    async def _completion_stream(self, client: Connection, request: m.CompletionStreamInit) -> None:
        async def begin() -> Chunks:
            await self._expect(client, request.uuid, request.content)
            return _streamed(await self.engine.completion(request.content.request))

        await client.streams.open(request.content, begin)

    async def _next_chunk(self, client: Connection, request: m.CompletionStreamNextChunk) -> object:
        return await client.streams.next(request.content)

    async def _leave_stream(self, client: Connection, request: m.CompletionStreamReturn) -> None:
        await client.streams.leave(request.content)

    async def _abort(self, client: Connection, request: m.Abort) -> None:
        await client.streams.leave(m.NextChunkParams(stream_id=request.uuid))

    async def _forward_tokens_and_sample(
        self, _: Connection, request: m.ForwardTokensAndSample
    ) -> int:
        content = request.content
        return await self.engine.forward_tokens_and_sample(
            content.input_ids, content.is_prefill, content.model_id
        )

    async def _runtime_stats_text(self, _: Connection, request: m.RuntimeStatsText) -> str:
        return await self.engine.runtime_stats_text(request.content.model_id)

    async def _get_message(self, _: Connection, request: m.GetMessage) -> str:
        return await self.engine.get_message(request.content.model_id)

    async def _reset_chat(self, _: Connection, request: m.ResetChat) -> None:
        await self.engine.reset_chat(request.content.keep_stats, request.content.model_id)

    async def _interrupt_generate(self, _: Connection, __: m.InterruptGenerate) -> None:
        unread = self._interrupt_streams()
        self.engine.interrupt_generate()
        for connection in list(self._connections):
            await connection.streams.empty_unbegun()
        await close_all(unread)

    async def _unload(self, _: Connection, __: m.Unload) -> None:
        async with self._loading:
            self._loaded = None
            try:
                await close_all(self._interrupt_streams())
            finally:
                await self.engine.unload()

    async def _get_max_storage_buffer_binding_size(self, _: Connection, __: m.Work) -> int:
        return await self.engine.get_max_storage_buffer_binding_size()

    async def _get_gpu_vendor(self, _: Connection, __: m.Work) -> str:
        return await self.engine.get_gpu_vendor()

    async def _set_log_level(self, _: Connection, request: m.SetLogLevel) -> None:
        self.engine.set_log_level(request.content)

    async def _set_app_config(self, _: Connection, request: m.SetAppConfig) -> None:
        self.engine.set_app_config(request.content)

    async def _custom_request(self, _: Connection, request: m.CustomRequest) -> object:
        if self._on_custom_request is None:
            raise RequestError(
                f"custom request {request.content.request_name!r}: this worker takes none; give "
                "its handler on_custom_request"
            )
        return await self._on_custom_request(
            request.content.request_name, request.content.request_message
        )

    async def _get_device_name(self, _: Connection, request: m.GetDeviceName) -> str:
        return await self.engine.device_name(request.content.model_id)


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
