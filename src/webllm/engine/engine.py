"""`MLCEngine`: models loaded in this process, behind WebLLM's interface."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace

from webllm.api.chat_completion import ChatCompletion, ChatCompletionChunk
from webllm.api.completion import Completion
from webllm.api.embedding import CreateEmbeddingResponse
from webllm.api.requests import ChatCompletionRequest, CompletionRequest, EmbeddingRequest
from webllm.api.resources import Chat, Completions, Embeddings
from webllm.api.validation import chat_completion_request, completion_request, embedding_request
from webllm.config import (
    AppConfig,
    ChatOptions,
    InitProgressCallback,
    LogLevel,
    MLCEngineConfig,
    ModelRecord,
    check_log_level,
    engine_config,
    model_ids,
    read_options,
)
from webllm.engine.background import TurnLock
from webllm.engine.benchmark import Rates, measure
from webllm.engine.devices import find_adapter
from webllm.engine.load_progress import LoadProgress, both
from webllm.engine.loading import load_model
from webllm.engine.model import Model
from webllm.engine.progress_line import progress_line
from webllm.errors import ConfigError, ModelNotFoundError, ModelNotLoadedError, RequestError

_LOG_LEVELS: dict[LogLevel, int] = {
    "TRACE": 5,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "ERROR": logging.ERROR,
    "SILENT": logging.CRITICAL + 1,
}


class MLCEngine:
    """Runs one or more models; any number of requests may come at once and share its steps.

    Use from one event loop. `async with MLCEngine() as engine` unloads at the end.
    """

    def __init__(self, config: MLCEngineConfig | None = None) -> None:
        self.config = engine_config(config)
        self.chat = Chat(self)
        self.completions = Completions(self)
        self.embeddings = Embeddings(self)
        self._models: dict[str, Model] = {}
        self._loading = TurnLock()  # one `reload` or `unload` at a time
        self._expected: list[str] = []  # what is being loaded
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

        chat_options: for one model, or one for each. on_progress: called with the progress of this
        load, besides the engine's callback. Raises ModelNotFoundError, ArtifactError,
        UnsupportedModelError, DeviceError or ConfigError. After an error nothing is loaded; only
        arguments that contradict each other are refused before anything is unloaded.
        """
        wanted = _options_by_id(model_id, chat_options)
        async with self._loading:
            await self._unload()
            records = [self.config.app_config.find(each) for each in wanted]
            _refuse_twice([record.model_id for record in records])
            callback = both(on_progress, self.config.init_progress_callback)
            with progress_line(callback) as report:
                self._models = await self._load(records, list(wanted.values()), report)

    async def _load(
        self,
        records: list[ModelRecord],
        options: list[ChatOptions],
        on_progress: InitProgressCallback | None,
    ) -> dict[str, Model]:
        progress = LoadProgress(on_progress, len(records))
        config = replace(self.config, init_progress_callback=progress)
        self._expected = [record.model_id for record in records]
        models: dict[str, Model] = {}
        try:
            for record, given in zip(records, options, strict=True):
                effective = given.over(record.overrides)
                _refuse_unserved(effective)
                models[record.model_id] = Model(await load_model(record, effective, config))
                progress.model_ready()
        except BaseException:
            await _close(list(models.values()))
            raise
        finally:
            self._expected = []
        return models

    async def unload(self) -> None:
        """Ends every answer under way with finish_reason "abort" and frees the device.

        Closes every model, then raises the first error that came of it. Waits for a `reload` under
        way; cancel that to end it early.
        """
        async with self._loading:
            await self._unload()

    async def _unload(self) -> None:
        models, self._models = self._models, {}
        await _close(list(models.values()))

    async def chat_completion(
        self, request: ChatCompletionRequest | Mapping[str, object]
    ) -> ChatCompletion | AsyncGenerator[ChatCompletionChunk, None]:
        """Answers a conversation; a stream if the request has `stream=True`."""
        checked = chat_completion_request(request)
        return await self._model(checked.model).chat_completion(checked)

    async def completion(
        self, request: CompletionRequest | Mapping[str, object]
    ) -> Completion | AsyncGenerator[Completion, None]:
        """Continues a text; a stream if the request has `stream=True`."""
        checked = completion_request(request)
        return await self._model(checked.model).completion(checked)

    async def embedding(
        self, request: EmbeddingRequest | Mapping[str, object]
    ) -> CreateEmbeddingResponse:
        """Raises ModelNotLoadedError: there is no embedding model yet."""
        checked = embedding_request(request)
        raise ModelNotLoadedError(
            f"no embedding model is loaded (asked for {checked.model or 'any'}, loaded: "
            f"{', '.join(self._models) or 'nothing'}); language models give no embeddings"
        )

    def loaded_model_ids(self) -> list[str]:
        """What `model` may be in a request."""
        return list(self._models)

    def interrupt_generate(self) -> None:
        """Ends every answer under way, of every model, with finish_reason "abort"."""
        for model in self._models.values():
            model.interrupt()

    async def reset_chat(self, keep_stats: bool = False, model_id: str | None = None) -> None:
        """Forgets the last message, forwarded tokens and what the KV cache holds of earlier
        requests; answers under way go on.
        """
        self._model(model_id).reset_chat(keep_stats)

    async def get_message(self, model_id: str | None = None) -> str:
        """The text of the last answer, as far as it has come; "" before the first."""
        return self._model(model_id).message()

    async def runtime_stats_text(self, model_id: str | None = None) -> str:
        """Rates of the last answer, in WebLLM's words."""
        return self._model(model_id).runtime_stats_text()

    async def forward_tokens_and_sample(
        self, input_ids: Sequence[int], is_prefill: bool, model_id: str | None = None
    ) -> int:
        """Appends tokens to those forwarded since `reset_chat` and samples the next one, which is
        not appended. `is_prefill` is WebLLM's, and makes no difference here.

        Raises RequestError or ContextLengthError.
        """
        return await self._model(model_id).forward_tokens_and_sample(input_ids)

    async def get_gpu_vendor(self) -> str:
        """Vendor of the GPU that `device` names or would choose; raises DeviceNotFoundError."""
        return (await find_adapter(self.config.device)).info.vendor

    async def get_max_storage_buffer_binding_size(self) -> int:
        """Of the same GPU, in bytes; raises DeviceNotFoundError."""
        return (await find_adapter(self.config.device)).limits.max_binding_bytes

    def set_init_progress_callback(self, callback: InitProgressCallback | None) -> None:
        self.config = replace(self.config, init_progress_callback=callback)

    def get_init_progress_callback(self) -> InitProgressCallback | None:
        return self.config.init_progress_callback

    def set_app_config(self, app_config: AppConfig) -> None:
        """The catalogue from the next `reload` on."""
        self.config = replace(self.config, app_config=app_config)

    def set_log_level(self, log_level: LogLevel) -> None:
        """Of the logger "webllm"; raises ConfigError for what is none of WebLLM's levels."""
        check_log_level(log_level)
        logging.getLogger("webllm").setLevel(_LOG_LEVELS[log_level])

    async def device_name(self, model_id: str | None = None) -> str:
        """What a loaded model runs on, for people."""
        return self._model(model_id).loaded.device_name

    async def benchmark(self, prompt_tokens: int, gen_tokens: int, batch: int = 1) -> Rates:
        """Seconds for `batch` prompts and for the tokens after them, on made-up token ids."""
        return await measure(self._model(None).loaded, prompt_tokens, gen_tokens, batch)

    def _model(self, model_id: str | None) -> Model:
        """The model of that id; None: the only one there is."""
        if self._expected:
            raise ModelNotLoadedError(
                f"{', '.join(self._expected)} is still being loaded; ask again when reload has "
                "returned"
            )
        if not self._models:
            raise ModelNotLoadedError("no model is loaded; await engine.reload(model_id) first")
        if model_id is None and len(self._models) == 1:
            return next(iter(self._models.values()))
        loaded = ", ".join(self._models)
        if model_id is None:
            raise RequestError(f"model is missing; name one of {loaded}", field="model")
        if model_id not in self._models:
            raise ModelNotFoundError(f"model is {model_id!r}, loaded: {loaded}")
        return self._models[model_id]


