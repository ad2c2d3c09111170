"""`WorkerMLCEngine`: the interface of `MLCEngine` in front of a worker; it computes nothing.

Every method is one message (`_call`), a stream one to begin it and one for each chunk (`_stream`).
Understands workers of WebLLM's as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Self, TypeVar, cast, get_args

import msgspec

from webllm.api.base import ResponseStruct
from webllm.api.chat_completion import ChatCompletion, ChatCompletionChunk
from webllm.api.completion import Completion
from webllm.api.embedding import CreateEmbeddingResponse
from webllm.api.messages import RequestStruct
from webllm.api.requests import ChatCompletionRequest, CompletionRequest, EmbeddingRequest
from webllm.api.resources import Chat, Completions, Embeddings
from webllm.artifacts.progress import InitProgressReport, Phase
from webllm.config import (
    AppConfig,
    ChatOptions,
    InitProgressCallback,
    LogLevel,
    MLCEngineConfig,
    engine_config,
    model_ids,
    read_options,
)
from webllm.errors import ConfigError, ModelNotFoundError, RequestError, WebLLMError
from webllm.workers import messages as m
from webllm.workers.client import Client, new_uuid, unreadable_answer
from webllm.workers.port import Port

OpenPort = Callable[[], Awaitable[Port]]
_T = TypeVar("_T")
_Chunk = TypeVar("_Chunk", bound=ResponseStruct)


class WorkerMLCEngine:
    """An engine in a worker, reached through a port. Use from one event loop.

    `config` None leaves the worker's own as it is. A worker's device and logit processors are
    chosen where it is made. When the worker is lost, every call raises WorkerLostError; with
    `open_port`, `restart` or the next `reload` makes a new one.
    """

    def __init__(
        self,
        port: Port,
        config: MLCEngineConfig | None = None,
        *,
        open_port: OpenPort | None = None,
    ) -> None:
        _refuse_what_stays(config)
        self.chat = Chat(self)
        self.completions = Completions(self)
        self.embeddings = Embeddings(self)
        self._app_config = config.app_config if config else None
        self._log_level = config.log_level if config else None
        self._on_progress = config.init_progress_callback if config else None
        self._open_port = open_port
        self._opening = asyncio.Lock()
        self._models = m.ReloadParams([])  # what the worker should have loaded
        self._connect(port)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the worker for good; what waits for it raises WorkerLostError. May be repeated."""
        self._open_port = None
        await self._client.port.close()

    async def restart(self) -> None:
        """Ends the worker if there is one and makes a new one, which loads its models when the
        next request needs them. Raises ConfigError if the worker was made elsewhere.
        """
        async with self._opening:
            await self._reopen()

    async def reload(
        self,
        model_id: str | Sequence[str],
        chat_options: ChatOptions | Sequence[ChatOptions] | None = None,
    ) -> None:
        """Unloads what is loaded, then fetches and loads one or more models.

        Raises what `MLCEngine.reload` raises; after an error nothing is loaded.
        """
        ids = model_ids(model_id)
        options = read_options(chat_options)
        self._models = m.ReloadParams([])
        async with self._opening:
            if self._client.lost is not None and self._open_port is not None:
                await self._reopen()
        models = m.ReloadParams(ids, options)
        await self._client.call(m.Reload(content=models, uuid=new_uuid()))
        self._models = models

    async def unload(self) -> None:
        self._models = m.ReloadParams([])
        await self._call(m.Unload(uuid=new_uuid()))

    async def chat_completion(
        self, request: ChatCompletionRequest | Mapping[str, object]
    ) -> ChatCompletion | AsyncGenerator[ChatCompletionChunk, None]:
        """Answers a conversation; a stream if the request has `stream=True`."""
        fields = _plain(request)
        if fields.get("stream") is True:
            begin = m.ChatCompletionStreamInit(**self._stream_init(fields))
            return await _begun(self._stream(begin, ChatCompletionChunk))
        call = m.ChatCompletionNonStreaming(content=self._engine_params(fields), uuid=new_uuid())
        return _read(await self._call(call), ChatCompletion)

    async def completion(
        self, request: CompletionRequest | Mapping[str, object]
    ) -> Completion | AsyncGenerator[Completion, None]:
        """Continues a text; a stream if the request has `stream=True`."""
        fields = _plain(request)
        if fields.get("stream") is True:
            begin = m.CompletionStreamInit(**self._stream_init(fields))
            return await _begun(self._stream(begin, Completion))
        call = m.CompletionNonStreaming(content=self._engine_params(fields), uuid=new_uuid())
        return _read(await self._call(call), Completion)

    async def embedding(
        self, request: EmbeddingRequest | Mapping[str, object]
    ) -> CreateEmbeddingResponse:
        """Embeds texts."""
        call = m.Embedding(content=self._engine_params(_plain(request)), uuid=new_uuid())
        return _read(await self._call(call), CreateEmbeddingResponse)

    def loaded_model_ids(self) -> list[str]:
        """What `model` may be in a request."""
        return [self._model_id(each) for each in self._models.model_id]

    def interrupt_generate(self) -> None:
        """Ends every answer under way with finish_reason "abort"."""
        self._client.tell(m.InterruptGenerate(uuid=new_uuid()))

    async def reset_chat(self, keep_stats: bool = False, model_id: str | None = None) -> None:
        content = m.ResetChatParams(keep_stats=keep_stats, model_id=model_id)
        await self._call(m.ResetChat(content=content, uuid=new_uuid()))

    async def get_message(self, model_id: str | None = None) -> str:
        """The text of the last answer."""
        call = m.GetMessage(content=m.ModelParams(model_id), uuid=new_uuid())
        return _read(await self._call(call), str)

    async def runtime_stats_text(self, model_id: str | None = None) -> str:
        call = m.RuntimeStatsText(content=m.ModelParams(model_id), uuid=new_uuid())
        return _read(await self._call(call), str)

    async def forward_tokens_and_sample(
        self, input_ids: Sequence[int], is_prefill: bool, model_id: str | None = None
    ) -> int:
        content = m.ForwardTokensAndSampleParams(
            input_ids=list(input_ids), is_prefill=is_prefill, model_id=model_id
        )
        call = m.ForwardTokensAndSample(content=content, uuid=new_uuid())
        return _read(await self._call(call), int)

    async def device_name(self, model_id: str | None = None) -> str:
        """What a loaded model runs on, for people; "" from a worker that is too old to say."""
        if (self._client.protocol or 0) < m.DEVICE_NAME_SINCE:
            return ""
        call = m.GetDeviceName(content=m.ModelParams(model_id), uuid=new_uuid())
        return _read(await self._call(call), str)

    async def get_gpu_vendor(self) -> str:
        return _read(await self._call(m.GetGPUVendor(uuid=new_uuid())), str)

    async def get_max_storage_buffer_binding_size(self) -> int:
        call = m.GetMaxStorageBufferBindingSize(uuid=new_uuid())
        return _read(await self._call(call), int)

    async def custom_request(self, name: str, message: object = None) -> Any:
        """Asks what the worker's handler was given `on_custom_request` for."""
        content = m.CustomRequestParams(name, message)
        return await self._call(m.CustomRequest(content=content, uuid=new_uuid()))

    def set_init_progress_callback(self, callback: InitProgressCallback | None) -> None:
        self._on_progress = callback

    def get_init_progress_callback(self) -> InitProgressCallback | None:
        return self._on_progress

    def set_app_config(self, app_config: AppConfig) -> None:
        """The catalogue from the next `reload` on, which raises what is wrong with it."""
        self._app_config = app_config
        self._client.tell(m.SetAppConfig(content=app_config, uuid=new_uuid()))

    def set_log_level(self, log_level: LogLevel) -> None:
        """Of the worker's logger "webllm"."""
        if log_level not in get_args(LogLevel):
            levels = ", ".join(get_args(LogLevel))
            raise ConfigError(f"log_level is {log_level!r}; give one of {levels}")
        self._log_level = log_level
        self._client.tell(m.SetLogLevel(content=log_level, uuid=new_uuid()))

    def _model_id(self, model: str) -> str:
        """The id that the worker gives to a source; what is none is an id of its catalogue."""
        try:
            return (self._app_config or AppConfig(model_list=())).find(model).model_id
        except ModelNotFoundError:
            return model

    def _engine_params(self, fields: dict[str, Any]) -> m.EngineParams:
        return m.EngineParams(fields, self._models.model_id or None, self._models.chat_opts)

    def _stream_init(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Content and uuid of a message that begins a stream; the uuid is the stream's id, too."""
        uuid, ids = new_uuid(), self._models.model_id
        content = m.StreamInitParams(
            request=fields,
            model_id=ids or None,
            chat_opts=self._models.chat_opts,
            selected_model_id=fields.get("model") or (ids[0] if len(ids) == 1 else None),
            stream_id=uuid,
        )
        return {"content": content, "uuid": uuid}

    async def _call(self, request: m.Work) -> Any:
        """The content of the request's answer; see `Client.call`."""
        return await self._client.call(request)

    async def _stream(
        self, begin: m.ChatCompletionStreamInit | m.CompletionStreamInit, kind: type[_Chunk]
    ) -> AsyncGenerator[_Chunk, None]:
        """The first item, None, says that the worker has begun; see `_begun`."""
        client = self._client
        await client.call(begin)
        params = m.NextChunkParams(begin.content.selected_model_id, begin.uuid)
        try:
            yield cast(_Chunk, None)
            while True:
                pull = m.CompletionStreamNextChunk(content=params, uuid=new_uuid())
                content = await client.call(pull)
                if content is None or content is msgspec.UNSET:
                    return
                yield _read(content, kind)
        except (GeneratorExit, asyncio.CancelledError):
            client.end_stream(begin.uuid)
            raise
        except WebLLMError:  # the stream has ended, unless it is a chunk that cannot be read
            client.tell(m.Abort(uuid=begin.uuid))
            raise

    async def _reopen(self) -> None:
        if self._open_port is None:
            raise ConfigError("this worker cannot be restarted from here; make a new engine")
        await self._client.port.close()
        self._connect(await self._open_port())

    def _connect(self, port: Port) -> None:
        self._client = Client(port, self._report)
        if self._app_config is not None:
            self.set_app_config(self._app_config)
        if self._log_level is not None:
            self.set_log_level(self._log_level)

    def _report(self, progress: m.InitProgress) -> None:
        if self._on_progress is not None:
            self._on_progress(_report(progress))


async def _begun(stream: AsyncGenerator[_Chunk, None]) -> AsyncGenerator[_Chunk, None]:
    """A stream that the worker has begun.

    Python closes a generator that nobody refers to, and so aborts the answer, once it has run up
    to its first item.
    """
    await anext(stream)
    return stream


def _plain(request: RequestStruct | Mapping[str, object]) -> dict[str, Any]:
    """What of a request is not left out, as it can be posted. The engine checks it."""
    try:
        fields = msgspec.to_builtins(request, str_keys=True)
    except (TypeError, RecursionError) as error:
        raise RequestError(f"a request is made of plain data: {error}") from None
    if not isinstance(fields, dict):
        raise RequestError(f"a request maps fields to values, received {type(request).__name__}")
    return {name: value for name, value in fields.items() if value is not None}


def _read(content: object, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise unreadable_answer(str(error)) from None


_PHASES = {phase.value: phase for phase in Phase}


def _report(progress: m.InitProgress) -> InitProgressReport:
    """Workers of other versions may know other phases; WebLLM's know none."""
    return InitProgressReport(
        progress=progress.progress,
        time_elapsed=progress.time_elapsed,
        text=progress.text,
        phase=_PHASES.get(progress.phase or "", Phase.UPLOAD),
        loaded_bytes=progress.loaded_bytes,
        total_bytes=progress.total_bytes,
    )


def _refuse_what_stays(config: MLCEngineConfig | None) -> None:
    """Settings that no message carries; silence would be a wrong answer."""
    if config is None:
        return
    config = engine_config(config)
    if config.logit_processor_registry:
        raise ConfigError(
            "logit_processor_registry cannot cross to a worker; register the processors with the "
            "engine in the worker's own script"
        )
    stays = ("device", "num_threads", "kv_cache_tokens", "max_waiting_sequences")
    for setting in fields(config):
        value = getattr(config, setting.name)
        if setting.name in stays and value != setting.default:
            raise ConfigError(
                f"{setting.name} ({value!r}) belongs to the worker; set it in the config of its "
                "engine"
            )
