"""What a client has of an answer, and the request that gets the rest from another worker.

Does no I/O.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any, TypeVar

import msgspec

from webllm.api.chat_completion import ChatCompletionChunk
from webllm.api.completion import Completion
from webllm.api.requests import ExtraBody, Resumable
from webllm.api.validation import snake_case_resumable
from webllm.errors import RequestError, WorkerLostError
from webllm.workers.messages import new_uuid

MAX_LOSSES = 5

_Chunk = TypeVar("_Chunk", ChatCompletionChunk, Completion)
_Fields = dict[str, Any]


class Losses:
    """Counts the workers that a call has lost, one after another, without progress between."""

    def __init__(self) -> None:
        self._num = 0

    def reset(self) -> None:
        self._num = 0

    def add(self, error: WorkerLostError) -> None:
        """Raises WorkerLostError once they are too many: perhaps the request itself ends them."""
        self._num += 1
        if self._num >= MAX_LOSSES:
            raise WorkerLostError(
                f"{MAX_LOSSES} workers in a row were lost with this request, without a new token: "
                f"{error}; it may be what ends them, so change it before you send it again, and "
                "read the worker's log"
            ) from error


class Resumption:
    """One request whose answer survives its worker, under the id of a session.

    is_own: the session is this client's alone, which removes it after the answer.
    """

    def __init__(self, fields: _Fields, extra: ExtraBody) -> None:
        self.is_own = extra.resumable is None
        resumable = extra.resumable or Resumable()
        if self.is_own and fields.get("seed") is None:
            # The next worker draws the same tokens, even if the lost one kept nothing.
            fields = fields | {"seed": random.getrandbits(32)}
        self._fields, self._extra = fields, fields.get("extra_body", {})
        self.session_id = new_uuid() if resumable.session_id is None else resumable.session_id
        self._request_id = extra.request_id
        self._num_choices = _count(fields.get("n"))
        start = resumable.from_token or 0
        starts = start if isinstance(start, list) else [start] * self._num_choices
        self._num_tokens: dict[int, int] = dict(enumerate(starts))  # by choice
        self._is_stream = fields.get("stream") is True
        self._shows_ids = extra.return_token_ids is True
        options = fields.get("stream_options")
        self._awaits_usage = isinstance(options, dict) and options.get("include_usage") is True
        self._begun: set[int] = set()  # choices with a chunk so far
        self._ended: set[int] = set()
        self._head: tuple[str, int] | None = None  # of the first chunk
        self.is_interrupted = False

    @classmethod
    def of(cls, fields: _Fields, *, persist: bool) -> Resumption | None:
        """Returns None for a request that is not to be kept, and for one that cannot be read.

        persist: keeps requests that say nothing about it.
        """
        try:
            fields = snake_case_resumable(fields)
            extra = msgspec.convert(fields.get("extra_body", {}), ExtraBody)
        except (RequestError, ValueError):
            return None
        is_wanted = persist if extra.resumable is None else extra.resumable.enabled
        return cls(fields, extra) if is_wanted else None

    @property
    def is_complete(self) -> bool:
        """Whether every choice has ended, and the usage has come if it was asked for."""
        return len(self._ended) >= self._num_choices and not self._awaits_usage

    def interrupt(self, request_ids: Collection[str] | None) -> None:
        """Notes that all answers are interrupted, or those with one of these ids.

        They are ids of sessions, of requests or of responses.
        """
        names = {f"{prefix}{self.session_id}" for prefix in ("", "chatcmpl-", "cmpl-")}
        if request_ids is None or not {*names, self._request_id}.isdisjoint(request_ids):
            self.is_interrupted = True

    def request(self) -> _Fields:
        """Returns the request for the answer, from behind the tokens that have come."""
        resumable = self._extra.get("resumable") or {}
        resumable = resumable | {"enabled": True, "session_id": self.session_id}
        extra = self._extra | {"resumable": resumable}
        if self._is_stream:
            extra["return_token_ids"] = True
            if any(self._num_tokens.values()):
                resumable["from_token"] = [*self._num_tokens.values()]
        return self._fields | {"extra_body": extra}

    def take(self, chunk: _Chunk) -> _Chunk | None:
        """Counts a chunk's tokens; returns what the caller has not seen yet of it, or None.

        A resumed stream may begin again with the role or the prompt's echo, and end choices that
        have ended before.
        """
        self._head = self._head or (chunk.id, chunk.created)
        chunk.id, chunk.created = self._head
        if chunk.usage is not None:
            self._awaits_usage = False
        news: list[Any] = [each for each in chunk.choices if self._take(each)]
        had_choices, chunk.choices = bool(chunk.choices), news
        return None if had_choices and not news and chunk.usage is None else chunk

    def _take(self, choice: Any) -> bool:
        """Counts a choice of a chunk; returns whether it has anything new."""
        if choice.index in self._ended:
            return False
        num_tokens = len(choice.token_ids or ())
        self._num_tokens[choice.index] = self._num_tokens.get(choice.index, 0) + num_tokens
        if not self._shows_ids:
            choice.token_ids = None
        if choice.finish_reason is not None:
            self._ended.add(choice.index)
        is_first = choice.index not in self._begun
        self._begun.add(choice.index)
        return is_first or bool(num_tokens or choice.finish_reason)


def _count(n: object) -> int:
    return n if isinstance(n, int) and 0 < n < 1000 else 1
