"""A loaded model and its last answer: everything a request to one model needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from collections.abc import Sequence as Tokens
from functools import partial

from webllm.api.chat_completion import ChatCompletion, ChatCompletionChunk
from webllm.api.completion import Completion
from webllm.api.requests import (
    ChatCompletionRequest,
    CompletionRequest,
    ExtraBody,
    GenerationParams,
)
from webllm.engine.background import Lane, TurnLock
from webllm.engine.loading import LoadedModel
from webllm.engine.output import Answer, TextOutput
from webllm.engine.prompt_tokens import MESSAGE_CHARS
from webllm.engine.prompts import Prompt, chat_prompt, completion_prompt, forwarded_sequence
from webllm.engine.responses import ChatResponder, CompletionResponder, collect
from webllm.engine.sequence import FinishReason
from webllm.errors import RequestError
from webllm.ops.sampled import TokenLogprobs
from webllm.text.steps import Steps, finish

_SHORT_TEXT = 4096  # characters; encoding them takes less time than handing them to a thread
_LONG_TEXT = 65536  # characters; longer texts wait for each other in a lane of their own


class Model:
    """Answers requests that have been checked."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self._last_answer: Answer | None = None
        self._rates = 0.0, 0.0  # of prefill and decode, tokens a second
        self._forwarded: list[int] = []
        self._forwarding = TurnLock()  # each call continues where the last ended
        self._texts, self._long_texts = Lane(), Lane()  # a long prompt does not delay short ones
        self._num_coming = 0  # sequences whose prompts are being made
        self._num_interrupts = 0

    async def chat_completion(
        self, request: ChatCompletionRequest
    ) -> ChatCompletion | AsyncGenerator[ChatCompletionChunk, None]:
        chat_format = self.loaded.chat_format
        num_chars = sum(len(message.text) + MESSAGE_CHARS for message in request.messages)
        if chat_format is not None and chat_format.is_program:
            num_chars = max(num_chars, _SHORT_TEXT + 1)
        answer = await self._answer(chat_prompt(self.loaded, request), num_chars, request)
        responder = ChatResponder(self.loaded.model_id)
        if request.stream:
            return responder.stream(answer, request.include_usage)
        return responder.whole(await collect(answer), answer.usage)

    async def completion(
        self, request: CompletionRequest
    ) -> Completion | AsyncGenerator[Completion, None]:
        prompt = completion_prompt(self.loaded, request)
        answer = await self._answer(prompt, len(request.prompt), request)
        echo = request.prompt if request.echo else ""
        responder = CompletionResponder(self.loaded.model_id, echo)
        if request.stream:
            return responder.stream(answer, request.include_usage)
        return responder.whole(await collect(answer), answer.usage)

    async def forward_tokens_and_sample(self, input_ids: Tokens[int]) -> int:
        """The token that follows all that was forwarded since `reset_chat`, and `input_ids`."""
        async with self._forwarding:
            token_ids = [*self._forwarded, *input_ids]
            output = _OneToken()
            sequence = forwarded_sequence(self.loaded, token_ids)
            self.loaded.loop.add(sequence, output)
            try:
                token_id = await output.token_id
            finally:
                self.loaded.loop.finish(sequence, FinishReason.ABORT)
            self._forwarded = token_ids
            return token_id

    def interrupt(self) -> None:
        """Ends every answer under way, and those whose prompt is still being made."""
        self._num_interrupts += 1
        self.loaded.loop.abort_all()

    def reset_chat(self, keep_stats: bool = False) -> None:
        """Forgets what was said: the last message, forwarded tokens, known prefixes of the KV
        cache, the state of a logit processor, and the rates unless `keep_stats`.
        """
        self._rates = self._last_rates() if keep_stats else (0.0, 0.0)
        self._last_answer = None
        self._forwarded = []
        self.loaded.loop.scheduler.blocks.forget()
        if sampler := self.loaded.runner.host_sampler:
            sampler.reset_state()

    def message(self) -> str:
        """The last answer, as far as it has come."""
        return self._last_answer.text if self._last_answer else ""

    def runtime_stats_text(self) -> str:
        """Rates of the last answer, in WebLLM's words."""
        prefill, decode = self._last_rates()
        return f"prefill: {prefill:.4f} tokens/sec, decoding: {decode:.4f} tokens/sec"

    def _last_rates(self) -> tuple[float, float]:
        if self._last_answer is None:
            return self._rates
        extra = self._last_answer.usage.extra
        return extra.prefill_tokens_per_s, extra.decode_tokens_per_s

    async def _answer(
        self, steps: Steps[Prompt], num_chars: int, request: GenerationParams
    ) -> Answer:
        """`num_chars`: of the text that `steps` makes a prompt of."""
        loaded, num_interrupts = self.loaded, self._num_interrupts
        num_choices = request.n or 1
        loaded.loop.scheduler.check_queue(num_choices, self._num_coming)
        self._num_coming += num_choices
        try:
            prompt = await self._prompt(steps, num_chars + len(request.logit_bias or ()))
        finally:
            self._num_coming -= num_choices
        sampler = loaded.runner.host_sampler
        if sampler and not loaded.loop.scheduler.has_work:
            sampler.reset_state()  # a new conversation, as far as it can know
        extra = request.extra_body or ExtraBody()
        self._last_answer = Answer(
            prompt.sequences,
            loaded.loop,
            partial(TextOutput, loaded.tokenizer, prompt.stop_strings),
            breakdown=extra.enable_latency_breakdown is True,
            is_interrupted=num_interrupts != self._num_interrupts,
        )
        return self._last_answer

    async def _prompt(self, steps: Steps[Prompt], num_chars: int) -> Prompt:
        """Long work is done beside the event loop."""
        if num_chars <= _SHORT_TEXT:
            return finish(steps)
        lane = self._long_texts if num_chars > _LONG_TEXT else self._texts
        return await lane.run(steps)


class _OneToken:
    """Waits for one token."""

    def __init__(self) -> None:
        self.token_id: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def accept(self, token_id: int, logprobs: TokenLogprobs | None) -> FinishReason | None:
        if not self.token_id.done():  # cancelled, if its caller was
            self.token_id.set_result(token_id)
        return None

    def end(self, reason: FinishReason) -> None:
        if not self.token_id.done():
            self.token_id.set_exception(RequestError("forwarding was interrupted; ask again"))

    def fail(self, error: BaseException) -> None:
        if not self.token_id.done():
            self.token_id.set_exception(error)
