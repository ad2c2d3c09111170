"""`Session`: answers requests to a loaded model, and keeps what WebLLM asks of its last answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from functools import partial

import msgspec

from webllm.api.chat_completion import FinishReason
from webllm.api.requests import ChatCompletionRequest, CompletionRequest, GenerationParams
from webllm.engine.background import SerialExecutor, TurnLock
from webllm.engine.generation import Generation
from webllm.engine.generations import resumable
from webllm.engine.journaling import SessionJournal
from webllm.engine.loaded_model import LoadedModel
from webllm.engine.output import TextOutput
from webllm.engine.prompt_tokens import MESSAGE_CHARS
from webllm.engine.prompts import (
    Prompt,
    chat_prompt,
    completion_prompt,
    forwarded_sequence,
    prompt_of,
    read_token_ids,
)
from webllm.errors import RequestError, SessionNotFoundError
from webllm.host import Host
from webllm.ops.sampled import TokenLogprobs
from webllm.text.steps import finish

_SHORT_TEXT = 4096  # characters; shorter texts are encoded at once: a thread would take longer
_LONG_TEXT = 65536  # characters; longer texts wait for each other in a queue of their own


class Session:
    """Answers requests to one model. The requests have been validated."""

    def __init__(self, model: LoadedModel, host: Host) -> None:
        self.model = model
        self._last_answer: Generation | None = None
        self._rates = 0.0, 0.0  # of prefill and decode, tokens per second: kept by `reset_chat`
        self._forwarded: list[int] = []  # token ids since `reset_chat`
        self._forwarding = TurnLock()  # one `forward_tokens_and_sample` at a time
        # Two, so that a long prompt does not delay short ones.
        self._encoder, self._long_text_encoder = SerialExecutor(host), SerialExecutor(host)
        self._num_encoding = 0  # sequences whose prompts are being encoded

    def begin(self, generation: Generation, journal: SessionJournal | None) -> None:
        """Begins a generation; from the journal, if that has it."""
        generation.begin(partial(self._start, generation, journal))

    async def forward_tokens_and_sample(self, input_ids: Sequence[int]) -> int:
        """Returns the token after `input_ids`, which follow those forwarded since `reset_chat`."""
        async with self._forwarding:
            token_ids = [*self._forwarded, *read_token_ids(input_ids)]
            output = _OneToken()
            sequence = forwarded_sequence(self.model, token_ids)
            self.model.loop.add(sequence, output)
            try:
                token_id = await output.token_id
            finally:
                self.model.loop.finish(sequence, "abort")
            self._forwarded = token_ids
            return token_id

    def interrupt(self) -> None:
        """Ends every sequence."""
        self.model.loop.abort_all()

    def reset_chat(self, keep_stats: bool = False) -> None:
        """Clears the last message, forwarded tokens and prefix cache; resets the logit processor.

        keep_stats: the rates of the last answer stay.
        """
        self._rates = self._last_rates() if keep_stats else (0.0, 0.0)
        self._last_answer = None
        self._forwarded = []
        self.model.loop.reset_prefix_cache()
        if sampler := self.model.host_sampler:
            sampler.reset_state()

    def message(self) -> str:
        """Returns the text of the last answer so far."""
        return self._last_answer.text if self._last_answer else ""

    def runtime_stats_text(self) -> str:
        """Returns the rates of the last answer, in WebLLM's format."""
        prefill, decode = self._last_rates()
        return f"prefill: {prefill:.4f} tokens/sec, decoding: {decode:.4f} tokens/sec"

    def _last_rates(self) -> tuple[float, float]:
        if self._last_answer is None:
            return self._rates
        extra = self._last_answer.usage.extra
        return extra.prefill_tokens_per_s, extra.decode_tokens_per_s

    async def _start(self, generation: Generation, journal: SessionJournal | None) -> None:
        model, num_choices = self.model, generation.num_choices
        model.loop.scheduler.check_queue(num_choices, self._num_encoding)
        self._num_encoding += num_choices
        try:
            past = await journal.reopen(generation) if journal else None
            request = _seeded(generation.request, past.begin.seed if past else None)
            if past is None:
                prompt = await self._prompt(request)
                _check_start(generation, prompt)
            else:
                prompt = prompt_of(model, request, past.begin.prompt_token_ids)
            if journal is not None and past is None:
                journal.begin(generation, request, prompt.token_ids)
        finally:
            self._num_encoding -= num_choices
        if (sampler := model.host_sampler) and model.loop.is_idle:
            sampler.reset_state()  # the logit processor sees this as a new conversation
            sampler.replay([choice.token_ids for choice in past.choices] if past else [])
        self._last_answer = generation

        def new_output(choice: int) -> TextOutput:
            return TextOutput(
                model.tokenizer, prompt.stop_strings, choice, generation, generation.timing
            )

        generation.start(model.loop, prompt.sequences, new_output, past.choices if past else None)

    async def _prompt(self, request: GenerationParams) -> Prompt:
        """Encodes a prompt; a long one beside the event loop."""
        model = self.model
        if isinstance(request, ChatCompletionRequest):
            steps = chat_prompt(model, request)
            num_chars = sum(len(message.text) + MESSAGE_CHARS for message in request.messages)
            if model.chat_format is not None and model.chat_format.is_program:
                num_chars = max(num_chars, _SHORT_TEXT + 1)  # rendering may take long
        else:
            assert isinstance(request, CompletionRequest)
            steps = completion_prompt(model, request)
            num_chars = len(request.prompt)
        num_chars += len(request.logit_bias or ())
        if num_chars <= _SHORT_TEXT:
            return finish(steps)
        is_long = num_chars > _LONG_TEXT
        encoder = self._long_text_encoder if is_long else self._encoder
        return await encoder.run(steps)


def _seeded(request: GenerationParams, seed: int | None) -> GenerationParams:
    """Returns a request whose seed is known before its first token is drawn."""
    if seed is None:
        seed = random.getrandbits(32) if request.seed is None else request.seed
    return msgspec.structs.replace(request, seed=seed)


def _check_start(generation: Generation, prompt: Prompt) -> None:
    """Raises SessionNotFoundError if a reader has tokens of an answer that is lost.

    A new answer is the same one if its seed is given, or if nothing is random.
    """
    wanted = resumable(generation.request)
    start = wanted.from_token if wanted else None
    has_tokens = any(start) if isinstance(start, list) else bool(start)
    is_random = prompt.sequences[0].params.sampling.temperature > 0
    if has_tokens and is_random and generation.request.seed is None:
        raise SessionNotFoundError(
            f"the answer {generation.id!r} was not kept, so nothing can follow its tokens; ask "
            "without from_token for a new answer"
        )


class _OneToken:
    """Receives the one token of a sequence."""

    def __init__(self) -> None:
        self.token_id: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def accept(self, token_id: int, logprobs: TokenLogprobs | None) -> FinishReason | None:
        if not self.token_id.done():  # done: the caller was cancelled
            self.token_id.set_result(token_id)
        return None

    def end(self, reason: FinishReason) -> None:
        if not self.token_id.done():
            self.token_id.set_exception(RequestError("forwarding was interrupted; ask again"))

    def fail(self, error: BaseException) -> None:
        if not self.token_id.done():
            self.token_id.set_exception(error)
