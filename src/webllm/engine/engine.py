"""`MLCEngine`: models loaded in this process, behind WebLLM's interface."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from webllm.api.chat_completion import ChatCompletion, ChatCompletionChunk
from webllm.api.completion import Completion
from webllm.api.embedding import CreateEmbeddingResponse
from webllm.api.requests import (
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingRequest,
    GenerationParams,
)
from webllm.api.resources import Chat, Completions, Embeddings
from webllm.api.resumable import ResumableSession, ResumeResult
from webllm.api.stats import EngineStats
from webllm.api.validation import (
    chat_completion_request,
    checked_flag,
    checked_id,
    checked_ids,
    completion_request,
    embedding_request,
)
from webllm.backends.auto import find_adapter
from webllm.config import (
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
from webllm.engine import loading
from webllm.engine.background import to_its_end
from webllm.engine.benchmark import Rates, measure
from webllm.engine.device_fit import chosen_variant
from webllm.engine.generation import Generation
from webllm.engine.generations import Generations, given_id, resumable
from webllm.engine.journal import Begin, Journal, Recovered
from webllm.engine.journaling import (
    LoadedRecord,
    SessionJournal,
    default_journal,
    finished_result,
    models_of,
    recovered_result,
    resuming_request,
    session_info,
)
from webllm.engine.load_progress import LoadProgress, call_both
from webllm.engine.loaded_model import LoadedModel
from webllm.engine.loads import Loads
from webllm.engine.loop import unloaded
from webllm.engine.progress_line import progress_line
from webllm.engine.responses import ChatResponder, CompletionResponder, answer
from webllm.engine.session import Session
from webllm.errors import (
    ConfigError,
    ModelNotFoundError,
    ModelNotLoadedError,
    RequestError,
    SessionNotFoundError,
)
from webllm.host import THIS_HOST, Host
from webllm.webllm_list import require_supported

_LOG_LEVELS: dict[LogLevel, int] = {
    "TRACE": 5,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "ERROR": logging.ERROR,
    "SILENT": logging.CRITICAL + 1,
}


class MLCEngine:
    """Runs one or more models. Requests that run at the same time share steps.

    Use from one event loop. `async with MLCEngine() as engine` unloads at the end.

    journal: keeps requests with `extra_body.resumable`; None stands for the files of this user,
    in a browser for the IndexedDB of this site, which all engines share. With
    `config.persist=False` nothing is kept.

    Tests may replace its parts. load_model: loads one model for `reload`, in place of
    `engine.loading.load_model`. models: the models that are loaded at the start. host: the host
    that the engine assumes.
    """

    def __init__(
        self,
        config: MLCEngineConfig | None = None,
        *,
        load_model: loading.ModelLoader | None = None,
        models: Iterable[LoadedModel] = (),
        host: Host = THIS_HOST,
        journal: Journal | None = None,
    ) -> None:
        self.config = engine_config(config)
        self._load_model: loading.ModelLoader = load_model or loading.load_model
        self._host = host
        self.chat = Chat(self)
        self.completions = Completions(self)
        self.embeddings = Embeddings(self)
        self._sessions = {model.model_id: Session(model, host) for model in models}
        self._loads = Loads()
        self._found: list[LoadedRecord] = []  # as the catalogue has what is loaded
        self._loaded: list[LoadedRecord] = []  # with the variants that were chosen
        self._generations = Generations()
        self._journal = journal
        self._loading_ids: list[str] = []  # or sources, of the models that are being loaded
        if self.config.log_level is not None:
            self.set_log_level(self.config.log_level)

    async def __aenter__(self) -> MLCEngine:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.unload()

    async def reload(
        self,
        model_id: str | Sequence[str],
        chat_options: ChatOptions | Sequence[ChatOptions] | None = None,
        *,
        on_progress: InitProgressCallback | None = None,
    ) -> None:
        """Unloads what is loaded, then fetches and loads models, by id or source string.

        chat_options: for the one model, or one for each. on_progress: called with the progress of
        this load, besides the engine's callback. A reload waits for those before it. Raises
        ModelNotFoundError, ArtifactError, UnsupportedModelError, DeviceError or ConfigError, and
        ModelNotLoadedError if `unload` stopped it. After an error nothing is loaded, except after a
        ConfigError for wrong arguments: that leaves all as it was.
        """
        wanted = _options_by_id(model_id, chat_options)
        check_callback("on_progress", on_progress)
        find = partial(self._find, wanted)
        await self._loads.run(partial(self._reload, list(wanted), find, on_progress), wanted)

    def _find(self, options_by_id: Mapping[str, ChatOptions]) -> list[LoadedRecord]:
        """Looks models up in the catalogue; raises ModelNotFoundError."""
        find = self.config.app_config.find
        return [LoadedRecord(find(each), given) for each, given in options_by_id.items()]

    async def _reload(
        self,
        model_ids: list[str],
        find: Callable[[], list[LoadedRecord]],
        on_progress: InitProgressCallback | None = None,
    ) -> None:
        self._loading_ids = model_ids
        try:
            await self._unload()
            found = find()
            _check_unique([model.model_id for model in found])
            models = [await self._for_device(model) for model in found]
            callback = call_both(on_progress, self.config.init_progress_callback)
            with progress_line(callback) as report:
                self._sessions = await self._load(models, report)
            self._found, self._loaded = found, models
        finally:
            self._loading_ids = []

    async def _for_device(self, model: LoadedRecord) -> LoadedRecord:
        """Returns the variant for this device, if the model's id leaves the choice.

        Raises UnsupportedModelError for a model that does not run here, before any is fetched.
        """
        catalogue, device = self.config.app_config, self.config.device
        record = await chosen_variant(model.record, catalogue, device)
        require_supported(record)
        return LoadedRecord(record, model.options)

    async def _load(
        self, models: list[LoadedRecord], on_progress: InitProgressCallback | None
    ) -> dict[str, Session]:
        progress = LoadProgress(on_progress, len(models), start=self._host.load_start)
        config = replace(self.config, init_progress_callback=progress)
        sessions: dict[str, Session] = {}
        try:
            for each in models:
                record = each.record
                effective = each.options.over(record.overrides)
                _check_supported(effective)
                model = await self._load_model(record, effective, config, self._host)
                sessions[record.model_id] = Session(model, self._host)
                progress.model_ready()
        except BaseException:
            await _close(sessions)
            raise
        return sessions

    async def unload(self) -> None:
        """Ends every running answer with finish_reason "abort" and frees the device.

        Stops every `reload` that was called before: the one that runs, whose fetched bytes are kept
        for the next, and those that wait for it. They raise ModelNotLoadedError. A `reload` that is
        called later is not stopped; it waits for this. Closes every model, then raises the first
        error.
        """
        async with self._loads.stopped():
            await self._unload()

    async def _unload(self) -> None:
        sessions, self._sessions, self._found, self._loaded = self._sessions, {}, [], []
        self._generations.stop_starting(unloaded())
        await _close(sessions)
        await self._generations.written()

    async def chat_completion(
        self, request: ChatCompletionRequest | Mapping[str, object]
    ) -> ChatCompletion | AsyncGenerator[ChatCompletionChunk, None]:
        """Answers a conversation; a stream if the request has `stream=True`."""
        checked = chat_completion_request(request)
        generation = await self._attach(checked)
        return await answer(generation, partial(ChatResponder, generation, checked))

    async def completion(
        self, request: CompletionRequest | Mapping[str, object]
    ) -> Completion | AsyncGenerator[Completion, None]:
        """Continues a text; a stream if the request has `stream=True`."""
        checked = completion_request(request)
        generation = await self._attach(checked)
        reply: Completion | AsyncGenerator[Completion, None]
        reply = await answer(generation, partial(CompletionResponder, generation, checked))
        return reply

    async def _attach(self, request: GenerationParams) -> Generation:
        """Attaches to the generation of a request, which begins unless it is under way."""
        session = self._session(request.model)
        model = session.model
        generation = self._generations.find(request, model.model_id)
        if generation is None:
            journal = self._session_journal() if resumable(request) else None
            generation = Generation(
                given_id(request) or str(uuid.uuid4()),
                request,
                model.model_id,
                model.fingerprint,
                self._generations.update,
            )
            self._generations.add(generation)
            session.begin(generation, journal)
        generation.attach()
        try:
            await generation.started()
        except BaseException:
            generation.detach()
            raise
        return generation

    def _session_journal(self) -> SessionJournal | None:
        if not self.config.persist:
            return None
        return SessionJournal(self._own_journal(), self._loaded, self._generations.written)

    async def _written_journal(self) -> Journal:
        """Returns the journal once it has what ended generations of this engine wrote."""
        await self._generations.written()
        return self._own_journal()

    def _own_journal(self) -> Journal:
        if self._journal is None:
            self._journal = default_journal(self._host)
        return self._journal

    async def list_resumable_sessions(self) -> list[ResumableSession]:
        """Returns the sessions in the journal, the newest first."""
        if not self.config.persist:
            return []
        entries = await (await self._written_journal()).list()
        return [
            session_info(
                entry,
                self._generations.has(entry.recovered.begin.session_id),
                self._is_exact(entry.recovered),
            )
            for entry in entries
        ]

    async def resume_chat_completion(
        self,
        session_id: str,
        continue_generation: bool = False,
        stream: bool = False,
        from_token: int | list[int] | None = None,
    ) -> ResumeResult | AsyncGenerator[ChatCompletionChunk, None]:
        """Returns a session's text; or generates the rest, after loading its model if needed.

        stream: returns the chunks that follow the tokens which the caller has, `from_token` of each
        choice: `emitted_tokens` of the text. By default those that follow the text in the journal,
        which grows while the answer is being generated. A session that was begun by a text
        completion has the chunks of one. Raises SessionNotFoundError, RequestError for a wrong
        `from_token` and if another engine generates the answer, and what `reload` raises.
        """
        continues = checked_flag("continue_generation", continue_generation)
        is_stream = checked_flag("stream", stream)
        past = await self._find_session(session_id)
        if past is None:
            raise SessionNotFoundError(
                f"the journal has no session {session_id!r}; list_resumable_sessions() has those "
                "that it has"
            )
        if not continues:
            return recovered_result(past, self._is_exact(past))
        await self._ensure_loaded(past.begin)
        request = resuming_request(past, is_stream, from_token)
        generation = await self._attach(request)
        reply: Any
        if isinstance(request, CompletionRequest):
            reply = await answer(generation, partial(CompletionResponder, generation, request))
        else:
            reply = await answer(generation, partial(ChatResponder, generation, request))
        return reply if is_stream else finished_result(past, generation)

    def _is_exact(self, past: Recovered) -> bool | None:
        session = self._sessions.get(past.begin.model_id)
        return None if session is None else session.model.fingerprint == past.begin.forms

    async def session_models(self, session_id: str) -> list[LoadedRecord]:
        """Returns the models that `resume_chat_completion` would load to continue a session.

        Empty if its model is loaded with the same options, or if there is no such session.
        """
        past = await self._find_session(session_id)
        return [] if past is None else self._missing(past.begin)

    def _missing(self, begin: Begin) -> list[LoadedRecord]:
        models = models_of(begin)
        answering = [model for model in models if model.model_id == begin.model_id]
        return [] if all(model in self._loaded for model in answering) else models

    async def _ensure_loaded(self, begin: Begin) -> None:
        async def load() -> None:
            if models := self._missing(begin):
                await self._reload([model.model_id for model in models], lambda: models)

        await self._loads.run(load, [begin.model_id])

    async def _find_session(self, session_id: str) -> Recovered | None:
        checked_id("session_id", session_id)
        if not self.config.persist:
            return None
        return await (await self._written_journal()).find(session_id)

    async def delete_resumable_session(self, session_id: str) -> None:
        """Removes a session from the journal.

        Raises SessionNotFoundError, and RequestError while its answer is being generated.
        """
        checked_id("session_id", session_id)
        await (await self._written_journal()).delete(session_id)

    async def delete_all_resumable_sessions(self) -> None:
        """Empties the journal, except for the sessions whose generation is under way."""
        await (await self._written_journal()).delete_all()

    async def embedding(
        self, request: EmbeddingRequest | Mapping[str, object]
    ) -> CreateEmbeddingResponse:
        """Raises ModelNotLoadedError always: embedding models are not supported yet."""
        checked = embedding_request(request)
        raise ModelNotLoadedError(
            f"no embedding model is loaded (asked for {checked.model or 'any'}, loaded: "
            f"{', '.join(self._sessions) or 'nothing'}); embedding models are not supported yet"
        )

    def loaded_model_ids(self) -> list[str]:
        """Returns the ids that `model` may be in a request."""
        return list(self._sessions)

    def has_loaded(
        self,
        model_id: str | Sequence[str],
        chat_options: ChatOptions | Sequence[ChatOptions] | None = None,
    ) -> bool:
        """Whether exactly these models are loaded, with these options and the current catalogue.

        A model whose device was lost does not count, so that it is loaded again.
        """
        if any(session.model.loop.is_device_lost for session in self._sessions.values()):
            return False
        try:
            return self._find(_options_by_id(model_id, chat_options)) == self._found
        except ModelNotFoundError:
            return False

    def interrupt_generate(self, request_ids: Collection[str] | None = None) -> None:
        """Ends running answers with finish_reason "abort": all, or those of these requests.

        request_ids: each request's `extra_body.request_id`, or its response's id.
        """
        ids = checked_ids("request_ids", request_ids)
        self._generations.interrupt(ids)
        if ids is None:
            for session in self._sessions.values():
                session.interrupt()

    async def reset_chat(self, keep_stats: bool = False, model_id: str | None = None) -> None:
        """Clears the last message, forwarded tokens and prefix cache; running answers continue."""
        self._session(model_id).reset_chat(keep_stats)

    async def get_message(self, model_id: str | None = None) -> str:
        """Returns the text of the last answer so far; "" before the first."""
        return self._session(model_id).message()

    async def runtime_stats_text(self, model_id: str | None = None) -> str:
        """Returns the rates of the last answer, in WebLLM's format."""
        return self._session(model_id).runtime_stats_text()

    async def forward_tokens_and_sample(
        self, input_ids: Sequence[int], is_prefill: bool, model_id: str | None = None
    ) -> int:
        """Appends tokens to those forwarded since `reset_chat`, and samples the next token.

        The sampled token is not appended. is_prefill: a parameter of WebLLM's, without effect here.
        Raises RequestError or ContextLengthError.
        """
        return await self._session(model_id).forward_tokens_and_sample(input_ids)

    async def get_gpu_vendor(self) -> str:
        """Returns the vendor of the GPU that `device` names; raises DeviceNotFoundError."""
        return (await find_adapter(self.config.device)).info.vendor

    async def get_max_storage_buffer_binding_size(self) -> int:
        """Returns this limit of the GPU that `device` names, in bytes.

        Raises DeviceNotFoundError.
        """
        return (await find_adapter(self.config.device)).limits.max_binding_bytes

    def set_init_progress_callback(self, callback: InitProgressCallback | None) -> None:
        self.config = replace(self.config, init_progress_callback=callback)

    def get_init_progress_callback(self) -> InitProgressCallback | None:
        return self.config.init_progress_callback

    def set_app_config(self, app_config: AppConfig) -> None:
        """Sets the catalogue for the next `reload`."""
        self.config = replace(self.config, app_config=app_config)

    def set_log_level(self, log_level: LogLevel) -> None:
        """Sets the level of the logger "webllm". Raises ConfigError for an unknown level."""
        check_log_level(log_level)
        logging.getLogger("webllm").setLevel(_LOG_LEVELS[log_level])

    async def device_name(self, model_id: str | None = None) -> str:
        """Returns a readable name of the device that a loaded model runs on."""
        return self._session(model_id).model.device_name

    async def engine_stats(self) -> EngineStats:
        """Returns each loaded model's sequences and free blocks."""
        models = [session.model.stats() for session in self._sessions.values()]
        return EngineStats(models=models, loading=list(self._loading_ids))

    async def benchmark(self, prompt_tokens: int, gen_tokens: int, batch: int = 1) -> Rates:
        """Measures prefill and decode of `batch` prompts of random token ids."""
        return await measure(self._session(None).model, prompt_tokens, gen_tokens, batch)

    def _session(self, model_id: str | None) -> Session:
        """Returns the session of a model id; None stands for the only loaded model."""
        if self._loading_ids:
            raise ModelNotLoadedError(
                f"{', '.join(self._loading_ids)} is still being loaded; ask again when reload has "
                "returned"
            )
        if not self._sessions:
            raise ModelNotLoadedError("no model is loaded; await engine.reload(model_id) first")
        if model_id is None and len(self._sessions) == 1:
            return next(iter(self._sessions.values()))
        loaded = ", ".join(self._sessions)
        if model_id is None:
            raise RequestError(f"model is missing; name one of {loaded}", field="model")
        if model_id not in self._sessions:
            raise ModelNotFoundError(f"model is {model_id!r}, loaded: {loaded}")
        return self._sessions[model_id]


