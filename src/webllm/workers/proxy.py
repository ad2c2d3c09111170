"""`WorkerMLCEngine`: the interface of `MLCEngine` for an engine in a worker.

A method posts one message (`_call`). A stream takes one to begin and one for each chunk
(`_stream`). Works with workers of WebLLM's as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, fields
from functools import partial
from types import NoneType
from typing import Any, Self, TypeVar, cast

import msgspec

from webllm.api.base import ResponseStruct
from webllm.api.chat_completion import ChatCompletion, ChatCompletionChunk
from webllm.api.completion import Completion
from webllm.api.embedding import CreateEmbeddingResponse
from webllm.api.messages import RequestStruct
from webllm.api.requests import ChatCompletionRequest, CompletionRequest, EmbeddingRequest
from webllm.api.resources import Chat, Completions, Embeddings
from webllm.api.resumable import ResumeResult
from webllm.api.validation import checked_ids
from webllm.artifacts.progress import InitProgressReport, Phase
from webllm.config import (
    DEVICE_SETTINGS,
    AppConfig,
    ChatOptions,
    InitProgressCallback,
    LogLevel,
    MLCEngineConfig,
    check_callback,
    check_log_level,
    engine_config,
    model_ids,
    read_options,
)
from webllm.errors import (
    ConfigError,
    ModelNotFoundError,
    RequestError,
    WebLLMError,
    WorkerLostError,
)
from webllm.workers import messages as m
from webllm.workers.client import Client, OnProgress, unreadable_answer, worker_lost
from webllm.workers.port import Port
from webllm.workers.resumption import Losses, Resumption

OpenPort = Callable[[], Awaitable[Port]]
_R = TypeVar("_R")
_CLOSE_S = 2.0  # for the worker to delete the sessions of answers under way
_Chunk = TypeVar("_Chunk", bound=ResponseStruct)


@dataclass(frozen=True, slots=True)
class Recovery:
    """How an engine survives the end of its worker.

    persist: answers survive as well, because the worker keeps them on disk. keep_alive_s: see
    `Client`.
    """

    persist: bool = True
    keep_alive_s: float | None = None


class WorkerMLCEngine(m.EngineMessages):
    """An engine in a worker, reached through a port. Use from one event loop.

    config: None leaves the worker's own as it is. A worker's device and logit processors are
    chosen where it is made. open_port: starts another worker. When the worker is lost, every call
    raises WorkerLostError, until `restart` or `reload` has started another. With `recovery` the
    engine does that itself: it loads the models again and sends each unfinished request again.
    """

    def __init__(
        self,
        port: Port,
        config: MLCEngineConfig | None = None,
        *,
        open_port: OpenPort | None = None,
        recovery: Recovery | None = None,
    ) -> None:
        _refuse_device_settings(config)
        self.chat = Chat(self)
        self.completions = Completions(self)
        self.embeddings = Embeddings(self)
        self._app_config = config.app_config if config else None
        self._log_level = config.log_level if config else None
        self._on_progress = config.init_progress_callback if config else None
        self._open_port = open_port
        self._opening = asyncio.Lock()
        self._recovery = recovery
        self._recovering: asyncio.Task[None] | None = None
        self._resumptions: set[Resumption] = set()  # of answers under way
        self._deletions: list[m.Request] = []  # for the next worker, as this one is lost
        self._deleting: set[asyncio.Task[None]] = set()
        self._models = m.ReloadParams(model_id=[])  # the models that the worker should have loaded
        self._connect(port)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the worker for good; waiting calls raise WorkerLostError. May be repeated."""
        self._open_port = None
        if self._recovering is not None:
            self._recovering.cancel()
        try:
            await self._end_answers()
        finally:
            await self._client.port.close()

    async def restart(self) -> None:
        """Ends the worker, if there still is one, and starts another.

        The next request makes it load the models. Raises ConfigError without `open_port`.
        """
        async with self._opening:
            await self._reopen()

    async def reload(
        self,
        model_id: str | Sequence[str],
        chat_options: ChatOptions | Sequence[ChatOptions] | None = None,
        *,
        on_progress: InitProgressCallback | None = None,
    ) -> None:
        """Unloads what is loaded, then fetches and loads one or more models.

        on_progress: called with the progress of this load, besides the engine's callback. Raises
        what `MLCEngine.reload` raises; after an error nothing is loaded.
        """
        models = m.ReloadParams(model_id=model_ids(model_id), chat_opts=read_options(chat_options))
        check_callback("on_progress", on_progress)
        nothing = self._models = m.ReloadParams(model_id=[])
        async with self._opening:
            if self._client.lost is not None and self._open_port is not None:
                await self._reopen()
        report = _progress_callback(on_progress)
        await self._ask(lambda client: client.call(m.RELOAD.request(models), report))
        if self._models is nothing:  # no later `reload` or `unload`
            self._models = models

    async def unload(self) -> None:
        """Stops every `reload` that was called before, as `MLCEngine.unload` does, and unloads."""
        self._models = m.ReloadParams(model_id=[])
        async with self._opening:
            pass  # reloads that wait for another worker are posted first
        if self._recovers_from(self._client):
            return  # a lost worker has nothing loaded
        await self._client.call(m.UNLOAD.request())  # also while a recovery loads

    async def chat_completion(
        self, request: ChatCompletionRequest | Mapping[str, object]
    ) -> ChatCompletion | AsyncGenerator[ChatCompletionChunk, None]:
        """Answers a conversation; a stream if the request has `stream=True`."""
        fields = _plain(request)
        if fields.get("stream") is True:
            return await self._stream(m.CHAT_COMPLETION_STREAM, fields, ChatCompletionChunk)
        return await self._whole(m.CHAT_COMPLETION, fields)

    async def completion(
        self, request: CompletionRequest | Mapping[str, object]
    ) -> Completion | AsyncGenerator[Completion, None]:
        """Continues a text; a stream if the request has `stream=True`."""
        fields = _plain(request)
        if fields.get("stream") is True:
            return await self._stream(m.COMPLETION_STREAM, fields, Completion)
        return await self._whole(m.COMPLETION, fields)

    async def embedding(
        self, request: EmbeddingRequest | Mapping[str, object]
    ) -> CreateEmbeddingResponse:
        """Embeds texts."""
        params = self._engine_params(_plain(request))
        return _read(
            await self._ask(lambda client: client.call(m.EMBEDDING.request(params))),
            m.EMBEDDING.result,
        )

    def loaded_model_ids(self) -> list[str]:
        """Returns the ids that `model` may be in a request."""
        return [self._model_id(each) for each in self._models.model_id]

    def has_loaded(
        self,
        model_id: str | Sequence[str],
        chat_options: ChatOptions | Sequence[ChatOptions] | None = None,
    ) -> bool:
        """Whether the last `reload` loaded exactly these models, with these options.

        A restarted worker counts as having them: it loads them at the next request.
        """
        ids, options = model_ids(model_id), read_options(chat_options)
        loaded = self._models
        none = [ChatOptions()] * len(ids)
        return ids == loaded.model_id and (options or none) == (loaded.chat_opts or none)

    def interrupt_generate(self, request_ids: Collection[str] | None = None) -> None:
        """Ends this engine's running answers with finish_reason "abort": all, or those named.

        A worker of WebLLM's, or one of before version 3 of the protocol, ends all in any case.
        """
        ids = checked_ids("request_ids", request_ids)
        for resumption in self._resumptions:
            resumption.interrupt(ids)  # if this worker is lost, the next one is told
        content = None
        if ids is not None and self._protocol >= m.NAMED_INTERRUPTS:
            content = m.InterruptParams(request_ids=list(ids))
        self._client.notify(m.INTERRUPT.request(content))

    async def resume_chat_completion(
        self,
        session_id: str,
        continue_generation: bool = False,
        stream: bool = False,
        from_token: int | list[int] | None = None,
    ) -> ResumeResult | AsyncGenerator[ChatCompletionChunk, None]:
        """Returns a session's text; or generates the rest, after loading its model if needed."""
        options = m.ResumeOptions(
            continue_generation=continue_generation, stream=stream, from_token=from_token
        )
        if not options.is_stream:
            params = m.checked(m.ResumeParams(session_id=session_id, options=options))
            return await self._call(m.RESUME_CHAT_COMPLETION, params)
        client, stream_id = await self._connected(), m.new_uuid()
        kind = m.RESUME_CHAT_COMPLETION_STREAM
        content = m.ResumeStreamParams(session_id=session_id, options=options, stream_id=stream_id)
        client.ask_for_end_stream()
        reply = await client.call(kind.request(m.checked(content), uuid=stream_id))
        result = _read(reply, kind.result)
        if result is not None:
            return result
        stream_params = m.StreamParams(stream_id=stream_id)
        return await _begun(self._chunks(client, stream_params, ChatCompletionChunk))

    async def delete_all_resumable_sessions(self) -> None:
        """Empties the journal, except for the sessions whose generation is under way."""
        if self._protocol >= m.DELETE_ALL_SESSIONS.since:
            await self._call(m.DELETE_ALL_SESSIONS)
            return
        for session in await self.list_resumable_sessions():
            await self.delete_resumable_session(session.session_id)

    async def custom_request(self, name: str, message: object = None) -> Any:
        """Calls the `on_custom_request` of the worker's handler, and returns its result."""
        content = m.checked(m.CustomRequestParams(request_name=name, request_message=message))
        return await self._call(m.CUSTOM_REQUEST, content)

    def set_init_progress_callback(self, callback: InitProgressCallback | None) -> None:
        check_callback("init_progress_callback", callback)
        self._on_progress = callback

    def get_init_progress_callback(self) -> InitProgressCallback | None:
        return self._on_progress

    def set_app_config(self, app_config: AppConfig) -> None:
        """Sets the catalogue for the next `reload`, which raises ConfigError if it is wrong."""
        self._app_config = app_config
        self._client.notify(m.SET_APP_CONFIG.request(app_config))

    def set_log_level(self, log_level: LogLevel) -> None:
        """Sets the level of the worker's logger "webllm"."""
        check_log_level(log_level)
        self._log_level = log_level
        self._client.notify(m.SET_LOG_LEVEL.request(log_level))

    @property
    def _protocol(self) -> int:
        """See `EngineMessages`."""
        return self._client.protocol

    async def _call(self, kind: m.Kind[_R], content: object = None) -> _R:
        """Posts a request and returns the content of its reply; see `Client.call`.

        Unless it is repeatable, it is not sent twice: it may change the engine, or ask for what
        only a lost worker knew.
        """
        if kind.is_repeatable:
            reply = await self._ask(lambda client: client.call(kind.request(content)))
            return _read(reply, kind.result)
        client = await self._connected()
        return _read(await client.call(kind.request(content)), kind.result)

    async def _ask(self, ask: Callable[[Client], Awaitable[_R]]) -> _R:
        """Asks the worker, and the next one again if it is lost and this engine recovers."""
        losses = Losses()
        while True:
            client = await self._connected()
            try:
                return await ask(client)
            except WorkerLostError as error:
                if not self._recovers_from(client):
                    raise
                losses.add(error)

    async def _whole(self, kind: m.Kind[_R], fields: dict[str, Any]) -> _R:
        resumption = self._resumption(fields)
        if resumption is None:
            return await self._call(kind, self._engine_params(fields))
        params = self._engine_params(resumption.request())

        async def ask(client: Client) -> Any:
            tell = partial(self._tell_interrupt, client, resumption)
            asyncio.get_running_loop().call_soon(tell)  # when the request has been posted
            return await client.call(kind.request(params))

        try:
            answer = await self._ask(ask)
        finally:
            self._end_resumption(resumption)
        return _read(answer, kind.result)

    def _model_id(self, model: str) -> str:
        """Returns the id of a model that was loaded by id or by source."""
        try:
            return (self._app_config or AppConfig(model_list=())).find(model).model_id
        except ModelNotFoundError:
            return model

    def _engine_params(self, fields: dict[str, Any]) -> m.EngineParams:
        models = self._models
        return m.EngineParams(
            request=fields, model_id=models.model_id or None, chat_opts=models.chat_opts
        )

    async def _stream(
        self, kind: m.Kind[None], fields: dict[str, Any], chunk_type: type[_Chunk]
    ) -> AsyncGenerator[_Chunk, None]:
        """Begins a stream in the worker, and returns its chunks."""
        resumption = self._resumption(fields)
        if resumption is None:
            client = await self._connected()
            return await _begun(self._attached(client, kind, fields, chunk_type))
        return await _begun(self._resumed(kind, resumption, chunk_type))

    async def _resumed(
        self, kind: m.Kind[None], resumption: Resumption, chunk_type: type[_Chunk]
    ) -> AsyncGenerator[_Chunk, None]:
        """Yields None when a worker has begun, then the chunks.

        If the worker is lost, it goes on in the next one with the tokens that it lacks.
        """
        losses, has_begun = Losses(), False
        try:
            while True:
                client = await self._connected()
                attached = self._attached(client, kind, resumption.request(), chunk_type)
                try:
                    async with aclosing(attached) as chunks:
                        await anext(chunks)
                        self._tell_interrupt(client, resumption)
                        if not has_begun:
                            has_begun = True
                            yield cast(_Chunk, None)
                        async for chunk in cast(AsyncGenerator[Any, None], chunks):
                            if any(choice.token_ids for choice in chunk.choices):
                                losses.reset()
                            if (new := resumption.take(chunk)) is not None:
                                yield new
                    return
                except WorkerLostError as error:
                    if not self._recovers_from(client):
                        raise
                    if resumption.is_complete:
                        return
                    losses.add(error)
        finally:
            self._end_resumption(resumption)

    async def _attached(
        self, client: Client, kind: m.Kind[None], fields: dict[str, Any], chunk_type: type[_Chunk]
    ) -> AsyncGenerator[_Chunk, None]:
        """Yields None when the worker has begun, then its chunks."""
        ids, stream_id = self._models.model_id, m.new_uuid()
        model = fields.get("model") or (ids[0] if len(ids) == 1 else None)
        content = m.StreamInitParams(
            request=fields,
            model_id=ids or None,
            chat_opts=self._models.chat_opts,
            selected_model_id=model,
            stream_id=stream_id,
        )
        client.ask_for_end_stream()
        await client.call(kind.request(content, uuid=stream_id))
        params = m.StreamParams(selected_model_id=model, stream_id=stream_id)
        async with aclosing(self._chunks(client, params, chunk_type)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _chunks(
        self, client: Client, params: m.StreamParams, chunk_type: type[_Chunk]
    ) -> AsyncGenerator[_Chunk, None]:
        """Yields None, then the chunks of a stream that has begun."""
        stream_id = cast(str, params.stream_id)
        client.begin_stream(stream_id)
        try:
            yield cast(_Chunk, None)
            while True:
                chunk = await client.call(m.NEXT_CHUNK.request(params))
                if chunk is None or chunk is msgspec.UNSET:
                    return
                yield _read(chunk, chunk_type)
        except (GeneratorExit, asyncio.CancelledError):
            client.end_stream(stream_id)
            raise
        except WebLLMError:  # the stream has ended, unless it is a chunk that cannot be read
            client.notify(m.ABORT.request(uuid=stream_id))
            raise
        finally:
            client.forget_stream(stream_id)

    def _resumption(self, fields: dict[str, Any]) -> Resumption | None:
        """Returns None if the answer shall not survive its worker."""
        if self._recovery is None:
            return None
        resumption = Resumption.of(fields, persist=self._recovery.persist)
        if resumption is not None:
            self._resumptions.add(resumption)
        return resumption

    def _tell_interrupt(self, client: Client, resumption: Resumption) -> None:
        """Interrupts an answer in a new worker, if it was interrupted in the lost one."""
        if resumption.is_interrupted:
            names = m.InterruptParams(request_ids=[resumption.session_id])
            client.notify(m.INTERRUPT.request(names))

    def _end_resumption(self, resumption: Resumption) -> None:
        """Deletes a session that nobody else knows, without waiting for it."""
        if resumption in self._resumptions:
            self._resumptions.remove(resumption)
            if resumption.is_own:
                self._delete(_deletion(resumption))

    def _delete(self, deletion: m.Request) -> None:
        """Has a session deleted, by the next worker if this one is lost before it has done so."""
        if self._recovers_from(self._client):
            self._deletions.append(deletion)
            return
        deleting = self._deleted(self._client, deletion)
        task = asyncio.get_running_loop().create_task(deleting)
        self._deleting.add(task)
        task.add_done_callback(self._deleting.discard)

    async def _deleted(self, client: Client, deletion: m.Request) -> None:
        try:
            await client.call(deletion, is_kept=True)
        except WebLLMError:
            if self._recovers_from(client):
                self._delete(deletion)

    async def _end_answers(self) -> None:
        """Ends this engine's answers and deletes their sessions, if the worker does not hang."""
        self._client.abort_all()
        own = [each for each in self._resumptions if each.is_own]
        calls = [self._client.call(_deletion(each)) for each in own]
        self._resumptions.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await asyncio.gather(*calls, *self._deleting, return_exceptions=True)

    def _recovers_from(self, client: Client) -> bool:
        """Whether a client's worker is lost, and another one may take its place by itself."""
        can_reopen = self._recovery is not None and self._open_port is not None
        return can_reopen and client.lost is not None

    async def _connected(self) -> Client:
        """Returns the client, after the recovery from a lost worker, once for all who wait."""
        recovering = self._recovering
        if recovering is None or recovering.done():
            if not self._recovers_from(self._client):
                return self._client
            recovering = asyncio.get_running_loop().create_task(self._recover(self._client))
            recovering.add_done_callback(_retrieve_error)
            self._recovering = recovering
        await asyncio.wait([recovering])
        if recovering.cancelled():
            raise worker_lost("it was closed")
        recovering.result()
        return self._client

    async def _recover(self, lost: Client) -> None:
        """Starts another worker, and loads the models that the lost one had."""
        losses = Losses()
        while True:
            async with self._opening:
                if self._client is not lost:
                    return  # `reload` or `restart` has started another
                await self._reopen()
                client, models = self._client, self._models
            try:
                if models.model_id:
                    await client.call(m.RELOAD.request(models))
                return
            except WorkerLostError as error:
                if not self._recovers_from(client):
                    raise
                losses.add(error)
                lost = client

    async def _reopen(self) -> None:
        open_port = self._open_port
        if open_port is None:
            raise ConfigError("this worker cannot be restarted from here; make a new engine")
        await self._client.port.close()
        port = await open_port()
        if self._open_port is None:  # `close` was called meanwhile
            await port.close()
            raise worker_lost("it was closed")
        self._connect(port)

    def _connect(self, port: Port) -> None:
        keep_alive_s = self._recovery.keep_alive_s if self._recovery else None
        self._client = Client(port, self._report, keep_alive_s)
        if self._app_config is not None:
            self.set_app_config(self._app_config)
        if self._log_level is not None:
            self.set_log_level(self._log_level)
        deletions, self._deletions = self._deletions, []
        for deletion in deletions:
            self._delete(deletion)

    def _report(self, progress: m.InitProgress) -> None:
        if self._on_progress is not None:
            self._on_progress(_report_from(progress))


def _retrieve_error(recovering: asyncio.Task[None]) -> None:
    """Keeps asyncio from reporting the error of a recovery for which nobody waits any more."""
    if not recovering.cancelled():
        recovering.exception()


async def _begun(stream: AsyncGenerator[_Chunk, None]) -> AsyncGenerator[_Chunk, None]:
    """Returns a stream whose first item, None, has come.

    Python closes a generator without references, which aborts the answer, only once it has run.
    """
    await anext(stream)
    return stream


def _deletion(resumption: Resumption) -> m.Request:
    return m.DELETE_SESSION.request(m.SessionParams(session_id=resumption.session_id))


def _plain(request: RequestStruct | Mapping[str, object]) -> dict[str, Any]:
    """Returns the fields that are not None, as plain data to post. The engine checks them."""
    try:
        fields = msgspec.to_builtins(request, str_keys=True)
    except (TypeError, RecursionError) as error:
        raise RequestError(f"a request is made of plain data: {error}") from None
    if not isinstance(fields, dict):
        raise RequestError(f"a request maps fields to values, received {type(request).__name__}")
    return {name: value for name, value in fields.items() if value is not None}


def _read(content: object, kind: type[_R]) -> _R:
    if kind is NoneType:
        return cast(_R, None)  # WebLLM's workers may send something
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise unreadable_answer(str(error)) from None


_PHASES = {phase.value: phase for phase in Phase}


def _report_from(progress: m.InitProgress) -> InitProgressReport:
    """Reads a report. Workers of other versions may have other phases; WebLLM's have none."""
    return InitProgressReport(
        progress=progress.progress,
        time_elapsed=progress.time_elapsed,
        text=progress.text,
        phase=_PHASES.get(progress.phase or "", Phase.UPLOAD),
        loaded_bytes=progress.loaded_bytes,
        total_bytes=progress.total_bytes,
    )


def _progress_callback(callback: InitProgressCallback | None) -> OnProgress | None:
    return None if callback is None else lambda progress: callback(_report_from(progress))


def _refuse_device_settings(config: MLCEngineConfig | None) -> None:
    """Raises ConfigError for settings that no message carries, instead of ignoring them."""
    if config is None:
        return
    config = engine_config(config)
    if config.logit_processor_registry:
        raise ConfigError(
            "logit_processor_registry cannot cross to a worker; register the processors with the "
            "engine in the worker's own script"
        )
    for setting in fields(config):
        value = getattr(config, setting.name)
        if setting.name in DEVICE_SETTINGS and value != setting.default:
            raise ConfigError(
                f"{setting.name} ({value!r}) belongs to the worker; set it in the config of its "
                "engine"
            )
