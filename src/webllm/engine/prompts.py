"""From requests to sequences: prompt token ids, and how each choice goes on and ends."""

from __future__ import annotations

import random
from collections.abc import Sequence as Tokens
from dataclasses import dataclass

from webllm.api.requests import (
    ChatCompletionRequest,
    CompletionRequest,
    ExtraBody,
    GenerationParams,
)
from webllm.config import ChatOptions
from webllm.engine.loading import LoadedModel
from webllm.engine.sequence import Sequence, SequenceParams
from webllm.errors import ContextLengthError, RequestError, TemplateError
from webllm.ops.step import MAX_BIASES, Sampling

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
    if model.chat_format is None:
        raise TemplateError(
            f"{model.model_id} has no chat template; use completions, or give a conv_template in "
            "the chat options"
        )
    messages = [{"role": m.role, "content": m.text} for m in request.messages]
    chat_format = model.chat_format
    token_ids = chat_format.encode(messages, model.tokenizer)
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


def _sequences(
    model: LoadedModel,
    request: GenerationParams,
    token_ids: Tokens[int],
    stop_ids: frozenset[int] = frozenset(),
) -> list[Sequence]:
    _refuse_generation(model.options, request)
    vocab_size = model.runner.program.vocab_size
    if (highest := max(token_ids, default=0)) >= vocab_size:  # images' tokens, or a wrong file
        raise RequestError(
            f"the prompt has token {highest}, the model knows {vocab_size}; leave that control "
            "token out"
        )
    room = model.context_window_size - len(token_ids)
    if room < 1:
        raise ContextLengthError(
            f"the prompt has {len(token_ids)} tokens, the context window "
            f"{model.context_window_size}; shorten the prompt or load the model with a larger "
            "context_window_size",
            field="messages" if isinstance(request, ChatCompletionRequest) else "prompt",
        )
    seed = random.getrandbits(32) if request.seed is None else request.seed
    stop_ids |= frozenset() if request.ignore_eos else model.tokenizer.eos_ids
    biases = _biases(model, request)
    return [
        Sequence(
            token_ids,
            SequenceParams(
                max_tokens=min(request.max_tokens or room, room),
                stop_ids=stop_ids,
                sampling=_sampling(model, request, seed + choice * _SEED_STEP),
                biases=biases,
            ),
        )
        for choice in range(request.n or 1)
    ]


def _sampling(model: LoadedModel, request: GenerationParams, seed: int) -> Sampling:
    return Sampling(
        temperature=_first(request.temperature, model.options.temperature, 1.0),
        top_p=_first(request.top_p, model.options.top_p, 1.0),
        min_p=request.min_p or 0.0,
        top_k=request.top_k or 0,
        seed=seed & 0xFFFFFFFF,
    )


def _biases(model: LoadedModel, request: GenerationParams) -> tuple[tuple[int, float], ...]:
    biases = request.logit_bias or {}
    vocab_size = model.runner.program.vocab_size
    if len(biases) > MAX_BIASES:
        raise RequestError(
            f"logit_bias has {len(biases)} entries, {MAX_BIASES} are allowed", field="logit_bias"
        )
    for token_id in biases:
        if not 0 <= token_id < vocab_size:
            raise RequestError(
                f"logit_bias names token {token_id}, the vocabulary has {vocab_size}: give ids "
                f"from 0 to {vocab_size - 1}",
                field="logit_bias",
            )
    return tuple(biases.items())


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _refuse_generation(options: ChatOptions, request: GenerationParams) -> None:
    """Penalties may come from the model's options too; theirs of 0 and 1 do nothing."""
    repetition = _first(request.repetition_penalty, options.repetition_penalty, 1.0)
    extra = request.extra_body or ExtraBody()
    _refuse(
        logprobs=request.logprobs,
        frequency_penalty=_first(request.frequency_penalty, options.frequency_penalty, 0.0),
        presence_penalty=_first(request.presence_penalty, options.presence_penalty, 0.0),
        repetition_penalty=repetition != 1,
        enable_thinking=extra.enable_thinking is False,
        enable_latency_breakdown=extra.enable_latency_breakdown,
    )


def _refuse(**fields: object) -> None:
    """Fields that are read but not served yet."""
    for name, value in fields.items():
        if value:
            raise RequestError(f"{name} is not supported yet; leave it out", field=name)
