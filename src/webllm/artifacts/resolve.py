"""Turns a model source into a file on this disk: a local one, or one fetched into the store."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from webllm.artifacts.progress import Phase, ProgressCallback, ProgressReporter
from webllm.artifacts.source import LocalSource, RemoteSource, Source, parse_source
from webllm.artifacts.storage_errors import storage_errors
from webllm.artifacts.store import DirectoryStore
from webllm.errors import IntegrityError, ModelNotFoundError, StorageFullError, WebLLMError

if TYPE_CHECKING:
    from webllm.artifacts.fetch_source import FetchOptions

_log = logging.getLogger(__name__)
_LOCK_POLL_S = 0.2


async def ensure_artifact(
    source: Source | str,
    store: DirectoryStore,
    on_progress: ProgressCallback | None = None,
    options: FetchOptions | None = None,
) -> Path:
    """Returns a file with the bytes of `source`, fetching it into `store` if it is not there.

    A local source is a file or a folder with a single .gguf file; it is hashed if `source` has a
    hash. A stored file is verified, and damaged parts of it are fetched again.

    Raises ConfigError for a source that cannot be parsed; FetchError, ModelNotFoundError,
    IntegrityError, StorageFullError or another ArtifactError if it cannot be had. Cancelling keeps
    the bytes of an https or hub download for the next attempt.
    """
    if isinstance(source, str):
        source = parse_source(source)
    if isinstance(source, LocalSource):
        with storage_errors(source.path, "name another file"):
            file = local_file(source.path)
            if source.sha256 is not None:
                await asyncio.to_thread(_verify, file, source.sha256)
            return file
    damaged = await asyncio.to_thread(store.damaged_parts, source)
    if damaged == []:
        return store.path(source)
    reporter = ProgressReporter(on_progress, Phase.FETCH)
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
    source: RemoteSource,
    store: DirectoryStore,
    reporter: ProgressReporter,
    options: FetchOptions | None,
) -> Path:
    """Returns the stored file of `source`, of which the missing parts are fetched."""
    damaged = await asyncio.to_thread(store.damaged_parts, source)
    if damaged == []:  # another process has fetched or repaired it meanwhile
        return store.path(source)
    if damaged:
        _log.warning(
            "the stored file of %s is damaged (parts: %d); fetching those again",
            source,
            len(damaged),
        )
        await asyncio.to_thread(store.reopen, source, damaged)
    elif source.sha256 is not None and (
        adopted := await asyncio.to_thread(store.adopt, source, source.sha256)
    ):
        return adopted
    # Imported here, because most starts fetch nothing.
    from webllm.artifacts.fetch_source import fetch_source

    return await fetch_source(source, store, reporter, options)


def local_file(path: Path) -> Path:
    """Returns `path` if it is a file, or the single .gguf file in it if it is a folder.

    Raises ModelNotFoundError if there is none or several, OSError if it may not be read.
    """
    if path.is_file():
        path.open("rb").close()
        return path
    if not path.is_dir():
        raise ModelNotFoundError(f"{path} does not exist; check the path")
    candidates = sorted(path.glob("*.gguf"))
    if len(candidates) == 1:
        return local_file(candidates[0])
    if not candidates:
        raise ModelNotFoundError(f"{path} contains no .gguf file; name another folder or a file")
    names = ", ".join(candidate.name for candidate in candidates)
    raise ModelNotFoundError(f"{path} contains several .gguf files: {names}; name one of them")


def _verify(path: Path, sha256: str) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256:
        raise IntegrityError(f"{path} has the SHA-256 {digest}, expected {sha256}")


@asynccontextmanager
async def _locked(
    source: RemoteSource, store: DirectoryStore, reporter: ProgressReporter
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
