"""Turns requests into sequences: prompt token ids, sampling parameters, stop conditions."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, replace
from operator import index

from webllm.api.requests import ChatCompletionRequest, CompletionRequest, GenerationParams
from webllm.config import ChatOptions
from webllm.engine.loaded_model import LoadedModel
from webllm.engine.prompt_tokens import (
    PROMPT_FIELDS,
    context_shift,
    conversation_tokens,
    prompt_too_long,
    raw_tokens,
)
from webllm.engine.sequence import Sequence, SequenceParams
from webllm.errors import RequestError, TemplateError
from webllm.ops.sampling import LogitEdits, SamplingParams
from webllm.ops.step import MAX_EDITS
from webllm.text.steps import Steps

_LOWEST_TEMPERATURE = 1e-5  # below, sampling is greedy: the quotient of logits would overflow
_SEED_STEP = 0x9E3779B9  # between the seeds of a request's choices
_EMPTY = {
    "messages": (
        "the messages become a prompt of no tokens: say something in them, or give a chat "
        "template (conv_template in the chat options) that marks turns"
    ),
    "prompt": "the prompt is empty; give at least one token",
    "input_ids": "input_ids is empty; give at least one token",
}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request that is ready to run: one sequence per choice."""

    token_ids: list[int]
    sequences: list[Sequence]
    stop_strings: tuple[str, ...]


def chat_prompt(model: LoadedModel, request: ChatCompletionRequest) -> Steps[Prompt]:
    """Returns the prompt of a conversation.

    Raises RequestError, ContextLengthError or TemplateError.
    """
    response_format = request.response_format
    if response_format is not None and response_format.type == "text":
        response_format = None  # the default, spelled out
    has_tool_calls = any(m.tool_calls or m.role == "tool" for m in request.messages)
    _check_unsupported(tools=request.tools or has_tool_calls, response_format=response_format)
    chat_format = model.chat_format
    if chat_format is None:
        raise TemplateError(
            f"{model.model_id} has no chat template; use completions, or give a conv_template in "
            "the chat options"
        )
    token_ids = yield from conversation_tokens(model, chat_format, request)
    return prompt_of(model, request, token_ids)


def completion_prompt(model: LoadedModel, request: CompletionRequest) -> Steps[Prompt]:
    """Returns the prompt of a raw text. Raises RequestError or ContextLengthError."""
    token_ids = yield from raw_tokens(model, request)
    return prompt_of(model, request, token_ids)


def prompt_of(model: LoadedModel, request: GenerationParams, token_ids: list[int]) -> Prompt:
    """Returns the prompt of a request whose tokens are known. Raises as the functions above."""
    stop_ids: frozenset[int] = frozenset()
    stop_strings = request.stop_strings
    if isinstance(request, ChatCompletionRequest) and model.chat_format is not None:
        stop_ids = model.chat_format.stop_ids
        stop_strings += model.chat_format.stop_strings
    return Prompt(token_ids, _sequences(model, request, token_ids, stop_ids), stop_strings)


def read_token_ids(input_ids: Iterable[int]) -> list[int]:
    """Returns token ids, of any type of integer, as a list; raises RequestError."""
    try:
        return list(map(index, input_ids))
    except TypeError as error:
        raise RequestError(f"input_ids must be token ids: {error}", field="input_ids") from error


def forwarded_sequence(model: LoadedModel, token_ids: list[int]) -> Sequence:
    """Returns a sequence that samples one token after `token_ids`, by the model's options.

    Raises RequestError or ContextLengthError.
    """
    request = GenerationParams(max_tokens=1, ignore_eos=True, seed=random.getrandbits(32))
    return _sequences(model, request, token_ids)[0]


def _sequences(
    model: LoadedModel,
    request: GenerationParams,
    prompt_ids: list[int],
    stop_ids: frozenset[int] = frozenset(),
) -> list[Sequence]:
    _check_tokens(model, request, prompt_ids)
    token_ids = array("I", prompt_ids)
    room = window = model.context_window_size
    shift = context_shift(model, request)
    if shift is None:
        room = window - len(token_ids)
        if room < 1:
            raise prompt_too_long(model, request, f"{len(token_ids)} tokens")
    elif len(token_ids) >= window:
        token_ids = shift.shifted(token_ids)
    max_tokens = request.max_tokens or room
    if shift is None:
        max_tokens = min(max_tokens, room)
    seed = request.seed
    assert seed is not None
    stop_ids |= frozenset() if request.ignore_eos else model.tokenizer.eos_ids
    sampling = _sampling(model.options, request)
    edits = _edits(model, request, sampling, token_ids, max_tokens)
    return [
        Sequence(
            token_ids,
            SequenceParams(
                max_tokens=max_tokens,
                stop_ids=stop_ids,
                sampling=replace(sampling, seed=(seed + choice * _SEED_STEP) & 0xFFFFFFFF),
                shift=shift,
            ),
            edits.copy(),
        )
        for choice in range(request.n or 1)
    ]


def _check_tokens(model: LoadedModel, request: GenerationParams, token_ids: list[int]) -> None:
    """Raises RequestError for an empty prompt and for ids beyond the vocabulary."""
    field = PROMPT_FIELDS[type(request)]
    if not token_ids:
        raise RequestError(_EMPTY[field], field=field)
    vocab_size = model.vocab_size
    for token_id in (min(token_ids), max(token_ids)):
        if not 0 <= token_id < vocab_size:
            raise RequestError(
                f"the prompt has token {token_id}, the model knows {vocab_size}; leave that "
                "control token out",
                field=field,
            )


def _sampling(options: ChatOptions, request: GenerationParams) -> SamplingParams:
    """Returns the parameters of every choice, except for the seed."""
    temperature = _first(request.temperature, options.temperature, 1.0)
    return SamplingParams(
        temperature=temperature if temperature >= _LOWEST_TEMPERATURE else 0.0,
        top_p=_first(request.top_p, options.top_p, 1.0),
        min_p=request.min_p or 0.0,
        top_k=request.top_k or 0,
        repetition_penalty=_first(request.repetition_penalty, options.repetition_penalty, 1.0),
        frequency_penalty=_first(request.frequency_penalty, options.frequency_penalty, 0.0),
        presence_penalty=_first(request.presence_penalty, options.presence_penalty, 0.0),
        num_logprobs=request.top_logprobs or 0 if request.logprobs else None,
    )


def _edits(
    model: LoadedModel,
    request: GenerationParams,
    sampling: SamplingParams,
    token_ids: array[int],
    max_tokens: int,
) -> LogitEdits:
    vocab_size = model.vocab_size
    biases = _biases(request.logit_bias or {}, vocab_size)
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


def _biases(logit_bias: dict[int, float], vocab_size: int) -> dict[int, float]:
    """Returns the biases of tokens in the vocabulary.

    A negative bias on any other token has no effect; a positive one raises RequestError.
    """
    for token_id, bias in logit_bias.items():
        if token_id < 0 or (token_id >= vocab_size and bias > 0):
            raise RequestError(
                f"logit_bias asks for token {token_id}, the vocabulary has {vocab_size}: give "
                f"ids from 0 to {vocab_size - 1}",
                field="logit_bias",
            )
    return {token_id: bias for token_id, bias in logit_bias.items() if token_id < vocab_size}


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _check_unsupported(**fields: object) -> None:
    """Raises RequestError for fields that are parsed but not supported yet."""
    for name, value in fields.items():
        if value:
            raise RequestError(f"{name} is not supported yet; leave it out", field=name)
