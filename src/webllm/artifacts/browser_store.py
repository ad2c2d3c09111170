"""Where a browser keeps model files: the Cache API or the origin private file system (OPFS).

A file comes in through `Incoming` and is found under its name only after `keep`.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from js import Blob, Headers, Object, Response, caches, navigator
from pyodide.ffi import JsException, to_js

from webllm.errors import ConfigError, FetchError, StorageFullError

_NAME = "webllm"  # of our cache, or our folder
_PART_BYTES = 8 << 20


class Incoming(Protocol):
    """A file under way."""

    async def write(self, data: Any) -> None:
        """Appends a Uint8Array."""

    async def keep(self) -> Any:
        """Makes it visible, and returns it as a Blob."""

    async def drop(self) -> None:
        """Forgets it."""


class BrowserStore(Protocol):
    """Files by name. Raises StorageFullError where the origin's quota is used up."""

    async def find(self, name: str) -> Any | None:
        """The file as a Blob, whose bytes are read when they are asked for; None if not here."""

    async def receive(self, name: str) -> Incoming: ...

    async def delete(self, name: str) -> None:
        """Harmless if it is not here."""


def open_store(backend: str | None) -> BrowserStore:
    """None: the Cache API. Raises ConfigError for what there is not in a browser."""
    match backend:
        case None | "cache":
            return CacheStore()
        case "opfs":
            return OpfsStore()
        case _:
            raise ConfigError(f"cache_backend is {backend!r}; in a browser give 'cache' or 'opfs'")


class CacheStore:
    """In the Cache API, a Response for each file."""

    async def find(self, name: str) -> Any | None:
        response = await (await caches.open(_NAME)).match(_url(name))
        return await response.blob() if response else None

    async def receive(self, name: str) -> Incoming:
        return _IncomingResponse(name)

    async def delete(self, name: str) -> None:
        await (await caches.open(_NAME)).delete(_url(name))


class _IncomingResponse:
    """Parts are Blobs: the browser holds them, on disk if they are large."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._parts: list[Any] = []
        self._fresh: list[Any] = []
        self._fresh_bytes = 0

    async def write(self, data: Any) -> None:
        self._fresh.append(data)
        self._fresh_bytes += data.byteLength
        if self._fresh_bytes >= _PART_BYTES:
            self._parts = [Blob.new(to_js([*self._parts, *self._fresh]))]
            self._fresh, self._fresh_bytes = [], 0

    async def keep(self) -> Any:
        blob = Blob.new(to_js([*self._parts, *self._fresh]))
        cache = await caches.open(_NAME)
        headers = Headers.new(to_js([["Content-Length", str(blob.size)]]))
        options = Object.fromEntries(to_js([["headers", headers]]))
        await _written(cache.put(_url(self._name), Response.new(blob, options)))
        return blob

    async def drop(self) -> None:
        self._parts, self._fresh = [], []


def _url(name: str) -> str:
    """The Cache API's keys are URLs; this one is never fetched."""
    return f"/webllm-models/{name}"


class OpfsStore:
    """In the origin private file system, a file for each; those under way end in ".part"."""

    async def find(self, name: str) -> Any | None:
        folder = await _folder()
        try:
            return await (await folder.getFileHandle(name)).getFile()
        except JsException as error:
            if error.name == "NotFoundError":
                return None
            raise

    async def receive(self, name: str) -> Incoming:
        options = Object.fromEntries(to_js([["create", True]]))
        handle = await (await _folder()).getFileHandle(f"{name}.part", options)
        return _IncomingFile(name, handle, await handle.createWritable())

    async def delete(self, name: str) -> None:
        if await self.find(name) is not None:
            await (await _folder()).removeEntry(name)


class _IncomingFile:
    def __init__(self, name: str, handle: Any, writable: Any) -> None:
        self._name, self._handle, self._writable = name, handle, writable

    async def write(self, data: Any) -> None:
        await _written(self._writable.write(data))

    async def keep(self) -> Any:
        await _written(self._writable.close())
        await self._handle.move(self._name)
        return await self._handle.getFile()

    async def drop(self) -> None:
        await self._writable.abort().then(lambda _: None, lambda _: None)  # may have failed already
        await (await _folder()).removeEntry(f"{self._name}.part")


async def _folder() -> Any:
    root = await navigator.storage.getDirectory()
    return await root.getDirectoryHandle(_NAME, Object.fromEntries(to_js([["create", True]])))


async def settled(promise: Any) -> Any:
    """`await promise`, which may be cancelled: Pyodide fails when it settles after that."""
    return await asyncio.shield(promise)


async def _written(promise: Any) -> None:
    """Waits for it. Pyodide cannot raise Chromium's QuotaExceededError, and would wait forever."""
    name = await settled(promise.then(lambda _: "", lambda reason: reason.name))
    if name == "QuotaExceededError":
        raise StorageFullError(
            "the browser keeps no more for this site; free some space, or take a smaller model"
        )
    if name:
        raise FetchError(f"the browser could not keep the model ({name}); try again")
