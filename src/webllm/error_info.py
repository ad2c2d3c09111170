"""Errors as plain data, which crosses to another process or page, and back.

Knows every class of `webllm.errors`; any other error is rebuilt as a WebLLMError.
"""

from __future__ import annotations

import msgspec

from webllm import errors
from webllm.errors import WebLLMError

_CLASSES: dict[str, type[WebLLMError]] = {
    name: each
    for name, each in vars(errors).items()
    if isinstance(each, type) and issubclass(each, WebLLMError)
}


class ErrorInfo(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An error, to be raised again on the other side."""

    name: str
    message: str
    code: str
    status: int
    field: str | None = None  # of the request that is wrong
    url: str | None = None  # of what is not as promised
    expected: str | None = None
    actual: str | None = None


def describe(error: Exception) -> ErrorInfo:
    """Describes an error of any class."""
    kind = error if isinstance(error, WebLLMError) else WebLLMError
    text = str(error).encode(errors="backslashreplace").decode()  # a path may be no valid text
    return ErrorInfo(
        name=type(error).__name__,
        message=text,
        code=kind.code,
        status=kind.status,
        **{name: getattr(error, name, None) for name in kind.fields},
    )


def rebuild(info: ErrorInfo) -> WebLLMError:
    """Returns the error described; one of an unknown class keeps its name, code and status."""
    kind = _CLASSES.get(info.name)
    if kind is None:
        unknown = WebLLMError(f"{info.name}: {info.message}")
        unknown.code, unknown.status = info.code, info.status
        return unknown
    return kind(info.message, *(getattr(info, name) for name in kind.fields))


def rebuild_text(text: str) -> WebLLMError:
    """Returns the error of a text "Name: message", all that WebLLM's workers give."""
    name, _, message = text.partition(": ")
    return _CLASSES[name](message) if name in _CLASSES else WebLLMError(text)
