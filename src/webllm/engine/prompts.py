"""From requests to sequences: prompt token ids, and how each choice goes on and ends."""

from __future__ import annotations

import random
from array import array
from bisect import bisect_left
from dataclasses import dataclass
from functools import partial

from webllm.api.requests import (
    ChatCompletionRequest,
    CompletionRequest,
    ExtraBody,
    GenerationParams,
)
from webllm.config import ChatOptions, ContextOverflow
from webllm.engine.chat_format import ChatFormat
from webllm.engine.loading import LoadedModel
from webllm.engine.sequence import ContextShift, Sequence, SequenceParams
from webllm.errors import ContextLengthError, RequestError, TemplateError
from webllm.ops.step import MAX_EDITS, Sampling
from webllm.sampling.edits import LogitEdits

_LOWEST_TEMPERATURE = 1e-5  # below it is greedy: logits divided by less overflow
_SEED_STEP = 0x9E3779B9  # keeps the choices of one request apart


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request, ready to run: one sequence per choice."""

    sequences: list[Sequence]
    stop_strings: tuple[str, ...]


def chat_prompt(model: LoadedModel, request: ChatCompletionRequest) -> Prompt:
    """Raises RequestError, ContextLengthError or TemplateError."""
    response_format = request.response_format
    if response_format is not None and response_format.type == "text":
        response_format = None  # the default, spelled out
    has_tool_calls = any(m.tool_calls or m.role == "tool" for m in request.messages)
    _refuse(tools=request.tools or has_tool_calls, response_format=response_format)
    chat_format = model.chat_format
    if chat_format is None:
        raise TemplateError(
            f"{model.model_id} has no chat template; use completions, or give a conv_template in "
            "the chat options"
        )
    token_ids = _conversation(model, chat_format, request)
    sequences = _sequences(model, request, token_ids, chat_format.stop_ids)
    return Prompt(sequences, request.stop_strings + chat_format.stop_strings)


def completion_prompt(model: LoadedModel, request: CompletionRequest) -> Prompt:
    """Raises RequestError or ContextLengthError."""
    # As everywhere else: control tokens written in a raw prompt count, so that a caller can
    # format a conversation by hand.
    token_ids = model.tokenizer.encode(request.prompt, parse_special=True)
    if not token_ids:
        raise RequestError("the prompt is empty; give at least one token", field="prompt")
    return Prompt(_sequences(model, request, token_ids), request.stop_strings)


def forwarded_sequence(model: LoadedModel, token_ids: list[int]) -> Sequence:
    """One token after `token_ids`, drawn as the model's options say.

    Raises RequestError or ContextLengthError.
    """
    if not token_ids:
        raise RequestError("input_ids is empty; give at least one token", field="input_ids")
    request = GenerationParams(max_tokens=1, ignore_eos=True)
    return _sequences(model, request, token_ids)[0]


def _conversation(
    model: LoadedModel, chat_format: ChatFormat, request: ChatCompletionRequest
) -> list[int]:
    """Token ids of the messages, without the oldest ones if there are too many and the policy is
    to leave them out.
    """
    extra = request.extra_body or ExtraBody()
    messages = [{"role": m.role, "content": m.text} for m in request.messages]
    enable_thinking = extra.enable_thinking is not False
    encode = partial(chat_format.encode, tokenizer=model.tokenizer, enable_thinking=enable_thinking)
    token_ids = encode(messages)
    window = model.context_window_size
    room = window - min(request.max_tokens or window // 4, window - 1)
    if len(token_ids) <= room or _overflow(model, request) != "truncate_oldest_messages":
        return token_ids
    shorter = without_oldest(messages)
    fits = bisect_left(shorter, True, key=lambda messages: len(encode(messages)) <= room)
    return encode(shorter[min(fits, len(shorter) - 1)])


def without_oldest(messages: list[dict[str, str]]) -> list[list[dict[str, str]]]:
    """The messages, then ever fewer: without the oldest turns, the system's message always kept.

    A turn begins with a user's message; the last one stays.
    """
    first = 1 if messages[0]["role"] == "system" else 0
    starts = [i for i in range(first + 1, len(messages)) if messages[i]["role"] == "user"]
    return [messages, *(messages[:first] + messages[i:] for i in starts)]


def _overflow(model: LoadedModel, request: GenerationParams) -> ContextOverflow:
    extra = request.extra_body or ExtraBody()
    sliding: ContextOverflow | None = "shift" if model.options.sliding_window_size else None
    return extra.context_overflow or model.options.context_overflow or sliding or "error"


def _sequences(
    model: LoadedModel,
    request: GenerationParams,
    prompt_ids: list[int],
    stop_ids: frozenset[int] = frozenset(),
) -> list[Sequence]:
    _check_vocabulary(model, request, prompt_ids)
    token_ids = array("I", prompt_ids)
    shift = None
    room = window = model.context_window_size
    if _overflow(model, request) == "shift":
        shift = ContextShift(window, min(model.attention_sink_size, window // 2))
        if len(token_ids) >= window:
            token_ids = shift.shifted(token_ids)
    else:
        room = _room(model, request, token_ids)
    max_tokens = request.max_tokens or room
    if shift is None:
        max_tokens = min(max_tokens, room)
    seed = random.getrandbits(32) if request.seed is None else request.seed
    stop_ids |= frozenset() if request.ignore_eos else model.tokenizer.eos_ids
    edits = _edits(model, request, token_ids, max_tokens)
    return [
        Sequence(
            token_ids,
            SequenceParams(
                max_tokens=max_tokens,
                stop_ids=stop_ids,
                sampling=_sampling(model.options, request, seed + choice * _SEED_STEP),
                shift=shift,
            ),
            edits.copy(),
        )
        for choice in range(request.n or 1)
    ]


def _check_vocabulary(model: LoadedModel, request: GenerationParams, token_ids: list[int]) -> None:
    """Images' tokens, a wrong file, or made-up ids."""
    vocab_size = model.runner.program.vocab_size
    for token_id in (min(token_ids, default=0), max(token_ids, default=0)):
        if not 0 <= token_id < vocab_size:
            raise RequestError(
                f"the prompt has token {token_id}, the model knows {vocab_size}; leave that "
                "control token out",
                field=_prompt_field(request),
            )


