"""MLC's `conv_template`: a conversation format as JSON, from a model's `mlc-chat-config.json`.

Fields and rendering follow WebLLM's `conversation.ts` and, where it has nothing to say, mlc-llm's
`conversation_protocol.Conversation`, with two differences: placeholders in a user's text are not
replaced, and the `name` of a message does not replace the role that its model was trained with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from webllm.errors import ConfigError, RequestError
from webllm.text.mlc_templates import MLC_TEMPLATES
from webllm.text.special_tokens import GUARD

_SYSTEM = "{system_message}"
_FUNCTION = "{function_string}"
_TOOLS = "{hermes_tools}"
_ROLE_SEP = ": "  # where a template has none
_END_OF_THOUGHT = ("</think>", f"<{GUARD}/think>")
_HERMES = (
    "You are a function calling AI model. You are \nprovided with function signatures within "
    "<tools></tools> XML tags. You may call one or more functions \nto assist with the user query. "
    "Don't make assumptions about what values to plug into functions. Here \nare the available "
    "tools: <tools> {hermes_tools}  </tools>. \nUse the following pydantic model json schema for "
    'each tool call you will make: \n{"properties": {"arguments": {"title": "Arguments", "type": '
    '"object"}, "name": {"title": "Name", "type": "string"}}, "required": ["arguments", "name"], '
    '"title": "FunctionCall", "type": "object"} For each function call return a json object.'
)
_PLACEHOLDERS = {
    "user": "{user_message}",
    "assistant": "{assistant_message}",
    "tool": "{tool_message}",
}


class ConvTemplate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A conversation format; names and defaults are WebLLM's and MLC's.

    `seps` holds one separator for all messages, or two: one after user and tool messages, one after
    the assistant's. `system_prefix_token_ids` are put before the encoded prompt, instead of the BOS
    that `encode` would add. With `strip_reasoning_in_history`, answers before the last user message
    lose their thoughts. Without `render_empty_system_message`, an empty system message has no turn.
    """

    roles: dict[str, str]
    seps: list[str]
    name: str | None = None
    system_template: str = _SYSTEM
    system_message: str = ""
    system_prefix_token_ids: list[int] | None = None
    add_role_after_system_message: bool = True
    render_empty_system_message: bool = True
    role_templates: dict[str, str] | None = None
    messages: list[tuple[str, str | None]] = []
    role_content_sep: str | None = None
    role_empty_sep: str | None = None
    stop_str: list[str] = []
    stop_token_ids: list[int] = []
    strip_reasoning_in_history: bool = False
    function_string: str = ""
    use_function_calling: bool = False

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        function_string: str | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        add_generation_prompt: bool = True,
        reply_start: str = "",
    ) -> str:
        """Renders the prompt for OpenAI-style `messages`; a system message replaces the template's.

        `function_string` describes the tools, see `describe_tools`; `{hermes_tools}` in the system
        prompt of the template becomes `tools` as JSON. `reply_start` begins the answer. Raises
        RequestError for a role that the template does not have and for content that is not text.
        """
        functions = self.function_string if function_string is None else function_string
        pieces = list(self._pieces(messages, tools))
        last = max((i for i, piece in enumerate(pieces) if _FUNCTION in piece.form), default=None)
        prompt = [piece.fill(functions if i == last else "") for i, piece in enumerate(pieces)]
        if add_generation_prompt:
            sep = self.role_content_sep if reply_start else self.role_empty_sep
            prompt += [self.roles["assistant"], _or_default(sep), reply_start]
        return "".join(prompt)

    def _pieces(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
    ) -> Iterator[_Piece]:
        """Yields the system prompt, if there is one, and the turns."""
        turns = [{"role": role, "content": content} for role, content in self.messages]
        turns += [dict(message) for message in messages if message.get("role") != "system"]
        if self.strip_reasoning_in_history:
            turns = list(_without_thoughts(turns))
        system = self._system([m for m in messages if m.get("role") == "system"], tools)
        has_system = system.form.replace(_SYSTEM, system.content) != ""
        if has_system:
            yield system
        for index, turn in enumerate(turns):
            role = self._role(turn)
            if turn.get("content") is None:
                yield _Piece(self.roles[role] + _or_default(self.role_empty_sep))
                continue
            merged = has_system and index == 0 and not self.add_role_after_system_message
            before = "" if merged else self.roles[role] + _or_default(self.role_content_sep)
            placeholder = _PLACEHOLDERS[role]
            form = (self.role_templates or {}).get(role, placeholder)
            yield _Piece(before)
            for text in _texts(turn):
                yield _Piece(form, placeholder, text)
            yield _Piece(self.seps[-1] if role == "assistant" else self.seps[0])

    def _system(
        self, given: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
    ) -> _Piece:
        message = "".join(_texts(given[-1])) if given else self.system_message
        if not message and not self.render_empty_system_message:
            return _Piece("")
        described = _json(tools) if tools else ""
        if not given:  # the template's own message may hold placeholders
            whole = self.system_template.replace(_SYSTEM, message)
            return _Piece(whole.replace(_TOOLS, described))
        return _Piece(self.system_template.replace(_TOOLS, described), _SYSTEM, message)

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


def conv_template_from_json(value: Mapping[str, object] | str) -> ConvTemplate:
    """Makes a `ConvTemplate` from a JSON object, or from the name of one of MLC's own.

    Raises ConfigError, naming the wrong field or the unknown name.
    """
    if isinstance(value, str):
        if value not in MLC_TEMPLATES:
            raise ConfigError(
                f"conv_template {value!r} is not known; known are {', '.join(MLC_TEMPLATES)}: give "
                "the format itself as an object"
            )
        value = {"name": value, **MLC_TEMPLATES[value]}
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


def hermes_system_message(tools: Sequence[Mapping[str, Any]]) -> str:
    """Returns the system message with which WebLLM gives tools to Hermes 2 Pro and Hermes 3."""
    return _HERMES.replace(_TOOLS, _json(tools))


def _json(tools: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps(list(tools), ensure_ascii=False, separators=(",", ":"))


def _or_default(sep: str | None) -> str:
    return _ROLE_SEP if sep is None else sep


def _without_thoughts(turns: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yields the turns; answers before the last question begin after their last thought."""
    last = max((i for i, turn in enumerate(turns) if turn.get("role") == "user"), default=0)
    for i, turn in enumerate(turns):
        content = turn.get("content")
        if i < last and turn.get("role") == "assistant" and isinstance(content, str):
            for end in _END_OF_THOUGHT:
                if end in content:
                    content = content.rpartition(end)[2].lstrip("\n")
        yield {**turn, "content": content}


def _texts(message: Mapping[str, Any]) -> list[str]:
    """The texts in a message's content or in its parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return [content]
    texts = [part.get("text") for part in content if part.get("type") == "text"]
    if len(texts) != len(content) or not all(isinstance(text, str) for text in texts):
        raise RequestError("only text content is supported here", field="messages")
    return texts
