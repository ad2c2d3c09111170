"""`MLCEngine`: models loaded in this process, behind WebLLM's interface."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace

from webllm.api.chat_completion import ChatCompletion, ChatCompletionChunk
from webllm.api.completion import Completion
from webllm.api.requests import ChatCompletionRequest, CompletionRequest, GenerationParams
from webllm.api.resources import Chat, Completions
from webllm.api.usage import CompletionUsage
from webllm.api.validation import chat_completion_request, completion_request
from webllm.config import ChatOptions, InitProgressCallback, MLCEngineConfig
from webllm.engine.benchmark import Rates, measure
from webllm.engine.loading import LoadedModel, load_model
from webllm.engine.output import Answer, TextOutput
from webllm.engine.prompts import Prompt, chat_prompt, completion_prompt
from webllm.engine.responses import ChatResponder, CompletionResponder, collect
from webllm.engine.sequence import FinishReason
from webllm.errors import ModelNotLoadedError, RequestError


class MLCEngine:
    """Runs one model; requests may come concurrently.

    Use from one event loop. `async with MLCEngine() as engine` unloads at the end.
    """

    def __init__(self, config: MLCEngineConfig | None = None) -> None:
        self.config = config or MLCEngineConfig()
        self.chat = Chat(self)
        self.completions = Completions(self)
        self._model: LoadedModel | None = None
        self._last_usage: Callable[[], CompletionUsage] | None = None

    async def __aenter__(self) -> MLCEngine:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.unload()

    async def reload(self, model_id: str, chat_options: ChatOptions | None = None) -> None:
        """Unloads what is loaded, then fetches and loads `model_id` or a source string.

        Raises ModelNotFoundError, ArtifactError, UnsupportedModelError, DeviceError or
        ConfigError; after an error nothing is loaded.
        """
        record = self.config.app_config.find(model_id)
        await self.unload()
        options = (chat_options or ChatOptions()).over(record.overrides)
        self._model = await load_model(record, options, self.config)

    async def unload(self) -> None:
        """Ends every answer under way with finish_reason "abort" and frees the device."""
        model, self._model = self._model, None
        self._last_usage = None
        if model is not None:
            await model.close()

    async def chat_completion(
        self, request: ChatCompletionRequest | Mapping[str, object]
    ) -> ChatCompletion | AsyncGenerator[ChatCompletionChunk, None]:
        """Answers a conversation; a stream if the request has `stream=True`."""
        checked = chat_completion_request(request)
        model = self._loaded(checked)
        answer = self._answer(model, chat_prompt(model, checked))
        responder = ChatResponder(model.model_id)
        if checked.stream:
            return responder.stream(answer, checked.include_usage)
        return responder.whole(await collect(answer), answer.usage)

    async def completion(
        self, request: CompletionRequest | Mapping[str, object]
    ) -> Completion | AsyncGenerator[Completion, None]:
        """Continues a text; a stream if the request has `stream=True`."""
        checked = completion_request(request)
        model = self._loaded(checked)
        answer = self._answer(model, completion_prompt(model, checked))
        responder = CompletionResponder(model.model_id, checked.prompt if checked.echo else "")
        if checked.stream:
            return responder.stream(answer, checked.include_usage)
        return responder.whole(await collect(answer), answer.usage)

    def interrupt_generate(self) -> None:
        """Ends every answer under way with finish_reason "abort"."""
        if self._model is not None:
            self._model.loop.abort_all()

    async def runtime_stats_text(self) -> str:
        """Rates of the last answer, in WebLLM's words."""
        if self._last_usage is None:
            return "prefill: 0.0000 tokens/sec, decoding: 0.0000 tokens/sec"
        extra = self._last_usage().extra
        return (
            f"prefill: {extra.prefill_tokens_per_s:.4f} tokens/sec, "
            f"decoding: {extra.decode_tokens_per_s:.4f} tokens/sec"
        )

    def set_init_progress_callback(self, callback: InitProgressCallback | None) -> None:
        self.config = replace(self.config, init_progress_callback=callback)

    @property
    def device_name(self) -> str:
        """What the loaded model runs on; raises ModelNotLoadedError."""
        return self._loaded().device_name

    async def benchmark(self, prompt_tokens: int, gen_tokens: int, batch: int = 1) -> Rates:
        """Seconds for `batch` prompts and for the tokens after them, on made-up token ids."""
        return await measure(self._loaded(), prompt_tokens, gen_tokens, batch)

    def _loaded(self, request: GenerationParams | None = None) -> LoadedModel:
        if self._model is None:
            raise ModelNotLoadedError("no model is loaded; await engine.reload(model_id) first")
        if request and request.model not in (None, self._model.model_id):
            raise RequestError(
                f"model is {request.model!r}, loaded is {self._model.model_id!r}", field="model"
            )
        return self._model

    def _answer(self, model: LoadedModel, prompt: Prompt) -> Answer:
        answer = Answer(
            prompt.sequences,
            lambda choice, deltas: TextOutput(choice, model.tokenizer, prompt.stop_strings, deltas),
            model.loop.add,
            lambda sequence: model.loop.finish(sequence, FinishReason.ABORT),
        )
        self._last_usage = lambda: answer.usage
        return answer
