"""Errors across a port: described by name in the worker, rebuilt as the same class in the client.

Knows every class of `webllm.errors`; any other error arrives as a WebLLMError.
"""

from __future__ import annotations

from typing import cast

import msgspec

from webllm import errors
from webllm.errors import RequestError, WebLLMError
from webllm.workers.messages import ErrorInfo, Throw

_CLASSES: dict[str, type[WebLLMError]] = {
    name: each
    for name, each in vars(errors).items()
    if isinstance(each, type) and issubclass(each, WebLLMError)
}


def throw(uuid: str | int, error: Exception) -> Throw:
    """The answer that says what went wrong, to WebLLM's clients and to ours.

    `uuid`: that of the request as it came, also if it should have been text.
    """
    info = describe(error)
    return Throw(uuid=cast(str, uuid), content=f"{info.name}: {info.message}", error=info)


def describe(error: Exception) -> ErrorInfo:
    if isinstance(error, msgspec.ValidationError):  # of a message
        known = error.__cause__
        error = known if isinstance(known, WebLLMError) else RequestError(str(error))
    kind = error if isinstance(error, WebLLMError) else WebLLMError
    text = str(error).encode(errors="backslashreplace").decode()  # paths may be no valid text
    return ErrorInfo(
        name=type(error).__name__,
        message=text,
        code=kind.code,
        status=kind.status,
        **{name: getattr(error, name, None) for name in kind.fields},
    )


def rebuild(thrown: Throw) -> WebLLMError:
    """The error that a worker threw; WebLLM's workers give its text alone, "Name: message"."""
    info = thrown.error
    if not isinstance(info, ErrorInfo):
        name, _, message = thrown.content.partition(": ")
        return _CLASSES[name](message) if name in _CLASSES else WebLLMError(thrown.content)
    kind = _CLASSES.get(info.name)
    if kind is None:
        unknown = WebLLMError(thrown.content)
        unknown.code, unknown.status = info.code, info.status
        return unknown
    return kind(info.message, *(getattr(info, name) for name in kind.fields))
