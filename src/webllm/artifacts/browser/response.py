"""One HTTP request for a file or a part of it, and the server's response.

The page's script may have begun the request while Python was starting: then
`globalThis.webllmPrefetch.take(url)` gives its Response.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import js
from pyodide.ffi import JsException, to_js

from webllm.artifacts.browser.blobs import settled
from webllm.artifacts.destination import RemoteVersion
from webllm.artifacts.retry import retry_after_s
from webllm.errors import FetchError, ModelNotFoundError

_STALL_S = 60.0  # a connection without a byte for this long counts as broken


class BrokenError(Exception):
    """The attempt failed, but another may succeed."""

    def __init__(self, reason: str, pause_s: float | None = None) -> None:
        super().__init__(reason)
        self.pause_s = pause_s  # the pause that the server asked for


class ChangedError(Exception):
    """The file on the server is no longer the version whose parts are stored."""


@asynccontextmanager
async def request(url: str, start: int, end: int | None) -> AsyncIterator[FileResponse]:
    """Requests bytes `start` to `end` (None: to the end of the file); leaving the block aborts.

    Raises BrokenError if another attempt may succeed, ModelNotFoundError for 404 and 410,
    ChangedError for 416, FetchError for other refusals.
    """
    abort = js.AbortController.new()
    response = None
    try:
        fetched = None if start or end else await _prefetched(url)
        fetched = fetched or await _fetched(url, start, end, abort.signal)
        response = FileResponse(url, fetched, start, end)
        yield response
    finally:
        abort.abort()
        if response is not None:
            response.close()


async def _fetched(url: str, start: int, end: int | None, signal: Any) -> Any:
    # "no-store": the browser need not keep a second copy. No If-Range: CORS would have to allow it.
    options: dict[str, Any] = {"signal": signal, "cache": "no-store"}
    if start or end:
        options["headers"] = {"Range": f"bytes={start}-{end - 1 if end else ''}"}
    return await _in_time(js.fetch(url, to_js(options, dict_converter=js.Object.fromEntries)))


async def _prefetched(url: str) -> Any | None:
    prefetch = getattr(js, "webllmPrefetch", None)
    if not prefetch:
        return None
    try:
        return await settled(js.Promise.resolve(prefetch.take(url))) or None
    except JsException:
        return None  # fetched again; that reports the error if it persists


async def _in_time(promise: Any) -> Any:
    try:
        return await asyncio.wait_for(settled(promise), _STALL_S)
    except TimeoutError:
        raise BrokenError(f"no data arrived for {_STALL_S:.0f} s") from None
    except JsException as error:
        raise BrokenError(
            f"the connection broke, or the server does not let this site read it (CORS): {error}"
        ) from None


class FileResponse:
    """The head of a response, and its body in chunks."""

    def __init__(self, url: str, response: Any, start: int, end: int | None) -> None:
        self._response, self._reader = response, None
        _check_status(url, response, self._header("Retry-After"))
        self.is_part: bool = response.status == 206
        # A header that CORS does not expose reads as absent.
        encoding = self._header("Content-Encoding") or "identity"
        ranges = self._header("Accept-Ranges") == "bytes"
        self.takes_ranges = encoding == "identity" and (self.is_part or ranges)
        self._start, size = self._extent(start, end) if encoding == "identity" else (0, None)
        self.version = RemoteVersion(self._header("ETag"), self._header("Last-Modified"), size)

    def continues(self, version: RemoteVersion, start: int, hash_is_known: bool) -> bool:
        """Returns whether the body continues `version` at `start`.

        Without an ETag or date, this is assumed if the hash of the whole file is checked later.
        """
        size = self.version.size
        if not self.is_part or self._start != start or size not in (None, version.size):
            return False
        if not version.identified:
            return hash_is_known
        return replace(self.version, size=version.size).same_as(version)

    async def chunks(self) -> AsyncIterator[Any]:
        """Yields Uint8Arrays as they arrive."""
        self._reader = reader = self._response.body.getReader()
        while not (read := await _in_time(reader.read())).done:
            yield read.value

    def close(self) -> None:
        stream = self._reader or self._response.body
        if stream:
            stream.cancel().then(lambda _: None, lambda _: None)  # it may have failed before

    def _header(self, name: str) -> str | None:
        return self._response.headers.get(name) or None  # JavaScript's null is falsy

    def _extent(self, start: int, end: int | None) -> tuple[int | None, int | None]:
        """Returns the offset of the body in the file, and the size of the file, if known."""
        length = self._header("Content-Length") or ""
        num_bytes = int(length) if length.isdecimal() else None
        if not self.is_part:
            return 0, num_bytes
        stated = re.fullmatch(
            r"bytes (\d+)-\d+/(\d+|\*)", self._header("Content-Range") or f"bytes {start}-0/*"
        )
        if stated is None:
            return None, None
        if stated[2].isdecimal():
            return int(stated[1]), int(stated[2])
        return int(stated[1]), start + num_bytes if num_bytes and end is None else None


def _check_status(url: str, response: Any, retry_after: str | None) -> None:
    status = response.status
    if status in (404, 410):
        raise ModelNotFoundError(f"{url} does not exist ({status}); check the name")
    if status in (408, 429) or status >= 500:
        pause_s = retry_after_s(retry_after)
        raise BrokenError(f"the server answered {status} {response.statusText}", pause_s)
    if status == 416:
        raise ChangedError
    if status not in (200, 206):
        hint = "it needs a login or a licence accepted" if status in (401, 403) else "check the URL"
        raise FetchError(f"{url} is refused ({status} {response.statusText}); {hint}")
