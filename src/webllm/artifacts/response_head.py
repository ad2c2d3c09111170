"""The head of a response to a request for a file: its meaning, and the errors of its status."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from webllm.artifacts.destination import RemoteVersion
from webllm.artifacts.retry import retry_after_s
from webllm.errors import FetchError, ModelNotFoundError

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]+/([0-9]{1,18}|\*)")  # RFC 9110, 14.4
_LENGTH = re.compile(r"[0-9]{1,18}")


class BrokenError(Exception):
    """The attempt failed, but another may succeed."""

    def __init__(self, reason: str, pause_s: float | None = None) -> None:
        super().__init__(reason)
        self.pause_s = pause_s  # the pause that the server asked for


class ChangedError(Exception):
    """The server has another version than the one whose parts are stored."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a response."""

    status: int
    reason: str
    headers: Mapping[str, str]  # by name in lower case

    @property
    def is_part(self) -> bool:
        return self.status == 206

    @property
    def is_encoded(self) -> bool:
        """Whether the body is compressed, so that its length is not that of the file."""
        return self.headers.get("content-encoding", "identity") != "identity"

    @property
    def takes_ranges(self) -> bool:
        """Whether the server is known to send parts of the file."""
        bytes_allowed = self.headers.get("accept-ranges") == "bytes"
        return not self.is_encoded and (self.is_part or bytes_allowed)

    def version(self, size: int | None) -> RemoteVersion:
        """Returns the version of the file, whose size is known otherwise."""
        return RemoteVersion(self.headers.get("etag"), self.headers.get("last-modified"), size)

    def extent(self) -> tuple[int | None, int | None]:
        """Returns the offset of the body in the file and the size of the file; None if unknown."""
        if self.is_part:
            stated = _CONTENT_RANGE.fullmatch(self.headers.get("content-range", ""))
            if stated is None:
                return None, None
            return int(stated[1]), None if stated[2] == "*" else int(stated[2])
        return 0, None if self.is_encoded else self.body_bytes

    @property
    def body_bytes(self) -> int | None:
        """The length of the body; None if it is unknown."""
        length = self.headers.get("content-length", "")
        return int(length) if _LENGTH.fullmatch(length) else None

    def check_status(self, url: str) -> None:
        """Returns if the body is the file or a part of it.

        Raises ModelNotFoundError for 404 and 410, BrokenError for 408, 429 and 5xx, ChangedError
        for 416, FetchError for any other status but 200 and 206.
        """
        status = self.status
        if status in (200, 206):
            return
        if status in (404, 410):
            raise ModelNotFoundError(f"{url} does not exist ({status}); check the name")
        if status in (408, 429) or status >= 500:
            pause_s = retry_after_s(self.headers.get("retry-after"))
            raise BrokenError(f"the server answered {status} {self.reason}", pause_s)
        if status == 416:
            raise ChangedError
        hint = "it needs a login or a licence accepted" if status in (401, 403) else "check the URL"
        raise FetchError(f"{url} is refused ({status} {self.reason}); {hint}")
