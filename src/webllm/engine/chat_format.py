"""How a conversation becomes a prompt: the model's Jinja template or WebLLM's `conv_template`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from webllm.errors import TemplateError
from webllm.text.chat_template import ChatTemplate
from webllm.text.conv_template import ConvTemplate
from webllm.text.special_tokens import GUARD
from webllm.text.tokenizer import Tokenizer

_NO_THOUGHT = "<think>\n\n</think>\n\n"  # as WebLLM has it

Messages = Sequence[Mapping[str, object]]


class ChatFormat(Protocol):
    """`stop_strings` and `stop_ids` end an answer, besides those of the request."""

    stop_strings: tuple[str, ...]
    stop_ids: frozenset[int]

    def encode(
        self, messages: Messages, tokenizer: Tokenizer, enable_thinking: bool = True
    ) -> list[int]:
        """Token ids of the prompt for the next answer; raises TemplateError or RequestError.

        Control tokens come from the template alone: in a message their spelling is only text.
        Without `enable_thinking` a model that would think first is made to answer at once.
        """


class JinjaFormat:
    stop_strings: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template

    def encode(
        self, messages: Messages, tokenizer: Tokenizer, enable_thinking: bool = True
    ) -> list[int]:
        guarded = _guarded(messages, tokenizer)
        try:
            prompt = self._template.render(guarded, enable_thinking=enable_thinking)
        except TemplateError as error:  # may quote a message
            raise TemplateError(str(error).replace(GUARD, "")) from error
        return tokenizer.encode_prompt(prompt)


class ConvFormat:
    def __init__(self, template: ConvTemplate) -> None:
        self._template = template
        self.stop_strings = tuple(template.stop_str)
        self.stop_ids = frozenset(template.stop_token_ids)

    def encode(
        self, messages: Messages, tokenizer: Tokenizer, enable_thinking: bool = True
    ) -> list[int]:
        prompt = self._template.render(_guarded(messages, tokenizer))
        if not enable_thinking:
            prompt += _NO_THOUGHT
        token_ids = tokenizer.encode_prompt(prompt)
        return [*(self._template.system_prefix_token_ids or ()), *token_ids]


def _guarded(value: Any, tokenizer: Tokenizer) -> Any:
    """Plain data with every text in it, names included, guarded."""
    if isinstance(value, str):
        return tokenizer.guard(value)
    if isinstance(value, Mapping):
        return {_guarded(k, tokenizer): _guarded(v, tokenizer) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_guarded(each, tokenizer) for each in value]
    return value
