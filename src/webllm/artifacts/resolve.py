"""Turns a model source into files on this disk: local ones, or ones fetched into the store."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from webllm.artifacts.local_folder import ModelPaths, local_model
from webllm.artifacts.members import ensure_members
from webllm.artifacts.needed import SINGLE_FILE
from webllm.artifacts.progress import Phase, ProgressCallback, ProgressReporter
from webllm.artifacts.source import (
    HTTPSource,
    HubSource,
    LocalSource,
    MemberSource,
    PyPISource,
    Source,
    StoredSource,
    has_several_files,
    one_hash_of_several,
    parse_source,
)
from webllm.artifacts.storage_errors import storage_errors
from webllm.artifacts.store import DirectoryStore
from webllm.errors import (
    ConfigError,
    IntegrityError,
    ModelNotFoundError,
    StorageFullError,
    WebLLMError,
)

if TYPE_CHECKING:
    from webllm.artifacts.fetch_source import FetchOptions
    from webllm.artifacts.manifest import Manifest

_log = logging.getLogger(__name__)
_LOCK_POLL_S = 0.2


async def ensure_model(
    source: Source | str,
    store: DirectoryStore,
    on_progress: ProgressCallback | None = None,
    options: FetchOptions | None = None,
) -> ModelPaths:
    """Returns the files of the model at `source`, fetching those that `store` does not have.

    A local source is a file or a folder; a file is hashed if `source` has a hash. Stored files are
    verified, and damaged parts of them are fetched again.

    Raises ConfigError for a source that cannot be parsed; FetchError, ModelNotFoundError,
    IntegrityError, StorageFullError or another ArtifactError if it cannot be had. Cancelling keeps
    the bytes of an https or hub download for the next attempt.
    """
    if isinstance(source, str):
        source = parse_source(source)
    if isinstance(source, LocalSource):
        with storage_errors(source.path, "name another file"):
            return await _local(source)
    reporter = ProgressReporter(on_progress, Phase.FETCH)
    if not isinstance(source, PyPISource) and has_several_files(source):
        with storage_errors(store.root):
            members = _Members(source, store, options)
            manifest, paths = await ensure_members(members, source, reporter)
        return ModelPaths(manifest.entry, paths)
    file = await _ensure_file(source, store, reporter, options)
    return ModelPaths(SINGLE_FILE, {str(file): file})


async def ensure_artifact(
    source: Source | str,
    store: DirectoryStore,
    on_progress: ProgressCallback | None = None,
    options: FetchOptions | None = None,
) -> Path:
    """As `ensure_model`, for a model that is one file; raises ConfigError for any other."""
    found = await ensure_model(source, store, on_progress, options)
    if len(found.paths) > 1:
        raise ConfigError(f"{source} has several files: {', '.join(found.paths)}; name one file")
    [path] = found.paths.values()
    return path


async def _local(source: LocalSource) -> ModelPaths:
    if source.sha256 is None:
        return await local_model(source.path)
    found = await local_model(source.path)
    if len(found.paths) > 1:
        raise one_hash_of_several(source)
    await asyncio.to_thread(_verify, next(iter(found.paths.values())), source.sha256)
    return found


class _Members:
    """The files of a source in a directory; see `MemberStore`."""

    def __init__(
        self, source: HTTPSource | HubSource, store: DirectoryStore, options: FetchOptions | None
    ) -> None:
        self._source, self._store, self._options = source, store, options

    async def manifest(self) -> Manifest | None:
        return self._store.manifest(self._source)

    async def has(self) -> bool:
        return self._store.has(self._source)

    def locked(self, reporter: ProgressReporter) -> AbstractAsyncContextManager[None]:
        return _locked(self._source, self._store, reporter)

    async def find(self) -> Manifest:
        from webllm.artifacts.fetch_source import find_files

        return await find_files(self._source, self._options)

    async def put(self, manifest: Manifest) -> None:
        self._store.put_manifest(self._source, manifest)

    async def delete(self, member: MemberSource) -> None:
        with suppress(ModelNotFoundError):
            await asyncio.to_thread(self._store.delete, member)

    async def ensure(self, member: MemberSource, reporter: ProgressReporter) -> Path:
        return await _ensure_file(member, self._store, reporter, self._options)


async def _ensure_file(
    source: StoredSource,
    store: DirectoryStore,
    reporter: ProgressReporter,
    options: FetchOptions | None,
) -> Path:
    """Returns the stored and verified file of a source that has one, fetching what is missing."""
    damaged = await asyncio.to_thread(store.damaged_parts, source)
    if damaged == []:
        return store.path(source)
    try:
        with storage_errors(store.root):
            async with _locked(source, store, reporter):
                return await _fetch(source, store, reporter, options)
    except WebLLMError as error:
        if not damaged or isinstance(error, StorageFullError):
            raise
        raise IntegrityError(
            f"the stored file of {source} is damaged (parts: {len(damaged)}) and could not be "
            f"repaired: {error}",
            str(source),
        ) from error


async def _fetch(
    source: StoredSource,
    store: DirectoryStore,
    reporter: ProgressReporter,
    options: FetchOptions | None,
) -> Path:
    """Returns the stored file of `source`, of which the missing parts are fetched."""
    damaged = await asyncio.to_thread(store.damaged_parts, source)
    if damaged == []:  # another process has fetched or repaired it meanwhile
        return store.path(source)
    sha256 = source.file.sha256 if isinstance(source, MemberSource) else source.sha256
    if damaged:
        _log.warning(
            "the stored file of %s is damaged (parts: %d); fetching those again",
            source,
            len(damaged),
        )
        await asyncio.to_thread(store.reopen, source, damaged)
    elif sha256 is not None and (adopted := await asyncio.to_thread(store.adopt, source, sha256)):
        return adopted
    # Imported here, because most starts fetch nothing.
    from webllm.artifacts.fetch_source import fetch_source

    return await fetch_source(source, store, reporter, options)


def _verify(path: Path, sha256: str) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256:
        raise IntegrityError(f"{path} has the SHA-256 {digest}, expected {sha256}")


@asynccontextmanager
async def _locked(
    source: StoredSource, store: DirectoryStore, reporter: ProgressReporter
) -> AsyncIterator[None]:
    lock = store.lock(source)
    if not lock.try_acquire():
        reporter.update("Waiting for another process that is downloading this model")
        while not lock.try_acquire():
            await asyncio.sleep(_LOCK_POLL_S)
    try:
        yield
    finally:
        lock.release()