def _room(model: LoadedModel, request: GenerationParams, token_ids: array[int]) -> int:
    """Tokens the context window has left behind the prompt."""
    room = model.context_window_size - len(token_ids)
    if room < 1:
        raise ContextLengthError(
            f"the prompt has {len(token_ids)} tokens, the context window "
            f"{model.context_window_size}; shorten the prompt, load the model with a larger "
            'context_window_size, or choose context_overflow "shift" or '
            '"truncate_oldest_messages"',
            field=_prompt_field(request),
        )
    return room


def _prompt_field(request: GenerationParams) -> str:
    if isinstance(request, ChatCompletionRequest):
        return "messages"
    return "prompt" if isinstance(request, CompletionRequest) else "input_ids"


def _sampling(options: ChatOptions, request: GenerationParams, seed: int) -> Sampling:
    temperature = _first(request.temperature, options.temperature, 1.0)
    return Sampling(
        temperature=temperature if temperature >= _LOWEST_TEMPERATURE else 0.0,
        top_p=_first(request.top_p, options.top_p, 1.0),
        min_p=request.min_p or 0.0,
        top_k=request.top_k or 0,
        seed=seed & 0xFFFFFFFF,
        repetition_penalty=_first(request.repetition_penalty, options.repetition_penalty, 1.0),
        frequency_penalty=_first(request.frequency_penalty, options.frequency_penalty, 0.0),
        presence_penalty=_first(request.presence_penalty, options.presence_penalty, 0.0),
        num_logprobs=request.top_logprobs or 0 if request.logprobs else None,
    )


def _edits(
    model: LoadedModel, request: GenerationParams, token_ids: array[int], max_tokens: int
) -> LogitEdits:
    sampling = _sampling(model.options, request, seed=0)
    biases = request.logit_bias or {}
    vocab_size = model.runner.program.vocab_size
    for token_id in biases:
        if not 0 <= token_id < vocab_size:
            raise RequestError(
                f"logit_bias names token {token_id}, the vocabulary has {vocab_size}: give ids "
                f"from 0 to {vocab_size - 1}",
                field="logit_bias",
            )
    repeats = sampling.repetition_penalty != 1
    counts = repeats or bool(sampling.frequency_penalty or sampling.presence_penalty)
    edits = LogitEdits(biases, token_ids if repeats else (), counts=counts)
    most = len(edits) + (max_tokens if counts else 0)
    if min(most, vocab_size) > MAX_EDITS:
        raise RequestError(
            f"logit_bias and penalties could concern {most} tokens, {MAX_EDITS} are allowed; "
            "lower max_tokens or leave the penalties out",
            field="max_tokens",
        )
    return edits


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _refuse(**fields: object) -> None:
    """Fields that are read but not served yet."""
    for name, value in fields.items():
        if value:
            raise RequestError(f"{name} is not supported yet; leave it out", field=name)