async def create_mlc_engine(
    model_id: str | Sequence[str],
    config: MLCEngineConfig | None = None,
    chat_options: ChatOptions | Sequence[ChatOptions] | None = None,
) -> MLCEngine:
    """Returns a new engine with one or more models loaded; raises what `reload` raises."""
    engine = MLCEngine(config)
    await engine.reload(model_id, chat_options)
    return engine


def _options_by_id(
    model_id: str | Sequence[str], chat_options: ChatOptions | Sequence[ChatOptions] | None
) -> dict[str, ChatOptions]:
    ids = model_ids(model_id)
    _check_unique(ids)
    options = read_options(chat_options)
    if options is None:
        options = [ChatOptions()] * len(ids)
    if len(options) != len(ids):
        raise ConfigError(
            f"chat_options has {len(options)} entries for {len(ids)} models; give one for each"
        )
    return dict(zip(ids, options, strict=True))


async def _close(sessions: Mapping[str, Session]) -> None:
    """Closes every session, even if cancelled; raises the first error in their order."""
    if sessions:
        await to_its_end(_close_all([session.model for session in sessions.values()]))


async def _close_all(models: list[LoadedModel]) -> None:
    if models:
        try:
            await _close_all(models[1:])
        finally:
            await models[0].close()


def _check_unique(model_ids: list[str]) -> None:
    if len(set(model_ids)) < len(model_ids):
        raise ConfigError(
            f"model_id names a model twice: {', '.join(model_ids)}; give copies of a model "
            "records with their own model_id"
        )


def _check_supported(options: ChatOptions) -> None:
    """Raises ConfigError for options of WebLLM that are not supported yet."""
    if options.bos_token_id is not None:
        raise ConfigError(
            f"bos_token_id is not supported, received {options.bos_token_id}; leave it out"
        )
