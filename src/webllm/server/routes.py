"""OpenAI's HTTP API over an engine: method, path and body in, a reply out.

It knows no server and no client; others carry requests and replies, over a socket or in the same
process. https://platform.openai.com/docs/api-reference
"""

from __future__ import annotations

import base64
import time
from array import array
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from webllm.api.base import ResponseStruct
from webllm.api.embedding import CreateEmbeddingResponse
from webllm.api.interface import MLCEngineInterface
from webllm.api.model_list import ModelInfo, ModelList
from webllm.api.requests import ExtraBody
from webllm.errors import ModelNotFoundError, QueueFullError, RequestError
from webllm.server.error_body import error_body, problem_body
from webllm.server.event_stream import EventStream

_MODELS = "/v1/models"
_JSON = {"content-type": "application/json"}
_EVENTS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
# OpenAI's clients retry after 409, 429 and 5xx unless a header forbids it; only 429 is worth it.
_ERROR = _JSON | {"x-should-retry": "false"}

_Stream = AsyncGenerator[ResponseStruct, None]


@dataclass(frozen=True, slots=True)
class Reply:
    """A response of the API. A stream that is not read to its end must be closed."""

    status: int
    headers: dict[str, str]
    body: bytes | EventStream


class Routes:
    """Answers any number of concurrent requests; use it in the engine's event loop."""

    def __init__(self, engine: MLCEngineInterface) -> None:
        self._engine = engine
        self._created = int(time.time())  # reported for every model
        self._posts: dict[
            str, Callable[[dict[str, Any]], Awaitable[ResponseStruct | _Stream | bytes]]
        ]
        self._posts = {
            "/v1/chat/completions": self._chat_completion,
            "/v1/completions": self._completion,
            "/v1/embeddings": self._embedding,
        }

    async def answer(self, method: str, path: str, body: bytes) -> Reply:
        """Answers a request, also a failing one; `path` is decoded and begins with "/v1"."""
        try:
            if path in self._posts:
                return await self._post(method, path, body)
            if path == _MODELS or path.startswith(f"{_MODELS}/"):
                return self._get_models(method, path)
        except Exception as error:
            return error_reply(error)
        return _problem(404, f"unknown URL: {method} {path}", "unknown_url")

    async def _post(self, method: str, path: str, body: bytes) -> Reply:
        if method != "POST":
            return _wrong_method(method, path, "POST")
        answer = await self._posts[path](_fields(body))
        if isinstance(answer, bytes):
            return Reply(200, _JSON, answer)
        if isinstance(answer, ResponseStruct):
            return Reply(200, _JSON, msgspec.json.encode(answer))
        return Reply(200, _EVENTS, EventStream(answer))

    def _get_models(self, method: str, path: str) -> Reply:
        if method != "GET":
            return _wrong_method(method, path, "GET")
        ids = self._engine.loaded_model_ids()
        models = [ModelInfo(id=each, created=self._created, owned_by="webllm") for each in ids]
        if path == _MODELS:
            return Reply(200, _JSON, msgspec.json.encode(ModelList(data=models)))
        wanted = path.removeprefix(f"{_MODELS}/")
        for model in models:
            if model.id == wanted:
                return Reply(200, _JSON, msgspec.json.encode(model))
        loaded = ", ".join(ids) or "nothing"
        raise ModelNotFoundError(f"no model called {wanted!r} is loaded; loaded: {loaded}")

    async def _chat_completion(self, fields: dict[str, Any]) -> ResponseStruct | _Stream:
        return await self._engine.chat_completion(_with_extra_body(fields))

    async def _completion(self, fields: dict[str, Any]) -> ResponseStruct | _Stream:
        return await self._engine.completion(_with_extra_body(fields))

    async def _embedding(self, fields: dict[str, Any]) -> ResponseStruct | bytes:
        """Adds base64, which OpenAI's clients ask for by default and the engine does not know."""
        if fields.get("encoding_format") != "base64":
            return await self._engine.embedding(fields)
        reply = await self._engine.embedding(fields | {"encoding_format": "float"})
        return _in_base64(reply)


def error_reply(error: Exception) -> Reply:
    """Makes the reply for an error, in OpenAI's form and with the status of its class."""
    status, body = error_body(error)
    return Reply(status, _JSON if isinstance(error, QueueFullError) else _ERROR, body)


def _problem(status: int, message: str, code: str) -> Reply:
    return Reply(status, _ERROR, problem_body(status, message, code))


def _wrong_method(method: str, path: str, allowed: str) -> Reply:
    reply = _problem(405, f"{method} {path}: the method has to be {allowed}", "method_not_allowed")
    return replace(reply, headers=reply.headers | {"allow": allowed})


def _fields(body: bytes) -> dict[str, Any]:
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the request's body is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise RequestError(
            "the request's body is JSON but not an object; send an object with the request's fields"
        )
    return fields


def _with_extra_body(fields: dict[str, Any]) -> dict[str, Any]:
    """Moves fields back into `extra_body`; OpenAI's clients put them beside the others."""
    extra = {name: fields[name] for name in ExtraBody.__struct_fields__ if name in fields}
    nested = fields.get("extra_body")
    if not extra or not (nested is None or isinstance(nested, dict)):
        return fields
    rest = {name: value for name, value in fields.items() if name not in extra}
    return rest | {"extra_body": (nested or {}) | extra}


def _in_base64(reply: CreateEmbeddingResponse) -> bytes:
    """Encodes embeddings as base64 of 32-bit floats, little-endian."""
    plain = reply.to_dict()
    for each in plain["data"]:
        each["embedding"] = base64.b64encode(array("f", each["embedding"])).decode()
    return msgspec.json.encode(plain)
