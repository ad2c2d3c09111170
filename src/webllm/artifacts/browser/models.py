"""Opens, finds and deletes models in a browser, fetching them into its store.

Sources have the forms of `webllm.artifacts.source`. A path is relative to the worker's script.
Files that the user picked are "picked:…", see `picked`.
"""

from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

from js import URL, location

from webllm.artifacts.browser.fetch import RETRY, FetchClient
from webllm.artifacts.browser.files import BrowserFiles, SourceFile
from webllm.artifacts.browser.hub import list_files
from webllm.artifacts.browser.picked import PickedFolder, is_picked, open_picked
from webllm.artifacts.browser.store import (
    ModelFile,
    ModelStore,
    StoredFile,
    ask_to_keep,
    stores_module,
)
from webllm.artifacts.checkpoint import Checkpoint
from webllm.artifacts.download import download
from webllm.artifacts.formats import open_checkpoint
from webllm.artifacts.hub_access import HubAccess
from webllm.artifacts.integrity import Integrity
from webllm.artifacts.manifest import Manifest
from webllm.artifacts.members import ensure_members
from webllm.artifacts.needed import SINGLE_FILE, find_entry, needed
from webllm.artifacts.progress import Phase, ProgressCallback, ProgressReporter
from webllm.artifacts.remote_folder import RemoteFolder, find_manifest
from webllm.artifacts.source import (
    HUB_URL,
    HTTPSource,
    HubSource,
    LocalSource,
    MemberSource,
    has_several_files,
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
_WAITING = "Waiting for another tab that is downloading this model"


async def open_model(
    source: str,
    cache_backend: str | None,
    on_progress: ProgressCallback | None,
    hub: HubAccess,
    integrity: Integrity | None,
) -> Checkpoint:
    """Opens the checkpoint of `source`, fetching the files that the store does not have.

    Raises ConfigError, ModelNotFoundError, FetchError, IntegrityError, StorageFullError, and the
    errors of `open_checkpoint`.
    """
    if is_picked(source):
        entry, files = await _open_picked(source)
        return await open_checkpoint(entry, files, BrowserFiles(files), integrity)
    place, store = _place(source), await ModelStore.open(cache_backend)
    reporter = ProgressReporter(on_progress, Phase.FETCH)
    if has_several_files(place):
        manifest, files = await ensure_members(_Members(place, store, hub), place, reporter)
        return await open_checkpoint(manifest.entry, files, BrowserFiles(files), integrity)
    address, remote = _address(place), replace(hub.locate(place), sha256=place.sha256)
    file = await _ensure_file(store.file(address, place.sha256), remote, reporter)
    files = {address: file}
    return await open_checkpoint(SINGLE_FILE, files, BrowserFiles(files), integrity)


async def _open_picked(source: str) -> tuple[str, dict[str, SourceFile]]:
    """Returns the entry of the picked model, and its files."""
    files = await open_picked(source)
    if len(files) == 1:
        return SINGLE_FILE, {source: next(iter(files.values()))}
    folder = PickedFolder(source, files)
    entry = await find_entry(folder)
    return entry, {each.name: files[each.name] for each in await needed(entry, folder)}


async def has_model(source: str, cache_backend: str | None) -> bool:
    """Returns whether the store has all files; picked files are never stored."""
    if is_picked(source):
        return False
    place, store = _place(source), await ModelStore.open(cache_backend)
    if has_several_files(place):
        return await store.set(_address(place)).has()
    return await store.file(_address(place), place.sha256).has()


async def delete_model(source: str, cache_backend: str | None) -> None:
    """Deletes the files and any partial download of them; does nothing if there is none.

    Raises ArtifactError while a tab or worker fetches them.
    """
    if is_picked(source):
        return
    place, store = _place(source), await ModelStore.open(cache_backend)
    if has_several_files(place):
        await store.set(_address(place)).delete()
    else:
        await store.file(_address(place), place.sha256).delete()


class _Members:
    """The files of a source in a browser's store; see `MemberStore`."""

    def __init__(self, source: HTTPSource | HubSource, store: ModelStore, hub: HubAccess) -> None:
        self._source, self._store, self._hub = source, store, hub
        self._set = store.set(_address(source))
        self._keys: Any = None  # of the store, before anything is fetched

    async def manifest(self) -> Manifest | None:
        return await self._set.manifest()

    async def has(self) -> bool:
        return await self._set.has()

    def locked(self, reporter: ProgressReporter) -> AbstractAsyncContextManager[None]:
        return self._set.locked(lambda: reporter.update(_WAITING))

    async def find(self) -> Manifest:
        client, locate = FetchClient(), self._hub.locate
        if isinstance(self._source, HTTPSource):
            roots = self._source.roots
            folders = [RemoteFolder(root, client, locate, RETRY) for root in roots]
        else:
            folders = [await self._hub_folder(self._source, client)]
        found = await find_manifest(self._source, folders)
        return replace(found, source=_address(self._source))

    async def _hub_folder(self, source: HubSource, client: FetchClient) -> RemoteFolder:
        try:
            root, listed = (await list_files(source, self._hub)).folder(source)
        except ModelNotFoundError:  # some mirrors have the files alone
            if source.quantization is not None:
                raise
            return RemoteFolder(source.beside(""), client, self._hub.locate, RETRY)
        return RemoteFolder(root, client, self._hub.locate, RETRY, listed)

    async def put(self, manifest: Manifest) -> None:
        await self._set.put(manifest)

    async def delete(self, member: MemberSource) -> None:
        await self._store.file(str(member)).delete()

    async def ensure(self, member: MemberSource, reporter: ProgressReporter) -> SourceFile:
        spec = member.file
        remote = replace(
            self._hub.locate(member.place), sha256=spec.sha256, size=spec.size, md5=spec.md5
        )
        self._keys = self._keys or await self._set.keys()
        return await _ensure_file(self._store.file(str(member)), remote, reporter, self._keys)


async def _ensure_file(
    file: ModelFile, remote: RemoteFile, reporter: ProgressReporter, keys: Any = None
) -> SourceFile:
    """Returns a file of the store, fetching what is missing of it now or is damaged later.

    `keys`: see `ModelFile.find`.
    """
    stored = await file.find(keys) or await _fetched(file, remote, reporter)

    async def repair() -> Any:
        return await _repaired(file, remote, stored)

    return SourceFile(stored.windows, repair)


async def _fetched(file: ModelFile, remote: RemoteFile, reporter: ProgressReporter) -> StoredFile:
    async with file.locked(lambda: reporter.update(_WAITING)):
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


def _place(source: str) -> HTTPSource | HubSource:
    """Parses a source that a browser can fetch; a path becomes a URL."""
    parsed = parse_source(source, str(location.origin))
    if isinstance(parsed, LocalSource):
        url = str(URL.new(source.partition("#sha256=")[0], location.href).href)
        hashed = f"{url}#sha256={parsed.sha256}" if parsed.sha256 else url
        parsed = parse_source(hashed, str(location.origin))
    if isinstance(parsed, HTTPSource | HubSource):
        return parsed
    raise ConfigError(
        f"{source} cannot be fetched in a browser; put the model on the site, as `webllm "
        "bundle` and `webllm web` do, or name it in appConfig.model_list as https://…, "
        "hf:owner/repo/file or a path of the site"
    )


def _address(place: HTTPSource | HubSource) -> str:
    """Returns the URL by which the store knows a source, whatever mirror it comes from."""
    if isinstance(place, HTTPSource):
        return place.url
    quantization = f":{place.quantization}" if place.quantization else ""
    return f"{HUB_URL}/{place.url_path}{quantization}"
