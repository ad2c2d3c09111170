"""Model files in the browser's stores, which stores.js implements for pages and for Python."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

from js import Object, location
from pyodide.ffi import JsException, to_js

from webllm.artifacts.destination import RemoteVersion
from webllm.artifacts.manifest import Manifest, decode_manifest, encode_manifest
from webllm.browser_javascript import browser_module, handled, settled, typed_error
from webllm.errors import ArtifactError, ConfigError, WebLLMError


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A whole file; `windows` is the `WindowedFile` of windows.js that reads it, verified."""

    windows: Any
    sha256: str  # in hex


class _Locked:
    """What has a lock over all tabs."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    @asynccontextmanager
    async def locked(self, on_wait: Callable[[], None]) -> AsyncIterator[None]:
        """Holds the lock; `on_wait` is called if another holds it."""
        async with self._lock(if_free=True) as is_ours:
            if is_ours:
                yield
                return
        on_wait()
        async with self._lock(if_free=False):
            yield

    @asynccontextmanager
    async def _lock(self, *, if_free: bool) -> AsyncIterator[bool]:
        lock = self._handle.lock(if_free)
        try:
            yield await answered(lock.granted)
        finally:
            await answered(lock.release())


class ModelSet(_Locked):
    """A source of several files in a store: `ModelSet` of stores.js, with its errors."""

    async def manifest(self) -> Manifest | None:
        """Returns which files there are; None if that is not known."""
        text = await answered(self._handle.manifest())
        return decode_manifest(text.encode(), str(location.origin)) if text else None

    async def put(self, manifest: Manifest) -> None:
        """Enters the files, before the first of them is stored."""
        await _written(self._handle.keep(encode_manifest(manifest).decode()))

    async def keys(self) -> Any:
        """Returns the keys of the store: some stores list them in 0.1 s."""
        return await answered(self._handle.keys())

    async def has(self) -> bool:
        """Returns whether all files are stored."""
        return bool(await answered(self._handle.has()))

    async def delete(self) -> None:
        """Deletes all files; raises ArtifactError while they are downloaded."""
        await answered(self._handle.delete())


class ModelFile(_Locked):
    """One model file in a store, and the `Destination` of its download: `ModelFile` of stores.js.

    Every method raises StorageFullError where the site may store nothing, ArtifactError for any
    other failure of the store.
    """

    def __init__(self, handle: Any) -> None:
        super().__init__(handle)
        self.part_bytes: int = handle.partBytes

    async def has(self) -> bool:
        """Returns whether all of the file is stored."""
        return bool(await answered(self._handle.has()))

    async def find(self, keys: Any = None) -> StoredFile | None:
        """Opens the file; returns None unless all of it is stored.

        `keys`: those of the store, if they are known, see `ModelSet.keys`.
        """
        found = await answered(self._handle.find(keys))
        return StoredFile(found.file, found.sha256) if found else None

    async def delete(self) -> None:
        """Deletes the file and any part of it; raises ArtifactError while it is downloaded."""
        await answered(self._handle.delete())

    async def recover(self) -> tuple[RemoteVersion, set[int]]:
        found = await answered(self._handle.recover())
        if not found:
            return RemoteVersion(), set()
        version = RemoteVersion(found.etag or None, found.last_modified or None, found.size)
        return version, set(found.parts)

    async def restart(self, version: RemoteVersion) -> None:
        await _written(self._handle.restart(_version(version)))

    async def require_space(self, num_bytes: int) -> None:
        await answered(self._handle.requireSpace(num_bytes))

    async def put(self, part: int, chunks: Sequence[Any]) -> None:
        arrays = [chunk.array for chunk in chunks]  # of a JsChunk
        await _written(self._handle.put(part, to_js(arrays)))

    async def read(self, part: int) -> bytes | None:
        data = await answered(self._handle.read(part))
        return data.to_bytes() if data else None

    async def keep(self, version: RemoteVersion, sha256: str) -> None:
        await _written(self._handle.keep(_version(version), sha256))

    async def drop(self) -> None:
        await _written(self._handle.drop())


def _version(version: RemoteVersion) -> Any:
    return to_js(asdict(version), dict_converter=Object.fromEntries)


class ModelStore:
    """The store that `AppConfig.cache_backend` names."""

    def __init__(self, stores: Any, blobs: Any, checksum: Any) -> None:
        self._stores, self._blobs, self._checksum = stores, blobs, checksum

    @staticmethod
    async def open(backend: str | None) -> ModelStore:
        """Raises ConfigError if this browser has no such store."""
        stores = await stores_module()
        wasm = (files("webllm.artifacts") / "lib" / "webllm_checksum.wasm").read_bytes()
        try:
            checksum = await settled(stores.Checksum.load(to_js(wasm)))
            return ModelStore(stores, stores.openBlobs(backend), checksum)
        except JsException as error:
            raise _typed(error) from None

    def file(self, address: str, sha256: str | None = None) -> ModelFile:
        """Returns the file at an address: its URL, or in a set its `MemberSource`."""
        return ModelFile(self._stores.ModelFile.new(self._blobs, address, sha256, self._checksum))

    def set(self, source: str) -> ModelSet:
        """Returns the files of a source of several, by its address."""
        return ModelSet(self._stores.ModelSet.new(self._blobs, source))


async def ask_to_keep() -> None:
    """Asks the browser not to evict this site's storage; it may refuse.

    Only a page can ask, not a worker. The answer is not awaited: the browser may ask the user.
    """
    (await stores_module()).askToKeep()


async def stores_module() -> Any:
    """Returns stores.js; raises ConfigError if the page's policy forbids it."""
    try:
        return await browser_module("webllm_stores", "webllm.artifacts.browser", "stores.js")
    except ImportError as error:
        raise ConfigError(str(error)) from error


async def answered(promise: Any) -> Any:
    """Awaits a promise of stores.js; raises its failure as an error of ours."""
    try:
        return await settled(promise)
    except JsException as error:
        raise _typed(error) from None


async def _written(promise: Any) -> None:
    """As `answered`, but to the end even if cancelled: then the lock is released."""
    future = handled(promise)
    try:
        await answered(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


def _typed(error: JsException) -> WebLLMError:
    return typed_error(error, ArtifactError)
