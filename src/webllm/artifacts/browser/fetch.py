"""Requests of files with the browser's `fetch`.

The page's script may have begun the request while Python was starting: then
`globalThis.webllmPrefetch.take(url)` gives its Response.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import js
from pyodide.ffi import JsException, to_js

from webllm.artifacts.response_head import BrokenError, Head
from webllm.artifacts.retry import RetryPolicy
from webllm.browser_javascript import settled

_STALL_S = 60.0  # a connection without a byte for this long counts as broken
_UNREACHED = (
    "the connection broke, or the server (CORS) or the page's policy (connect-src) does not allow "
    "this request"
)
# A server that never answers does most often not allow it (CORS).
RETRY = RetryPolicy(unreached_attempts=3)


class FetchClient:
    """A `Client` of a download."""

    cors = True

    @asynccontextmanager
    async def get(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[FetchResponse]:
        abort = js.AbortController.new()
        response = None
        try:
            found = None if headers else await _prefetched(url)
            response = FetchResponse(found or await _fetched(url, headers, abort.signal))
            yield response
        finally:
            abort.abort()
            if response is not None:
                response.close()


class FetchResponse:
    def __init__(self, response: Any) -> None:
        self._response, self._reader = response, None
        headers = js.Object.fromEntries(response.headers).to_py()
        self.head = Head(response.status, response.statusText, headers)

    async def chunks(self) -> AsyncIterator[JsChunk]:
        self._reader = reader = self._response.body.getReader()
        while not (read := await _in_time(reader.read())).done:
            yield JsChunk(read.value)

    def close(self) -> None:
        stream = self._reader or self._response.body
        if stream:
            stream.cancel().then(lambda _: None, lambda _: None)  # it may have failed before


class JsChunk:
    """A `Chunk`: a view of a Uint8Array, which is copied to Python only to be hashed."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __len__(self) -> int:
        return int(self.array.byteLength)

    def __getitem__(self, index: slice) -> JsChunk:
        start, stop, _ = index.indices(len(self))
        return JsChunk(self.array.subarray(start, stop))

    def __bytes__(self) -> bytes:
        copied: bytes = self.array.to_bytes()
        return copied


async def _fetched(url: str, headers: Mapping[str, str], signal: Any) -> Any:
    # "no-store": the browser need not keep a second copy.
    options = {"signal": signal, "cache": "no-store", "headers": dict(headers)}
    response = js.fetch(url, to_js(options, dict_converter=js.Object.fromEntries))
    if url.startswith("chrome-extension:"):
        return await _in_time(response, "the extension has no such file")
    return await _in_time(response)


async def _prefetched(url: str) -> Any | None:
    prefetch = getattr(js, "webllmPrefetch", None)
    if not prefetch:
        return None
    try:
        return await _in_time(js.Promise.resolve(prefetch.take(url))) or None
    except BrokenError:
        return None  # fetched again; that reports the error if it persists


async def _in_time(promise: Any, failure: str = _UNREACHED) -> Any:
    try:
        return await asyncio.wait_for(settled(promise), _STALL_S)
    except TimeoutError:
        raise BrokenError(f"no data arrived for {_STALL_S:.0f} s") from None
    except JsException as error:
        if failure == _UNREACHED and getattr(js.navigator, "onLine", None) is False:
            raise BrokenError("there is no network") from None
        raise BrokenError(f"{failure}: {error}") from None
