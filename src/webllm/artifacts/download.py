"""Downloads one file into a destination: `Transfer` decides, a client receives.

Both hosts use it: natively with httpx and a folder, in a browser with `fetch` and its stores.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from webllm.artifacts.destination import Chunk, Destination
from webllm.artifacts.progress import ProgressReporter
from webllm.artifacts.response_head import BrokenError, ChangedError, Head
from webllm.artifacts.retry import RetryPolicy
from webllm.artifacts.transfer import CONNECTIONS, Part, RemoteFile, Span, Transfer
from webllm.errors import IntegrityError


class Response(Protocol):
    """A response whose body is still to come."""

    @property
    def head(self) -> Head: ...

    def chunks(self) -> AsyncIterator[Chunk]:
        """Yields the body as it arrives; raises BrokenError if the connection breaks."""


class Client(Protocol):
    """Requests files. cors: see `Transfer`."""

    cors: bool

    def get(self, url: str, headers: Mapping[str, str]) -> AbstractAsyncContextManager[Response]:
        """Requests a file; leaving the block ends the response.

        Raises BrokenError if another attempt may succeed, FetchError otherwise.
        """


async def download(
    file: RemoteFile,
    client: Client,
    destination: Destination,
    reporter: ProgressReporter,
    retry: RetryPolicy | None = None,
) -> None:
    """Downloads `file` and marks it as complete; what is stored of it already is not requested.

    Raises ModelNotFoundError for 404 and 410, FetchError if the server refuses or the retries are
    used up, StorageFullError, IntegrityError if the size or hash is wrong. The last one deletes the
    parts; after any other error, or if it is cancelled, the next call resumes.
    """
    transfer = Transfer(file, destination.part_bytes, retry or RetryPolicy(), cors=client.cors)
    await _Download(transfer, client, destination, reporter).run()


class _Download:
    def __init__(
        self,
        transfer: Transfer,
        client: Client,
        destination: Destination,
        reporter: ProgressReporter,
    ) -> None:
        self._transfer, self._client = transfer, client
        self._destination, self._reporter = destination, reporter

    async def run(self) -> None:
        transfer = self._transfer
        self._reporter.update("Fetching model")
        transfer.recover(*await self._destination.recover())
        try:
            await self._hash_stored()
            while not transfer.is_whole:
                try:
                    if stream := transfer.stream():
                        await self._fetch(stream)
                    await self._fetch_parts()
                except ChangedError:
                    transfer.changed()
            sha256 = transfer.verified()
        except IntegrityError:
            await self._destination.drop()
            raise
        await self._destination.keep(transfer.version, sha256)

    async def _fetch_parts(self) -> None:
        """Fetches the parts that are missing, several at a time."""
        tasks: set[asyncio.Task[None]] = set()
        try:
            # A part counts as hashed while it is still being written.
            while tasks or not self._transfer.is_whole:
                while len(tasks) < CONNECTIONS and (span := self._transfer.next_part()):
                    tasks.add(asyncio.create_task(self._fetch(span)))
                if tasks:
                    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        tasks.remove(task)
                        task.result()  # the errors of others are gathered below
                await self._hash_stored()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _hash_stored(self) -> None:
        """Hashes the parts that were stored before, as far as they come next."""
        while (part := self._transfer.part_to_read()) is not None:
            data = await self._destination.read(part)
            if data is None:
                self._transfer.lost(part)
            else:
                self._transfer.stored(part, [data])

    async def _fetch(self, span: Span) -> None:
        """Receives a span to its end, or until the rest of a stream is better fetched in parts."""
        while True:
            try:
                return await self._attempt(span)
            except BrokenError as broken:
                await asyncio.sleep(self._transfer.failed(span, broken))

    async def _attempt(self, span: Span) -> None:
        transfer = self._transfer
        headers = transfer.request_headers(span)
        async with self._client.get(transfer.file.url, headers) as response:
            await self._accept(span, response.head)
            began = time.monotonic()
            async for chunk in response.chunks():
                parts = transfer.received(span, chunk)
                self._reporter.fetched(transfer.loaded, transfer.version.size)
                if await self._store(parts):
                    if transfer.should_split(span, time.monotonic() - began):
                        return
                    began = time.monotonic()
        await self._store(transfer.ended(span))

    async def _accept(self, span: Span, head: Head) -> None:
        transfer = self._transfer
        whole = transfer.accept(span, head)
        if whole is not None:
            await self._destination.drop()  # frees the space of another version
            span.seek(0)
            transfer.restart(whole)
        if transfer.version.size is not None:
            await self._destination.require_space(transfer.version.size - transfer.loaded)
        if whole is not None:
            await self._destination.restart(whole)

    async def _store(self, parts: list[Part]) -> bool:
        """Stores parts, each hashed while it is written; returns whether there were any."""
        for part, chunks in parts:
            await asyncio.gather(self._destination.put(part, chunks), self._hash(part, chunks))
        return bool(parts)

    async def _hash(self, part: int, chunks: list[Chunk]) -> None:
        self._transfer.stored(part, chunks)
