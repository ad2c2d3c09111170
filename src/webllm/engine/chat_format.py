"""Turns a conversation into a prompt, by the model's Jinja template or WebLLM's `conv_template`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from webllm.errors import TemplateError
from webllm.text.chat_template import ChatTemplate
from webllm.text.conv_template import ConvTemplate
from webllm.text.special_tokens import GUARD
from webllm.text.steps import Steps
from webllm.text.tokenizer import Tokenizer

_NO_THOUGHT = "<think>\n\n</think>\n\n"  # the same text as WebLLM's

Messages = Sequence[Mapping[str, object]]


class ChatFormat(Protocol):
    """A chat template, with all that it implies for a prompt and its answer.

    stop_strings, stop_ids: end an answer, as the request's own do. prefix_ids: begin every prompt.
    is_program: the template is a program from a model file, so that rendering may take long.
    """

    stop_strings: tuple[str, ...]
    stop_ids: frozenset[int]
    prefix_ids: tuple[int, ...]
    is_program: bool

    def render(self, messages: Messages, enable_thinking: bool = True) -> str:
        """Returns the prompt for the next answer to `guarded` messages.

        Without `enable_thinking`, a reasoning model answers at once. Raises TemplateError or
        RequestError.
        """


class JinjaFormat:
    stop_strings: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()
    prefix_ids: tuple[int, ...] = ()
    is_program = True

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template

    def render(self, messages: Messages, enable_thinking: bool = True) -> str:
        try:
            return self._template.render(messages, enable_thinking=enable_thinking)
        except TemplateError as error:  # its text may quote a message
            raise TemplateError(str(error).replace(GUARD, "")) from error


class ConvFormat:
    is_program = False

    def __init__(self, template: ConvTemplate) -> None:
        self._template = template
        self.stop_strings = tuple(template.stop_str)
        self.stop_ids = frozenset(template.stop_token_ids)
        self.prefix_ids = tuple(template.system_prefix_token_ids or ())

    def render(self, messages: Messages, enable_thinking: bool = True) -> str:
        return self._template.render(messages, reply_start="" if enable_thinking else _NO_THOUGHT)


def guarded(value: Any, tokenizer: Tokenizer) -> Steps[Any]:
    """Returns plain data, with every string in it guarded (`Tokenizer.guard`), also keys.

    Only the template may write control tokens. In a guarded message, their spelling is plain text.
    """
    if isinstance(value, str):
        return (yield from tokenizer.guard_steps(value))
    if isinstance(value, Mapping):
        mapping = {}
        for key, each in value.items():
            mapping[(yield from guarded(key, tokenizer))] = yield from guarded(each, tokenizer)
        return mapping
    if isinstance(value, list | tuple):
        items = list(value)
        for i, each in enumerate(value):
            items[i] = yield from guarded(each, tokenizer)
        return items
    return value
