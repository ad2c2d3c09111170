"""`MLCEngineHandler`: answers clients' messages with an engine, also those of WebLLM's npm clients.

Does not know the host: a `Port` carries the messages.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec

from webllm.api.base import ResponseStruct
from webllm.api.interface import MLCEngineInterface
from webllm.api.resumable import ResumeResult
from webllm.artifacts.progress import InitProgressReport, Phase
from webllm.config import AppConfig, MLCEngineConfig, engine_config
from webllm.engine.engine import MLCEngine
from webllm.engine.journaling import LoadedRecord
from webllm.errors import ModelReplacedError, RequestError, WorkerEngineModelNotLoadedError
from webllm.webllm_list import require_supported
from webllm.workers import messages as m
from webllm.workers.connection import Connection, Models
from webllm.workers.port import Port
from webllm.workers.shared_load import SharedLoad
from webllm.workers.streams import END, AskedRequest, Chunks, close_all

OnCustomRequest = Callable[[str, Any], Awaitable[object]]


class MLCEngineHandler:
    """Serves any number of ports and concurrent requests with one engine.

    Each client has a catalogue of its own and ends only its own answers; `unload` and a `reload` of
    other models concern all. The others' answers then end with ModelReplacedError, which their
    requests raise as well until they reload.

    Logit processors are registered with the engine, here in the worker. reuse_loaded: a reload of
    the loaded models returns at once, and reloads of the same models at the same time are one load,
    as in WebLLM's service workers, which outlive their pages. on_custom_request: answers the
    application's own requests; it is called with name and message. grace_s: how long the answers of
    a client that is lost are kept, in seconds, for it to come back.
    """

    def __init__(
        self,
        engine: MLCEngineInterface | None = None,
        config: MLCEngineConfig | None = None,
        *,
        reuse_loaded: bool = False,
        on_custom_request: OnCustomRequest | None = None,
        grace_s: float = 30.0,
    ) -> None:
        self.engine: MLCEngineInterface = engine or MLCEngine(config)
        self._reuse_loaded = reuse_loaded
        self._on_custom_request = on_custom_request
        self._grace_s = grace_s
        self._connections: list[Connection] = []
        own = self.engine.config if isinstance(self.engine, MLCEngine) else engine_config(config)
        self._own_app_config = self._app_config = own.app_config  # the second: the engine's now
        self._turn = asyncio.Lock()  # of loads and `unload`, first come, first served
        self._begun_loads: list[SharedLoad] = []  # running or waiting for their turn
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
            m.RESUME_CHAT_COMPLETION: self._resume,
            m.RESUME_CHAT_COMPLETION_STREAM: self._resume_stream,
            m.SET_APP_CONFIG: self._set_app_config,
            m.CUSTOM_REQUEST: self._custom_request,
        }

    def serve(self, port: Port) -> None:
        """Answers the messages of a port from now on, until the port is closed."""
        connection = Connection(port, self._handle, self._connections.remove, self._grace_s)
        self._connections.append(connection)

    @property
    def has_unread_answers(self) -> bool:
        """Whether a client that is there has not read an answer to its end."""
        return any(each.under_way for each in self._connections if not each.is_lost)

    async def close(self) -> None:
        """Ends the answers of all clients at once, also of lost ones, and serves them no longer.

        Then raises the first error. The engine stays loaded.
        """
        await _end_all(self._connections)

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
        assert name is not None
        method: Callable[..., Any] = getattr(self.engine, name)
        return method

    async def _set_app_config(self, client: Connection, request: m.Request) -> None:
        client.app_config = request.content

    async def _reload(self, client: Connection, request: m.Request) -> None:
        client.check_settings()
        models = self._models(client, request.content)
        client.models = client.replaced = None
        if self._reuse_loaded:
            for each in models.ids:  # raises before other clients lose their model
                require_supported(models.app_config.find(each))
        await self._load(client, request.uuid, models, is_reload=True)

    async def _ensure_loaded(self, client: Connection, request: m.Request) -> None:
        """Loads the models that the client expects, if this worker was restarted since.

        Raises ModelReplacedError if another client has loaded others in their place, and
        WorkerEngineModelNotLoadedError if it expects none and none is loaded.
        """
        client.check_models()
        params: m.EngineParams = request.content
        if not params.model_id:
            await self._check_loaded()
            return
        models = self._models(client, params)
        if client.models and client.models.has_names_of(models):
            models = client.models  # its catalogue is that of the client's `reload`
        is_loading = self._begun_loads or self._turn.locked()
        if not is_loading and self._has_loaded(models):
            client.models = models
            return
        client.check_settings()
        await self._load(client, request.uuid, models, is_reload=False)
        client.check_models()

    async def _check_loaded(self) -> None:
        if not self.engine.loaded_model_ids() and not (await self.engine.engine_stats()).loading:
            raise WorkerEngineModelNotLoadedError(
                "no model is loaded in this worker; call the engine's reload with a model id first"
            )

    def _models(self, client: Connection, params: m.ReloadParams | m.EngineParams) -> Models:
        app_config = client.app_config or self._own_app_config
        return Models(params.model_id or [], params.chat_opts, app_config)

    def _has_loaded(self, models: Models) -> bool:
        self._use(models.app_config)
        return self.engine.has_loaded(models.ids, models.options)

    def _use(self, app_config: AppConfig) -> None:
        """Sets the engine's catalogue. Not while a load may read it, except in its turn."""
        if app_config != self._app_config:
            self.engine.set_app_config(app_config)
            self._app_config = app_config

    async def _load(
        self, client: Connection, uuid: str, models: Models, *, is_reload: bool
    ) -> None:
        """Waits for the newest load if it is of the same models, or else for one of its own.

        is_reload: loads also what is loaded already, unless this handler reuses it.
        """

        def report(progress: InitProgressReport) -> None:
            client.post(_progress(uuid, progress))

        may_reuse = self._reuse_loaded or not is_reload
        newest = self._begun_loads[-1] if self._begun_loads else None
        if newest is None or not (may_reuse and newest.can_serve(models)):
            newest = SharedLoad(
                models,
                lambda shared: self._load_in_turn(shared, may_reuse),
                self._begun_loads.remove,
            )
            self._begun_loads.append(newest)
        await newest.wait(client, report)

    async def _load_in_turn(self, shared: SharedLoad, may_reuse: bool) -> None:
        models = shared.models
        async with self._turn:
            if shared.clients and all(client.replaced for client in shared.clients):
                return  # their models made way while this load waited; their requests say so
            is_loaded = self._has_loaded(models)
            if is_loaded and may_reuse:
                shared.report(_ALREADY_LOADED)
            else:
                self._make_way(
                    str(models),
                    lambda client: (
                        client in shared.clients
                        or (client.models.is_same(models) if client.models else is_loaded)
                    ),
                )
                await self._end_answers(shared.clients)
                await self.engine.reload(models.ids, models.options, on_progress=shared.report)
            for client in shared.clients:
                client.models, client.replaced = models, None

    def _make_way(self, new: str, is_unconcerned: Callable[[Connection], bool]) -> None:
        """Tells clients that their models are about to be replaced."""
        loaded = ", ".join(self.engine.loaded_model_ids())
        for client in self._connections:
            if not is_unconcerned(client):
                old = str(client.models or loaded)
                client.replace_models(_replaced(old, new))

    async def _end_answers(self, asking: list[Connection]) -> None:
        """Marks all streams as interrupted, since the engine ends all answers.

        Closes those of lost clients, and those that the asking clients have left unread.
        """
        unread = {client: client.streams.interrupt() for client in self._connections}
        try:
            await _end_all(each for each in self._connections if each.is_lost)
        finally:
            await close_all(stream for client in asking for stream in unread.get(client, ()))

    async def _complete(self, client: Connection, request: m.Request) -> ResponseStruct:
        await self._ensure_loaded(client, request)
        asked, fields = _named(request)
        with client.asking(asked):
            reply = await _whole(await self._method(request)(fields))
            asked.check(reply)
        return reply

    async def _begin_stream(self, client: Connection, request: m.Request) -> None:
        asked, fields = _named(request)

        async def begin() -> Chunks:
            await self._ensure_loaded(client, request)
            with client.asking(asked):
                chunks = _streamed(await self._method(request)(fields))
            self._let_go(asked)
            return chunks

        await client.streams.open(request.content, asked, begin)

    def _let_go(self, asked: AskedRequest) -> None:
        """Ends the streams in which lost clients had this answer, since it is read in another."""
        for client in self._connections:
            if client.is_lost:
                client.let_go(asked)

    async def _next_chunk(self, client: Connection, request: m.Request) -> object:
        return await client.streams.next(request.content)

    async def _end_stream(self, client: Connection, request: m.Request) -> None:
        await client.streams.end(request.content)

    async def _abort(self, client: Connection, request: m.Request) -> None:
        await client.streams.end(m.StreamParams(stream_id=request.uuid))

    async def _interrupt(self, client: Connection, request: m.Request) -> None:
        """Ends the answers of this client; or those that it names, which may be another's too."""
        params: m.InterruptParams | None = request.content
        if params is not None:
            self.engine.interrupt_generate(params.request_ids)
            return
        request_ids = [each.id for each in client.under_way]
        abandoned = client.streams.interrupt()
        self.engine.interrupt_generate(request_ids)
        await close_all(abandoned)

    async def _resume(self, client: Connection, request: m.Request) -> ResumeResult:
        asked = AskedRequest(request.content.session_id)
        with client.asking(asked):
            reply = await self._resumed(client, request)
            if not isinstance(reply, ResumeResult):
                await reply.aclose()
                raise RequestError(
                    "options.stream is true in a message for whole answers; send "
                    f"{m.RESUME_CHAT_COMPLETION_STREAM.name!r}",
                    field="options",
                )
        return reply

    async def _resume_stream(self, client: Connection, request: m.Request) -> ResumeResult | None:
        params: m.ResumeStreamParams = request.content
        asked = AskedRequest(params.session_id)
        with client.asking(asked):
            reply = await self._resumed(client, request)
        if isinstance(reply, ResumeResult):
            return reply
        self._let_go(asked)
        await client.streams.add(params.stream_id, asked, reply)
        return None

    async def _resumed(self, client: Connection, request: m.Request) -> ResumeResult | Chunks:
        params: m.ResumeParams = request.content
        options = params.options or m.ResumeOptions()
        missing: list[LoadedRecord] = []
        if options.continue_generation and isinstance(self.engine, MLCEngine):
            missing = await self.engine.session_models(params.session_id)
        if missing:
            client.models = client.replaced = None  # as with a reload
            models = Models(
                [each.model_id for each in missing],
                [each.options for each in missing],
                AppConfig(model_list=tuple(each.record for each in missing)),
            )
            await self._load(client, request.uuid, models, is_reload=False)
        return await self.engine.resume_chat_completion(
            params.session_id,
            options.continue_generation is True,
            options.is_stream,
            options.from_token,
        )

    async def _unload(self, client: Connection, _: m.Request) -> None:
        for load in self._begun_loads:
            load.stop()
        async with self._turn:
            client.models = client.replaced = None
            try:
                await self._end_answers([client])
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


