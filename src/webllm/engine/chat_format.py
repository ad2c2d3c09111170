"""How a conversation becomes a prompt: the model's Jinja template or WebLLM's `conv_template`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from webllm.text.chat_template import ChatTemplate
from webllm.text.conv_template import ConvTemplate
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
        # The template writes the control tokens itself, BOS included.
        prompt = self._template.render(messages, enable_thinking=enable_thinking)
        return tokenizer.encode(prompt, parse_special=True, add_special=False)


class ConvFormat:
    def __init__(self, template: ConvTemplate) -> None:
        self._template = template
        self.stop_strings = tuple(template.stop_str)
        self.stop_ids = frozenset(template.stop_token_ids)

    def encode(
        self, messages: Messages, tokenizer: Tokenizer, enable_thinking: bool = True
    ) -> list[int]:
        prompt = self._template.render(messages)
        if not enable_thinking:
            prompt += _NO_THOUGHT
        token_ids = tokenizer.encode(prompt, parse_special=True, add_special=False)
        return [*(self._template.system_prefix_token_ids or ()), *token_ids]