async def create_mlc_engine(
    model_id: str | Sequence[str],
    config: MLCEngineConfig | None = None,
    chat_options: ChatOptions | Sequence[ChatOptions] | None = None,
) -> MLCEngine:
    """A new engine with one or more models loaded; raises what `MLCEngine.reload` raises."""
    engine = MLCEngine(config)
    await engine.reload(model_id, chat_options)
    return engine


def _options_by_id(
    model_id: str | Sequence[str], chat_options: ChatOptions | Sequence[ChatOptions] | None
) -> dict[str, ChatOptions]:
    ids = model_ids(model_id)
    _refuse_twice(ids)
    options = read_options(chat_options)
    if options is None:
        options = [ChatOptions()] * len(ids)
    if len(options) != len(ids):
        raise ConfigError(
            f"chat_options has {len(options)} entries for {len(ids)} models; give one for each"
        )
    return dict(zip(ids, options, strict=True))


async def _close(models: list[Model]) -> None:
    """Closes each, whatever the others raise; an error has those before it as its context."""
    if models:
        try:
            await _close(models[1:])
        finally:
            await models[0].loaded.close()


def _refuse_twice(model_ids: list[str]) -> None:
    if len(set(model_ids)) < len(model_ids):
        raise ConfigError(
            f"model_id names a model twice: {', '.join(model_ids)}; give copies of a model "
            "records with their own model_id"
        )


def _refuse_unserved(options: ChatOptions) -> None:
    """What WebLLM has and we do not serve yet; silence would be a wrong answer."""
    if options.bos_token_id is not None:
        raise ConfigError(
            f"bos_token_id is not supported, received {options.bos_token_id}; leave it out"
        )
