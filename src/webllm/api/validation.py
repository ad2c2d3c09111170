"""Reads requests from plain data and checks them, as WebLLM and OpenAI do.

A wrong field raises a RequestError that names the field, the value received and the values allowed.
Checks that depend on the loaded model (context window, vocabulary) are the engine's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import msgspec

from webllm.api.messages import ChatCompletionMessageParam, RequestStruct
from webllm.api.requests import (
    UNSUPPORTED_CHAT_FIELDS,
    UNSUPPORTED_COMPLETION_FIELDS,
    UNSUPPORTED_EMBEDDING_FIELDS,
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingRequest,
    ExtraBody,
    GenerationParams,
    ResponseFormat,
    Resumable,
)
from webllm.errors import RequestError
from webllm.plain_data import did_you_mean, explained, field_of, short

MAX_CHOICES = 128
MAX_TOP_LOGPROBS = 20
MAX_TOP_K = 2**31 - 1
MAX_ID_CHARS = 256  # of a session or a request
_MAX_DIGITS = 20  # in a token id that is written as a string

_Request = TypeVar("_Request", bound=RequestStruct)


def chat_completion_request(
    request: ChatCompletionRequest | Mapping[str, object],
) -> ChatCompletionRequest:
    """Reads and checks a request; raises RequestError."""
    checked = _read(request, ChatCompletionRequest, UNSUPPORTED_CHAT_FIELDS)
    _check_generation(checked)
    _check_messages(checked.messages)
    _check_tools(checked)
    if checked.response_format is not None:
        _check_response_format(checked.response_format)
    return checked


def completion_request(request: CompletionRequest | Mapping[str, object]) -> CompletionRequest:
    """Reads and checks a request; raises RequestError."""
    checked = _read(request, CompletionRequest, UNSUPPORTED_COMPLETION_FIELDS)
    _check_generation(checked)
    return checked


def embedding_request(request: EmbeddingRequest | Mapping[str, object]) -> EmbeddingRequest:
    """Reads and checks a request; raises RequestError."""
    checked = _read(request, EmbeddingRequest, UNSUPPORTED_EMBEDDING_FIELDS)
    parts = [checked.input] if isinstance(checked.input, str) else checked.input
    if not parts or "" in parts or [] in parts:
        raise RequestError(
            "input is empty or has an empty part; leave empty parts out", field="input"
        )
    if len({type(part) for part in parts}) > 1:
        raise RequestError(
            "input mixes texts and token ids; give a text, its token ids, or a list of either",
            field="input",
        )
    return checked


def checked_id(name: str, value: object) -> str:
    """Returns the id of a session or a request; raises RequestError for what cannot be one."""
    if not isinstance(value, str):
        raise RequestError(f"{name} is {short(value)}; it has to be a text", field=name)
    if not 0 < len(value) <= MAX_ID_CHARS:
        raise RequestError(
            f"{name} has {len(value)} characters, received {short(value)}; an id has 1 to "
            f"{MAX_ID_CHARS}",
            field=name,
        )
    if not _is_encodable(value):
        raise RequestError(
            f"{name} is {short(value)}, with half a surrogate pair; leave that out", field=name
        )
    return value


def checked_ids(name: str, values: object) -> Collection[str] | None:
    """Returns ids, or None for all; raises RequestError for one text in place of a list."""
    if values is None:
        return None
    if isinstance(values, str) or not isinstance(values, Collection):
        raise RequestError(f"{name} is {short(values)}; give a list of ids, or None", field=name)
    return [checked_id(f"{name}[{i}]", value) for i, value in enumerate(values)]


def checked_flag(name: str, value: object) -> bool:
    """Returns a bool; raises RequestError for anything else than it or None."""
    if value is not None and not isinstance(value, bool):
        raise RequestError(f"{name} is {short(value)}; give True or False", field=name)
    return value is True


def _read(
    request: RequestStruct | Mapping[str, object],
    kind: type[_Request],
    unsupported: Mapping[str, str],
) -> _Request:
    try:
        fields: dict[str, Any] = msgspec.to_builtins(request)
    except TypeError as error:
        raise RequestError(f"a request must be plain data: {error}") from None
    except RecursionError:
        raise RequestError("the request is nested too deeply; flatten it") from None
    if not isinstance(fields, dict):
        raise RequestError(
            f"a request must be a mapping of fields to values, received {short(request)}"
        )
    _rename_max_tokens(fields)
    for name in fields:
        if name in unsupported and fields[name] is not None:
            raise RequestError(f"{name} is not supported; {unsupported[name]}", field=name)
    fields = {k: v for k, v in _without_none(fields).items() if k not in unsupported}
    fields = snake_case_resumable(fields)
    if isinstance(fields.get("messages"), list):
        messages = [_without_none(message) for message in fields["messages"]]
        fields["messages"] = [*map(_first_message, messages[:1]), *messages[1:]]
    _check_names(fields, kind)
    if isinstance(fields.get("logit_bias"), dict):
        fields["logit_bias"] = _by_token_id(fields["logit_bias"])
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise RequestError(explained(error, fields, kind), field=field_of(error)) from None
    except UnicodeEncodeError as error:
        raise RequestError(
            f"the request has {short(error.object)}, with half a surrogate pair; leave that out"
        ) from None


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _without_none(fields: Any) -> Any:
    """Removes fields that are None, which is the same as leaving them out."""
    if not isinstance(fields, dict):
        return fields
    return {name: value for name, value in fields.items() if value is not None}


def _first_message(fields: Any) -> Any:
    """Renames the role "developer", OpenAI's newer name of "system"."""
    if isinstance(fields, dict) and fields.get("role") == "developer":
        return fields | {"role": "system"}
    return fields


