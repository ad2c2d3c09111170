"""Encodes prompts, and applies the policy for prompts that outgrow the context window.

Text that is certainly too long is refused or cut before it is tokenized, so that no prompt costs
more than one that fits. The functions are `Steps`, so that other requests can run while a long text
is encoded.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

from webllm.api.requests import (
    ChatCompletionRequest,
    CompletionRequest,
    ExtraBody,
    GenerationParams,
)
from webllm.config import ContextOverflow
from webllm.engine.chat_format import ChatFormat, guarded
from webllm.engine.loaded_model import LoadedModel
from webllm.engine.sequence import ContextShift
from webllm.errors import ContextLengthError
from webllm.text.steps import Steps

_MANY_CHARS_PER_TOKEN = 8  # most texts have fewer
_USUAL_TOKENS_PER_CHAR = 0.25
MESSAGE_CHARS = 24  # that a template adds to a message, roughly
_NUM_GUESSES = 4  # of the number of turns that fit, before the search bisects
_SPARE_TOKENS = 16  # encoded beyond a cut, since half a word may have other tokens

# The request field that holds the prompt, which errors name.
PROMPT_FIELDS: dict[type[GenerationParams], str] = {
    ChatCompletionRequest: "messages",
    CompletionRequest: "prompt",
    GenerationParams: "input_ids",  # of `forward_tokens_and_sample`
}

Encode = Callable[[str], Steps[list[int]]]


def conversation_tokens(
    model: LoadedModel, chat_format: ChatFormat, request: ChatCompletionRequest
) -> Steps[list[int]]:
    """Returns the token ids of a conversation.

    With `truncate_oldest_messages`, the oldest turns are left out until the rest fits. Raises
    RequestError, ContextLengthError or TemplateError.
    """
    extra = request.extra_body or ExtraBody()
    messages = [{"role": m.role, "content": m.text} for m in request.messages]
    messages = yield from guarded(messages, model.tokenizer)
    render = partial(chat_format.render, enable_thinking=extra.enable_thinking is not False)

    def encode(prompt: str) -> Steps[list[int]]:
        token_ids = yield from model.tokenizer.encode_prompt_steps(prompt)
        return [*chat_format.prefix_ids, *token_ids]

    if overflow(model, request) == "truncate_oldest_messages":
        window = model.context_window_size
        room = window - min(request.max_tokens or window // 4, window - 1)
        turns = _Turns(messages)
        fitting = yield from _newest_turns(model, turns, render, encode, room)
        if fitting is not None:
            return fitting
        messages = turns.since(-1)
    return (yield from text_tokens(model, request, render(messages), encode))


def raw_tokens(model: LoadedModel, request: CompletionRequest) -> Steps[list[int]]:
    """Returns the token ids of a raw prompt, without a template. Raises ContextLengthError."""
    # Control tokens spelled in a raw prompt become control tokens, as in other engines: so a caller
    # can format a conversation by hand.
    encode = partial(model.tokenizer.encode_steps, parse_special=True)
    return text_tokens(model, request, request.prompt, encode)


def text_tokens(
    model: LoadedModel, request: GenerationParams, text: str, encode: Encode
) -> Steps[list[int]]:
    """Returns the token ids of a text. If the context shifts, only the ends of a long one are kept.

    Then only these ends are encoded. They have the same tokens as in the whole text, unless one end
    is a single word of thousands of characters (a run of spaces). Raises ContextLengthError for
    text that cannot fit.
    """
    window = model.context_window_size
    min_tokens = model.tokenizer.min_tokens(text) if len(text) > window else 0
    if min_tokens < window:
        return (yield from encode(text))
    shift = context_shift(model, request)
    if shift is None:
        size = f"{len(text)} characters, which are {min_tokens} tokens or more"
        raise prompt_too_long(model, request, size)
    per_token = model.tokenizer.chars_per_token
    if min_tokens < 2 * window or per_token is None:
        return (yield from encode(text))
    head = yield from encode(text[: per_token * (shift.sink_tokens + _SPARE_TOKENS)])
    tail = yield from encode(text[-per_token * (shift.num_newest + _SPARE_TOKENS) :])
    return [*head[: shift.sink_tokens], *tail[-shift.num_newest :]]


@dataclass(frozen=True, slots=True)
class _Turns:
    """A conversation whose oldest turns can be left out. A turn begins with a user message.

    The system message and the last turn always stay.
    """

    messages: list[dict[str, Any]]

    @property
    def starts(self) -> list[int]:
        """The index of each turn's first message."""
        first = self._num_system
        later = range(first + 1, len(self.messages))
        return [first, *(i for i in later if self.messages[i]["role"] == "user")]

    @property
    def num_chars(self) -> list[int]:
        """For each turn: the characters of the system message and of the turns from this one on."""
        sizes = [len(message["content"]) + MESSAGE_CHARS for message in self.messages]
        left = list(accumulate(reversed(sizes), initial=0))
        system = sum(sizes[: self._num_system])
        return [system + left[len(sizes) - start] for start in self.starts]

    def since(self, turn: int) -> list[dict[str, Any]]:
        """Returns the system message and the turns from this one on."""
        return self.messages[: self._num_system] + self.messages[self.starts[turn] :]

    @property
    def _num_system(self) -> int:
        return 1 if self.messages[0]["role"] == "system" else 0


