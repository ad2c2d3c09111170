"""Errors in the JSON form that OpenAI's clients turn into exceptions of their own."""

from __future__ import annotations

import logging

import msgspec

from webllm.error_info import describe
from webllm.errors import WebLLMError

_log = logging.getLogger(__name__)

_UNEXPECTED = "an unexpected error ended this request; the log of the program that serves it has it"


def error_body(error: Exception) -> tuple[int, bytes]:
    """Returns HTTP status and body. Errors that webllm did not raise on purpose, here or in a
    worker, are logged, and their text is kept from the client.
    """
    info = describe(error)
    if isinstance(error, WebLLMError) and info.code != WebLLMError.code:
        return info.status, problem_body(info.status, info.message, info.code, info.field)
    _log.error("a request failed by an unexpected error", exc_info=error)
    return info.status, problem_body(info.status, _UNEXPECTED, info.code)


def problem_body(status: int, message: str, code: str, param: str | None = None) -> bytes:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": param, "code": code}
    return msgspec.json.encode({"error": error})