def snake_case_resumable(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Renames the fields of `extra_body.resumable`, which WebLLM spells in camelCase.

    Raises RequestError for a field that is given in both spellings.
    """
    match fields.get("extra_body"):
        case {"resumable": dict(resumable), **extra}:
            renamed: dict[str, Any] = {}
            for given, value in _without_none(resumable).items():
                name = re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", str(given))
                if name in renamed:
                    raise RequestError(
                        f"extra_body.resumable has {name} twice, {short(renamed[name])} and "
                        f"{short(value)}; give it in one spelling",
                        field="extra_body",
                    )
                renamed[name] = value
            return {**fields, "extra_body": extra | {"resumable": renamed}}
    return dict(fields)


def _rename_max_tokens(fields: dict[str, Any]) -> None:
    """Renames max_completion_tokens, OpenAI's newer name of max_tokens."""
    newer = fields.pop("max_completion_tokens", None)
    if newer is not None and fields.get("max_tokens") not in (None, newer):
        raise RequestError(
            f"max_tokens is {fields['max_tokens']} and max_completion_tokens, its newer name, "
            f"{newer}; give one of them",
            field="max_completion_tokens",
        )
    if newer is not None:
        fields["max_tokens"] = newer


def _check_names(fields: Mapping[str, object], kind: type[_Request]) -> None:
    known = kind.__struct_fields__
    for name in map(str, fields):
        if name not in known:
            hint = did_you_mean(name, known)
            raise RequestError(f"unknown field {short(name)}; {hint}", field=name)


def _by_token_id(bias: Mapping[object, object]) -> dict[int, object]:
    """Converts keys to integers: both 5 and "5" are token 5, since JSON keys are strings."""
    by_id = {}
    for key, value in bias.items():
        if isinstance(key, str) and key.isascii() and key.isdigit() and len(key) <= _MAX_DIGITS:
            key = int(key)
        if not isinstance(key, int) or not 0 <= key < 10**_MAX_DIGITS:
            raise RequestError(
                f"logit_bias has the key {short(key)}; keys are token ids, 0 or more",
                field="logit_bias",
            )
        by_id[key] = value
    return by_id


def _check_generation(request: GenerationParams) -> None:
    _in_range("temperature", request.temperature, 0, 2)
    _in_range("top_p", request.top_p, 0, 1, above=True)
    _in_range("min_p", request.min_p, 0, 1)
    _in_range("top_k", request.top_k, 0, MAX_TOP_K)
    _in_range("frequency_penalty", request.frequency_penalty, -2, 2)
    _in_range("presence_penalty", request.presence_penalty, -2, 2)
    _in_range("repetition_penalty", request.repetition_penalty, 0.01, 100)
    _in_range("max_tokens", request.max_tokens, 1)
    _in_range("n", request.n, 1, MAX_CHOICES)
    _in_range("top_logprobs", request.top_logprobs, 0, MAX_TOP_LOGPROBS)
    for token_id, bias in (request.logit_bias or {}).items():
        if not -100 <= bias <= 100:  # inline, because there may be one for every token
            _in_range(f"logit_bias[{token_id}]", bias, -100, 100)
    extra = request.extra_body or ExtraBody()
    if extra.request_id is not None:
        checked_id("extra_body.request_id", extra.request_id)
    if extra.return_progress and not request.stream:
        raise RequestError(
            "extra_body.return_progress is True, which needs stream=True: a whole answer comes at "
            "once",
            field="extra_body",
        )
    check_resumable(extra.resumable, request.stream is True)
    if request.top_logprobs is not None and not request.logprobs:
        raise RequestError("top_logprobs needs logprobs=True", field="top_logprobs")
    if request.stream_options is not None and not request.stream:
        raise RequestError("stream_options needs stream=True", field="stream_options")
    if "" in request.stop_strings:
        raise RequestError("stop contains an empty string; leave it out", field="stop")


def check_resumable(resumable: Resumable | None, is_stream: bool) -> None:
    """Raises RequestError for wrong values."""
    if resumable is None:
        return
    if resumable.session_id is not None:
        checked_id("extra_body.resumable.session_id", resumable.session_id)
    start = resumable.from_token
    for num in start if isinstance(start, list) else [start]:
        _in_range("extra_body.resumable.from_token", num, 0)
    if start is not None and not is_stream:
        raise RequestError(
            f"extra_body.resumable.from_token is {short(start)}, which needs stream=True: a whole "
            "answer has all tokens",
            field="extra_body",
        )


def _in_range(
    name: str, value: float | None, low: float, high: float = math.inf, *, above: bool = False
) -> None:
    """Raises RequestError unless `value` is None or in the range; `above` excludes `low` itself."""
    if value is None or ((low < value if above else low <= value) and value <= high):
        return
    start = f"above {low}" if above else f"at least {low}"
    end = "" if math.isinf(high) else f" and at most {high}"
    raise RequestError(
        f"{name} is {short(value)}; it has to be {start}{end}", field=name.partition("[")[0]
    )


def _check_messages(messages: list[ChatCompletionMessageParam]) -> None:
    if not messages:
        raise RequestError("messages is empty; give at least one user message", field="messages")
    for i, message in enumerate(messages):
        path = f"messages[{i}]"
        if message.role in ("system", "developer") and i > 0:
            raise RequestError(
                f"{path}.role is {message.role!r}; only the first message may have this role",
                field=f"{path}.role",
            )
        _check_message(path, message)
    last = messages[-1].role
    if last not in ("user", "tool"):
        path = f"messages[{len(messages) - 1}].role"
        raise RequestError(
            f"{path} is {last!r}; the last message has to be from 'user' or 'tool'", field=path
        )


def _check_message(path: str, message: ChatCompletionMessageParam) -> None:
    if message.content is None and not message.tool_calls:
        raise RequestError(f"{path}.content is missing", field=f"{path}.content")
    if message.tool_calls is not None and message.role != "assistant":
        raise RequestError(
            f"{path}.tool_calls belongs to role 'assistant', not {message.role!r}",
            field=f"{path}.tool_calls",
        )
    if (message.tool_call_id is None) == (message.role == "tool"):
        needs = "is missing" if message.role == "tool" else "belongs to role 'tool'"
        raise RequestError(f"{path}.tool_call_id {needs}", field=f"{path}.tool_call_id")
    for i, part in enumerate(message.content if isinstance(message.content, list) else ()):
        at = f"{path}.content[{i}]"
        if part.type != "text":
            kind = "an image" if part.type == "image_url" else "audio"
            raise RequestError(f"{at} is {kind}; only text is supported", field=at)
        if part.text is None:
            raise RequestError(f"{at}.text is missing", field=f"{at}.text")


def _check_tools(request: ChatCompletionRequest) -> None:
    names = [tool.function.name for tool in request.tools or ()]
    choice = request.tool_choice
    if choice is None or choice == "none":
        return
    if not names:
        raise RequestError("tool_choice needs tools", field="tool_choice")
    if not isinstance(choice, str) and choice.function.name not in names:
        raise RequestError(
            f"tool_choice names {choice.function.name!r}; tools are {', '.join(names)}",
            field="tool_choice",
        )


def _check_response_format(response_format: ResponseFormat) -> None:
    """Checks that `type` and the field that it needs are given together."""
    if response_format.type == "structural_tag":
        raise RequestError(
            "response_format.type is 'structural_tag', which is not supported; give 'json_schema' "
            "or 'grammar'",
            field="response_format",
        )
    for name, kind in (
        ("schema", "json_object"),
        ("grammar", "grammar"),
        ("json_schema", "json_schema"),
    ):
        if getattr(response_format, name) is not None and response_format.type != kind:
            raise RequestError(
                f"response_format.{name} needs type {kind!r}, received {response_format.type!r}",
                field="response_format",
            )
    for name in ("grammar", "json_schema"):
        if response_format.type == name and getattr(response_format, name) is None:
            raise RequestError(
                f"response_format.{name} is missing; type {name!r} needs it",
                field="response_format",
            )
