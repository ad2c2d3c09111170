"""`MLCEngine`: models loaded in this process, behind WebLLM's interface."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from functools import partial

from webllm.api.chat_completion import ChatCompletion, ChatCompletionChunk
from webllm.api.completion import Completion
from webllm.api.requests import ChatCompletionRequest, CompletionRequest, GenerationParams
from webllm.api.resources import Chat, Completions
from webllm.api.validation import chat_completion_request, completion_request
from webllm.config import ChatOptions, InitProgressCallback, MLCEngineConfig
from webllm.engine.benchmark import Rates, measure
from webllm.engine.loading import LoadedModel, load_model
from webllm.engine.output import Answer, TextOutput
from webllm.engine.prompts import Prompt, chat_prompt, completion_prompt
from webllm.engine.responses import ChatResponder, CompletionResponder, collect
from webllm.errors import ConfigError, ModelNotLoadedError, RequestError


class MLCEngine:
    """Runs one model; requests may come concurrently.

    Use from one event loop. `async with MLCEngine() as engine` unloads at the end.
    """

    def __init__(self, config: MLCEngineConfig | None = None) -> None:
        self.config = config or MLCEngineConfig()
        self.chat = Chat(self)
        self.completions = Completions(self)
        self._model: LoadedModel | None = None
        self._last_answer: Answer | None = None
        self._loading = asyncio.Lock()  # one `reload` or `unload` at a time

    async def __aenter__(self) -> MLCEngine:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.unload()

    async def reload(self, model_id: str, chat_options: ChatOptions | None = None) -> None:
        """Unloads what is loaded, then fetches and loads `model_id` or a source string.

        Raises ModelNotFoundError, ArtifactError, UnsupportedModelError, DeviceError or
        ConfigError; after an error nothing is loaded.
        """
        async with self._loading:
            await self._unload()
            record = self.config.app_config.find(model_id)
            options = (chat_options or ChatOptions()).over(record.overrides)
            _refuse_unserved(options, self.config)
            self._model = await load_model(record, options, self.config)

    async def unload(self) -> None:
        """Ends every answer under way with finish_reason "abort" and frees the device.

        Waits for a `reload` under way; cancel that to end it early.
        """
        async with self._loading:
            await self._unload()

    async def _unload(self) -> None:
        model, self._model = self._model, None
        self._last_answer = None
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
        if self._last_answer is None:
            return "prefill: 0.0000 tokens/sec, decoding: 0.0000 tokens/sec"
        extra = self._last_answer.usage.extra
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
            model.loop,
            partial(TextOutput, model.tokenizer, prompt.stop_strings),
        )
        self._last_answer = answer
        return answer


def _refuse_unserved(options: ChatOptions, config: MLCEngineConfig) -> None:
    """What WebLLM has and we do not serve yet; silence would be a wrong answer."""
    unserved = {
        "sliding_window_size": options.sliding_window_size,
        "attention_sink_size": options.attention_sink_size,
        "bos_token_id": options.bos_token_id,
        "logit_processor_registry": config.logit_processor_registry,
    }
    for name, value in unserved.items():
        if value:
            raise ConfigError(f"{name} is not supported yet, received {value}; leave it out")
