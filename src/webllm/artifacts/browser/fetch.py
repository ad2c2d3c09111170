"""Downloads one file into a browser's store, resuming where it broke off and hashing on the way.

A download begins as one stream. If that is slow and the server supports ranges, the rest is fetched
in parts, several at a time. Parts stored earlier are kept if the server still has that version.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from js import Uint8Array

from webllm.artifacts.browser.response import BrokenError, ChangedError, FileResponse, request
from webllm.artifacts.browser.store import PART_BYTES, Incoming, part_size
from webllm.artifacts.destination import RemoteVersion
from webllm.artifacts.progress import ProgressReporter
from webllm.artifacts.retry import RetryPolicy
from webllm.errors import FetchError, IntegrityError, StorageFullError

_CONNECTIONS = 4
_SLOW_PART_S = 1.0  # if a part takes longer, the rest is fetched in parallel
_MIN_PARALLEL_PARTS = 2  # fewer parts are not worth new connections
_UNREACHED_ATTEMPTS = 3  # for a server that never responded: most often CORS forbids it


@dataclass(frozen=True, slots=True)
class BrowserFetchJob:
    """The file to fetch, and the callbacks for space and progress."""

    url: str
    sha256: str | None
    reporter: ProgressReporter
    require_space: Callable[[int], Awaitable[None]]
    retry: RetryPolicy = field(default_factory=RetryPolicy)


class Download:
    """Completes `incoming`; the caller holds the lock for its name."""

    def __init__(self, job: BrowserFetchJob, incoming: Incoming) -> None:
        self._job, self._incoming = job, incoming
        self._hash = hashlib.sha256()
        self._part = 0  # the next part to hash; all before it are stored
        self._chunks: list[Any] = []  # received bytes of that part
        self._chunk_bytes = 0
        self._loaded = 0  # bytes received and stored, in any order
        self._was_reached = self._has_ended = False
        self._takes_ranges: bool | None = None  # None: unknown

    async def run(self) -> None:
        """Downloads the file and marks it as complete.

        Raises ModelNotFoundError, FetchError (received bytes are kept), StorageFullError and
        IntegrityError (they are deleted).
        """
        self._job.reporter.update("Fetching model")
        await self._incoming.recover()
        try:
            while not self._has_ended:
                await self._round()
            await self._incoming.keep(self._loaded, self._verified())
        except (IntegrityError, StorageFullError):
            await self._incoming.drop()
            raise

    async def _round(self) -> None:
        """Streams the file; fetches the rest in parallel if the stream was too slow."""
        try:
            await self._persist(self._stream)
            if not self._has_ended:
                await self._in_parallel()
        except ChangedError:
            self._takes_ranges = False  # its parts may not even belong together
            await self._start_over(RemoteVersion())

    async def _persist(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Repeats a broken attempt until too many in a row received no new byte."""
        furthest, failures = self._loaded, 0
        while True:
            try:
                return await attempt()
            except BrokenError as broken:
                failures = 1 if self._loaded > furthest else failures + 1
                furthest = max(furthest, self._loaded)
                await asyncio.sleep(self._pause_s(broken, failures))

    def _pause_s(self, broken: BrokenError, failures: int) -> float:
        retry = self._job.retry
        retry_after_s = broken.pause_s or 0
        if retry_after_s > retry.max_retry_after_s:
            raise FetchError(
                f"{broken}: the server asks to wait {retry_after_s:.0f} s; try again later"
            )
        if failures >= (retry.attempts if self._was_reached else _UNREACHED_ATTEMPTS):
            raise FetchError(
                f"{self._job.url} failed {failures} times in a row; last error: {broken}; "
                f"{self._incoming.num_bytes} bytes are stored: load it again to resume"
            )
        return max(retry_after_s, retry.pause_s(failures))

    async def _stream(self) -> None:
        """Receives the rest of the file, until its end or until parallel parts are faster."""
        await self._hash_stored_parts()
        start = self._part * PART_BYTES + self._chunk_bytes
        self._loaded = self._incoming.num_bytes + self._chunk_bytes
        if self._incoming.version.size == start > 0:
            self._has_ended = True
            return
        async with request(self._job.url, start, None) as response:
            self._was_reached = True
            await self._accept(response, start)
            began = time.monotonic()
            async for chunk in response.chunks():
                if await self._append(chunk):
                    if self._is_better_in_parts(time.monotonic() - began):
                        self._drop_unfinished_part()
                        return
                    began = time.monotonic()
        await self._end()

    async def _hash_stored_parts(self) -> None:
        while not self._chunks and self._part in self._incoming.parts:
            blob = await self._incoming.get(self._part)
            if blob is None:
                return
            await self._hash_part([Uint8Array.new(await blob.arrayBuffer())])

    async def _accept(self, response: FileResponse, start: int) -> None:
        """Continues with the rest, or starts over if the response is the whole file."""
        if not response.is_part:
            await self._incoming.drop()  # frees the space of the other version
            self._loaded = 0
        elif not self._continues(response, start):
            raise ChangedError
        if response.version.size is not None:
            await self._job.require_space(response.version.size - self._loaded)
        if not response.is_part:
            await self._start_over(response.version)
        if self._takes_ranges is None:
            self._takes_ranges = response.takes_ranges

    def _continues(self, response: FileResponse, start: int) -> bool:
        return response.continues(self._incoming.version, start, self._job.sha256 is not None)

    async def _start_over(self, version: RemoteVersion) -> None:
        await self._incoming.restart(version)
        self._hash = hashlib.sha256()
        self._part, self._chunks, self._chunk_bytes, self._loaded = 0, [], 0, 0

    async def _append(self, chunk: Any) -> bool:
        """Adds a chunk of the stream; returns whether it completed a part."""
        self._arrived(chunk.byteLength)
        first_part = self._part
        while (room := PART_BYTES - self._chunk_bytes) <= chunk.byteLength:
            self._chunks.append(chunk.subarray(0, room))
            await self._put()
            chunk = chunk.subarray(room)
        if chunk.byteLength:
            self._chunks.append(chunk)
            self._chunk_bytes += chunk.byteLength
        return self._part > first_part

    async def _put(self) -> None:
        writing = self._incoming.put(self._part, self._chunks)
        await asyncio.gather(writing, self._hash_part(self._chunks))  # hashed while it is written
        self._chunks, self._chunk_bytes = [], 0

    async def _hash_part(self, chunks: list[Any]) -> None:
        """Hashes the next part."""
        for chunk in chunks:
            self._hash.update(chunk.to_bytes())
        self._part += 1

    def _drop_unfinished_part(self) -> None:
        self._loaded -= self._chunk_bytes
        self._chunks, self._chunk_bytes = [], 0

    def _is_better_in_parts(self, part_s: float) -> bool:
        size = self._incoming.version.size
        if not self._takes_ranges or size is None:
            return False
        if self._part in self._incoming.parts:
            return True
        return part_s > _SLOW_PART_S and size - self._part * PART_BYTES > (
            _MIN_PARALLEL_PARTS * PART_BYTES
        )

    async def _end(self) -> None:
        size = self._incoming.version.size
        if size is not None and self._loaded < size:
            raise BrokenError(f"the body ended after {self._loaded} of {size} bytes")
        if self._chunks:
            await self._put()
        self._has_ended = True

    async def _in_parallel(self) -> None:
        """Fetches the missing parts, several at a time, and hashes them in order."""
        size = self._incoming.version.size
        assert size is not None
        parts = iter(range(self._part, -(-size // PART_BYTES)))
        under_way: deque[asyncio.Task[list[Any]]] = deque()
        try:
            while True:
                while len(under_way) < _CONNECTIONS and (part := next(parts, None)) is not None:
                    under_way.append(asyncio.create_task(self._fetch_part(part, size)))
                if not under_way:
                    break
                await self._hash_part(await under_way.popleft())
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
        self._has_ended = True

    async def _fetch_part(self, part: int, size: int) -> list[Any]:
        if part in self._incoming.parts:
            here = await self._incoming.get(part)
            if here is not None:
                return [Uint8Array.new(await here.arrayBuffer())]
            self._loaded -= part_size(size, part)
        start, end = part * PART_BYTES, part * PART_BYTES + part_size(size, part)
        chunks: list[Any] = []

        async def attempt() -> None:
            first = start + sum(chunk.byteLength for chunk in chunks)
            async with request(self._job.url, first, end) as response:
                if not self._continues(response, first):
                    raise ChangedError
                async for chunk in response.chunks():
                    chunks.append(chunk)
                    first += chunk.byteLength
                    self._arrived(chunk.byteLength)
            if first > end:
                raise ChangedError
            if first < end:
                raise BrokenError(f"the part of {end} ended after {first} bytes")

        await self._persist(attempt)
        await self._incoming.put(part, chunks)
        return chunks

    def _arrived(self, num_bytes: int) -> None:
        self._loaded += num_bytes
        total = self._incoming.version.size
        if total is not None and self._loaded > total:
            raise IntegrityError(
                f"{self._job.url} sends more than the {total} bytes it announced; the download was "
                "discarded, load it again",
                url=self._job.url,
            )
        of_total = f" of {total / 1e6:.1f}" if total is not None else ""
        text = f"Fetching model: {self._loaded / 1e6:.1f}{of_total} MB"
        self._job.reporter.update(text, self._loaded, total)

    def _verified(self) -> str:
        digest = self._hash.hexdigest()
        if self._job.sha256 not in (None, digest):
            raise IntegrityError(
                f"{self._job.url} has the SHA-256 {digest}, expected "
                f"{self._job.sha256}; the download was discarded, load it again",
                url=self._job.url,
                expected=self._job.sha256,
                actual=digest,
            )
        return digest
