"""From a model source to a file on this disk: found here, found in the store, or fetched."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from webllm.artifacts.progress import Phase, ProgressCallback, ProgressReporter
from webllm.artifacts.source import LocalSource, RemoteSource, Source, parse_source
from webllm.artifacts.storage_errors import storage_errors
from webllm.artifacts.store import DirectoryStore
from webllm.errors import IntegrityError, ModelNotFoundError

if TYPE_CHECKING:
    from webllm.artifacts.job import FetchOptions

_LOCK_POLL_S = 0.2


async def ensure_artifact(
    source: Source | str,
    store: DirectoryStore,
    on_progress: ProgressCallback | None = None,
    options: FetchOptions | None = None,
) -> Path:
    """Return a file with the bytes of `source`, fetching it into `store` if it is not there.

    A local path is returned as it is, a folder as the single .gguf in it, and read for its hash if
    `source` promises one. Raises ConfigError for a source that cannot be parsed; FetchError,
    ModelNotFoundError, IntegrityError, StorageFullError or another ArtifactError for one that
    cannot be had. Cancelling keeps what an https or hub download has brought so far.
    """
    if isinstance(source, str):
        source = parse_source(source)
    if isinstance(source, LocalSource):
        with storage_errors(source.path, "name another file"):
            file = local_file(source.path)
            if source.sha256 is not None:
                await asyncio.to_thread(_verify, file, source.sha256)
            return file
    if store.has(source):
        return store.path(source)
    reporter = ProgressReporter(on_progress, Phase.FETCH)
    with storage_errors(store.root):
        async with _locked(source, store, reporter):
            if store.has(source):  # fetched while this call waited
                return store.path(source)
            adopted = store.adopt(source, source.sha256)
            if adopted is not None:
                return adopted
            from webllm.artifacts.fetch_source import fetch_source  # most starts fetch nothing

            return await fetch_source(source, store, reporter, options)


def local_file(path: Path) -> Path:
    """`path` if it is a file, the one .gguf in it if it is a folder; else ModelNotFoundError.

    Raises OSError for one that may not be read.
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
