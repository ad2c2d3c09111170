"""Errors in the JSON form that OpenAI's clients turn into exceptions of their own."""

from __future__ import annotations

import logging

import msgspec

from webllm.errors import WebLLMError
from webllm.workers.error_info import describe

_log = logging.getLogger(__name__)


def error_body(error: Exception) -> tuple[int, bytes]:
    """HTTP status and body; what webllm did not raise on purpose is also logged."""
    info = describe(error)
    if isinstance(error, WebLLMError):
        return info.status, problem_body(info.status, info.message, info.code, info.field)
    _log.error("a request failed by an unexpected error", exc_info=error)
    return info.status, problem_body(info.status, f"{info.name}: {info.message}", info.code)


def problem_body(status: int, message: str, code: str, param: str | None = None) -> bytes:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": param, "code": code}
    return msgspec.json.encode({"error": error})