def _newest_turns(
    model: LoadedModel,
    turns: _Turns,
    render: Callable[[Any], str],
    encode: Encode,
    room: int,
) -> Steps[list[int] | None]:
    """Returns the token ids of the newest turns that fit in `room` tokens; None if none do.

    Searches the turn at which the prompt begins. It guesses by the number of characters, and seldom
    renders more than three prompts.
    """
    tokenizer = model.tokenizer
    num_chars = turns.num_chars
    is_long = num_chars[0] > room * _MANY_CHARS_PER_TOKEN
    tokens_per_char = _USUAL_TOKENS_PER_CHAR if is_long else 0.0
    # A prompt that begins at turn `too_early` is too long; one that begins at turn `fits` fits.
    too_early, fits, fitting = -1, len(num_chars), None
    num_tries = 0
    while fits - too_early > 1:
        turn = bisect_left(num_chars, True, key=lambda size: size * tokens_per_char <= room)
        if num_tries > _NUM_GUESSES and num_tries % 2:
            turn = (too_early + fits) // 2
        turn = min(max(turn, too_early + 1), fits - 1)
        num_tries += 1
        token_ids = None
        prompt = render(turns.since(turn))  # may be far shorter: templates leave out old thoughts
        yield
        if tokenizer.min_tokens(prompt) <= room:
            token_ids = yield from encode(prompt)
            tokens_per_char = len(token_ids) / num_chars[turn]
        if token_ids is not None and len(token_ids) <= room:
            fits, fitting = turn, token_ids
        else:
            too_early = turn
    return fitting


def overflow(model: LoadedModel, request: GenerationParams) -> ContextOverflow:
    """Returns the policy for a prompt or an answer that outgrows the context window."""
    extra = request.extra_body or ExtraBody()
    sliding: ContextOverflow | None = "shift" if model.options.sliding_window_size else None
    return extra.context_overflow or model.options.context_overflow or sliding or "error"


def context_shift(model: LoadedModel, request: GenerationParams) -> ContextShift | None:
    """Returns the rule for a full window; None if its policy is not "shift"."""
    if overflow(model, request) != "shift":
        return None
    window = model.context_window_size
    return ContextShift(window, min(model.attention_sink_size, window // 2))


def prompt_too_long(model: LoadedModel, request: GenerationParams, size: str) -> ContextLengthError:
    """Returns the error for a prompt of this size; it names the policies that could help."""
    shorten, policies = "shorten the prompt", '"shift"'
    if isinstance(request, ChatCompletionRequest):
        if overflow(model, request) == "truncate_oldest_messages":
            shorten = "the system message and the last user turn alone are too long: shorten them"
        else:
            policies = '"shift" or "truncate_oldest_messages"'
    return ContextLengthError(
        f"the prompt has {size}, the context window {model.context_window_size}; {shorten}, load "
        f"the model with a larger context_window_size, or choose context_overflow {policies}",
        field=PROMPT_FIELDS[type(request)],
    )
