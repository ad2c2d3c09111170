"""MLC's `conv_template`: a conversation format as JSON, from a model's `mlc-chat-config.json`.

Fields and rendering follow mlc-llm's `conversation_protocol.Conversation`, with one difference:
placeholders in a user's text are not replaced.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from webllm.errors import ConfigError, RequestError

_SYSTEM = "{system_message}"
_FUNCTION = "{function_string}"
_PLACEHOLDERS = {
    "user": "{user_message}",
    "assistant": "{assistant_message}",
    "tool": "{tool_message}",
}


class ConvTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation format; names and defaults are MLC's.

    `seps` holds one separator for all messages, or two: one after user and tool messages, one after
    the assistant's. `system_prefix_token_ids` are put before the encoded prompt, instead of the BOS
    that `encode` would add.
    """

    roles: dict[str, str]
    seps: list[str]
    name: str | None = None
    system_template: str = _SYSTEM
    system_message: str = ""
    system_prefix_token_ids: list[int] | None = None
    add_role_after_system_message: bool = True
    role_templates: dict[str, str] = {}
    messages: list[tuple[str, str | None]] = []
    role_content_sep: str = ""
    role_empty_sep: str = ""
    stop_str: list[str] = []
    stop_token_ids: list[int] = []
    function_string: str = ""
    use_function_calling: bool = False

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        function_string: str | None = None,
        add_generation_prompt: bool = True,
    ) -> str:
        """Renders the prompt for OpenAI-style `messages`; a system message replaces the template's.

        `function_string` describes the tools, see `describe_tools`. Raises RequestError for a role
        that the template does not have and for content that is not text.
        """
        functions = self.function_string if function_string is None else function_string
        pieces = list(self._pieces(messages))
        last = max((i for i, piece in enumerate(pieces) if _FUNCTION in piece.form), default=None)
        prompt = [piece.fill(functions if i == last else "") for i, piece in enumerate(pieces)]
        if add_generation_prompt:
            prompt.append(self.roles["assistant"] + self.role_empty_sep)
        return "".join(prompt)

    def _pieces(self, messages: Sequence[Mapping[str, Any]]) -> Iterator[_Piece]:
        """Yields the system prompt, if there is one, and the turns."""
        turns = [{"role": role, "content": content} for role, content in self.messages]
        turns += [dict(message) for message in messages if message.get("role") != "system"]
        system = self._system([m for m in messages if m.get("role") == "system"])
        has_system = system.form.replace(_SYSTEM, system.content) != ""
        if has_system:
            yield system
        for index, turn in enumerate(turns):
            role = self._role(turn)
            if turn.get("content") is None:
                yield _Piece(self.roles[role] + self.role_empty_sep)
                continue
            merged = has_system and index == 0 and not self.add_role_after_system_message
            before = "" if merged else self.roles[role] + self.role_content_sep
            placeholder = _PLACEHOLDERS[role]
            form = self.role_templates.get(role, placeholder)
            yield _Piece(before)
            for text in _texts(turn):
                yield _Piece(form, placeholder, text)
            yield _Piece(self.seps[-1] if role == "assistant" else self.seps[0])

    def _system(self, given: Sequence[Mapping[str, Any]]) -> _Piece:
        if not given:  # the template's own message may hold the function placeholder
            return _Piece(self.system_template.replace(_SYSTEM, self.system_message))
        return _Piece(self.system_template, _SYSTEM, "".join(_texts(given[-1])))

    def _role(self, turn: Mapping[str, Any]) -> str:
        role = turn.get("role")
        if role not in self.roles or role not in _PLACEHOLDERS:
            known = ", ".join(self.roles)
            raise RequestError(f"role {role!r} is not one of: system, {known}", field="messages")
        return str(role)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Part of a prompt: `form`, whose placeholders stand for `content` and the tools."""

    form: str
    placeholder: str = ""
    content: str = ""

    def fill(self, functions: str) -> str:
        """Returns the text; the last function placeholder becomes `functions`, others vanish."""
        before, mark, after = self.form.rpartition(_FUNCTION)
        filled = [self._with_content(before.replace(_FUNCTION, "")), functions if mark else ""]
        return "".join([*filled, self._with_content(after)])

    def _with_content(self, form: str) -> str:
        return form.replace(self.placeholder, self.content) if self.placeholder else form


def conv_template_from_json(value: Mapping[str, object]) -> ConvTemplate:
    """Makes a `ConvTemplate` from a JSON object; raises ConfigError, naming the wrong field."""
    try:
        template = msgspec.convert(dict(value), ConvTemplate)
    except msgspec.ValidationError as error:
        raise ConfigError(f"conv_template: {error}") from error
    if len(template.seps) not in (1, 2):
        raise ConfigError(f"conv_template: seps must have 1 or 2 entries, has {template.seps}")
    if not {"user", "assistant"} <= template.roles.keys():
        raise ConfigError(
            f"conv_template: roles must have user and assistant, has {list(template.roles)}"
        )
    return template


def describe_tools(tools: Sequence[Mapping[str, Any]], tool_choice: Any = "auto") -> str:
    """Returns MLC's function string: all tools as JSON, or the one that `tool_choice` names."""
    functions = [tool["function"] for tool in tools]
    if tool_choice == "none" or not functions:
        return ""
    if isinstance(tool_choice, str):
        return json.dumps(functions)
    wanted = tool_choice["function"]["name"]
    for function in functions:
        if function["name"] == wanted:
            return json.dumps(function)
    raise RequestError(f"tool_choice names {wanted!r}, which is not in tools", field="tool_choice")


def _texts(message: Mapping[str, Any]) -> list[str]:
    """The texts in a message's content or in its parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return [content]
    texts = [part.get("text") for part in content if part.get("type") == "text"]
    if len(texts) != len(content) or not all(isinstance(text, str) for text in texts):
        raise RequestError("only text content is supported here", field="messages")
    return texts
