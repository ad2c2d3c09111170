"""An engine without a model for the CLI's tests; as a program, the CLI on top of it.

It repeats the question word by word, and reports loading as a real engine does. The questions
"refuse: …", "crash: …" and "warn: …" make it raise a TemplateError, fail with a bug, or log.
"""

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from webllm.api.chat_completion import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessage,
    Choice,
    ChunkChoice,
    Delta,
    FinishReason,
)
from webllm.api.completion import Completion, CompletionChoice
from webllm.api.resources import Chat, Completions
from webllm.api.usage import CompletionUsage, UsageExtra
from webllm.api.validation import chat_completion_request, completion_request
from webllm.artifacts.progress import InitProgressReport, Phase
from webllm.config import DEFAULT_MODEL_ID, ChatOptions, MLCEngineConfig
from webllm.errors import ContextLengthError, RequestError, TemplateError

USAGE = CompletionUsage(
    prompt_tokens=7,
    completion_tokens=5,
    total_tokens=12,
    extra=UsageExtra(
        e2e_latency_s=1.0,
        prefill_tokens_per_s=310.4,
        decode_tokens_per_s=55.25,
        time_to_first_token_s=0.1,
        time_per_output_token_s=0.02,
    ),
)


@dataclass
class Rates:
    prefill_s: float
    decode_s: float
    num_decoded: int


class FakeEngine:
    def __init__(self, config: MLCEngineConfig | None = None) -> None:
        self.config = config or MLCEngineConfig()
        self._device_name = f"fake {self.config.device}"
        self.chat = Chat(self)
        self.completions = Completions(self)
        self.interrupted = False

    async def __aenter__(self) -> "FakeEngine":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.unload()

    async def reload(self, model: str, options: ChatOptions | None = None) -> None:
        self.config.app_config.find(model)
        report = self.config.init_progress_callback or (lambda report: None)
        for loaded in range(0, 101, 20):
            text = f"Fetching {'model' if model == DEFAULT_MODEL_ID else model}: {loaded} of 100 MB"
            report(InitProgressReport(loaded / 100, 0.1, text, Phase.FETCH, loaded, 100))
            await asyncio.sleep(0.02)

    async def device_name(self) -> str:
        return self._device_name

    async def unload(self) -> None:
        self._device_name = "unloaded"

    def interrupt_generate(self) -> None:
        self.interrupted = True

    async def runtime_stats_text(self) -> str:
        return "prefill: 310.4 tokens/sec, decoding: 55.2 tokens/sec"

    async def benchmark(self, prompt_tokens: int, gen_tokens: int, batch: int) -> Rates:
        if batch * (prompt_tokens + gen_tokens) > 4096:
            raise RequestError(f"batch is {batch}; take a smaller batch or fewer tokens")
        return Rates(0.5, 2.0, batch * gen_tokens)

    async def chat_completion(self, request: Any) -> Any:
        checked = chat_completion_request(request)
        text = checked.messages[-1].text
        if text == "too long":
            raise ContextLengthError("the prompt has 9000 tokens; the context window holds 8192")
        kind, _, rest = text.partition(": ")
        if kind == "refuse":
            raise TemplateError(rest)
        if kind == "crash":
            raise RuntimeError(rest)
        if kind == "warn":
            logging.getLogger("webllm.fake").warning(rest)
        words = f"Message {len(checked.messages)}: {text}".split()
        if text == "forever":
            words = [str(i) for i in range(10_000)]
        if checked.stream:
            return self._chunks(words)
        message = ChatCompletionMessage(content=" ".join(words))
        choice = Choice(index=0, message=message, finish_reason="stop", logprobs=None)
        return ChatCompletion(id="1", created=1, model="m", choices=[choice], usage=USAGE)

    async def _chunks(self, words: list[str]) -> AsyncGenerator[ChatCompletionChunk, None]:
        self.interrupted = False
        for word in words:
            if self.interrupted:
                break
            delta = Delta(content=f"{word} ")
            yield _chunk([ChunkChoice(index=0, delta=delta, finish_reason=None)])
            await asyncio.sleep(0.005)
        reason: FinishReason = "abort" if self.interrupted else "stop"
        yield _chunk([ChunkChoice(index=0, delta=Delta(), finish_reason=reason)])
        yield _chunk([], USAGE)

    async def completion(self, request: Any) -> Any:
        checked = completion_request(request)
        text = f"after {checked.prompt}"
        choice = CompletionChoice(index=0, text=text, finish_reason="length", logprobs=None)
        answer = Completion(id="1", created=1, model="m", choices=[choice], usage=USAGE)

        async def stream() -> AsyncGenerator[Completion, None]:
            yield answer

        return stream() if checked.stream else answer


def _chunk(choices: list[ChunkChoice], usage: CompletionUsage | None = None) -> ChatCompletionChunk:
    return ChatCompletionChunk(id="1", created=1, model="m", choices=choices, usage=usage)


if __name__ == "__main__":
    sys.modules["webllm.engine.engine"] = SimpleNamespace(MLCEngine=FakeEngine)  # type: ignore
    from webllm.cli.main import app

    app()