def _replaced(old: str, new: str) -> ModelReplacedError:
    how = "with other options" if old == new else f"and replaced by {new}"
    return ModelReplacedError(
        f"{old} was unloaded {how}, since another client of this engine loaded {new}; call reload "
        f"to load {old} again"
    )


def _named(request: m.Request) -> tuple[AskedRequest, dict[str, Any]]:
    """Returns a request of the engine with an id, a new one unless it has one."""
    fields: dict[str, Any] = request.content.request
    extra = fields.get("extra_body")
    if request.kind == m.EMBEDDING.name or not isinstance(extra, dict | None):
        return AskedRequest(m.new_uuid()), fields  # of a wrong type, which the engine refuses
    request_id = _id_of(extra or {})
    if request_id is None:
        request_id = m.new_uuid()
        fields = fields | {"extra_body": (extra or {}) | {"request_id": request_id}}
    return AskedRequest(request_id), fields


def _id_of(extra: dict[str, Any]) -> str | None:
    """Returns the id that a request has; None if it has none."""
    match extra:
        case {"resumable": {"enabled": False}}:
            pass
        case {"resumable": {"session_id": str(session_id)} | {"sessionId": str(session_id)}}:
            return session_id
    request_id = extra.get("request_id")
    return None if request_id in (None, "") else str(request_id)


async def _end_all(connections: Iterable[Connection]) -> None:
    """Ends all connections, also after an error; then raises the first error."""
    ends = [each.end() for each in connections]
    for error in await asyncio.gather(*ends, return_exceptions=True):
        if isinstance(error, BaseException):
            raise error


async def _whole(reply: ResponseStruct | Chunks) -> ResponseStruct:
    if isinstance(reply, ResponseStruct):
        return reply
    await reply.aclose()
    raise RequestError("stream is True in a message for whole answers", field="stream")


def _streamed(reply: ResponseStruct | Chunks) -> Chunks:
    if isinstance(reply, ResponseStruct):
        raise RequestError("stream is not True in a message that begins a stream", field="stream")
    return reply
