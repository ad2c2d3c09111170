"""A partly downloaded file on this disk.

    ….part    the parts, each in its place
    ….log     one line per stored part: its number and the checksums of its windows
    ….json    the version on the server

The note is written before the first part, and a line of the log after the bytes of its part. So
whatever ends the process, a part without a line counts as absent, and one whose bytes differ from
its line is not read.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import msgspec

from webllm.artifacts.checksum import checksums
from webllm.artifacts.destination import PART_BYTES, Chunk, RemoteVersion
from webllm.artifacts.storage_errors import require_space, storage_errors

T = TypeVar("T")
_LINE = re.compile(r"([0-9]{1,9})((?: [0-9a-f]{16})+)\n")


class PartialFile:
    """A `Destination` at `path`; `store` moves the complete file to where it belongs.

    There is one writer at a time: it holds the store's lock for `source`.
    """

    part_bytes = PART_BYTES

    def __init__(
        self,
        path: Path,
        source: object,
        store: Callable[[Path, str, RemoteVersion, Sequence[int]], object],
    ) -> None:
        self.path = path
        self._source, self._store = source, store
        self._note, self._log = path.with_suffix(".json"), path.with_suffix(".log")
        self._sums: dict[int, list[int]] = {}
        self._log_lock = threading.Lock()  # parts are put in several threads

    async def recover(self) -> tuple[RemoteVersion, set[int]]:
        return await self._in_thread(self._recover)

    def _recover(self) -> tuple[RemoteVersion, set[int]]:
        self._sums = {}
        try:
            version = msgspec.convert(json.loads(self._note.read_bytes()), RemoteVersion)
            log = self._log.read_text("ascii", "replace")
        except (FileNotFoundError, ValueError, RecursionError):
            return RemoteVersion(), set()
        if not self.path.exists():  # it was moved into the store
            return RemoteVersion(), set()
        if not log.endswith("\n"):
            with self._log.open("ab") as file:
                file.write(b" cut\n")  # must not damage the next line
        for line in filter(None, map(_LINE.fullmatch, log.splitlines(keepends=True))):
            self._sums[int(line[1])] = [int(each, 16) for each in line[2].split()]
        return version, set(self._sums)

    async def restart(self, version: RemoteVersion) -> None:
        await self._in_thread(self._restart, version)

    def _restart(self, version: RemoteVersion) -> None:
        self.delete()
        self.path.touch()
        self._write_note(version)

    async def require_space(self, num_bytes: int) -> None:
        require_space(self.path.parent, num_bytes, self._source)

    async def put(self, part: int, chunks: Sequence[Chunk]) -> None:
        await self._in_thread(self._put, part, chunks)

    def _put(self, part: int, chunks: Sequence[Chunk]) -> None:
        data = b"".join(map(bytes, chunks))
        with self.path.open("r+b") as file:
            file.seek(part * PART_BYTES)
            file.write(data)
        self._write_log({part: checksums(data)})

    async def read(self, part: int) -> bytes | None:
        return await self._in_thread(self._read, part)

    def _read(self, part: int) -> bytes | None:
        with self.path.open("rb") as file:
            file.seek(part * PART_BYTES)
            data = file.read(PART_BYTES)
        if data and checksums(data) == self._sums.get(part):
            return data
        self._sums.pop(part, None)
        return None

    async def keep(self, version: RemoteVersion, sha256: str) -> None:
        await self._in_thread(self._keep, version, sha256)

    def _keep(self, version: RemoteVersion, sha256: str) -> None:
        with self.path.open("r+b") as file:
            os.fsync(file.fileno())  # a rename is never more durable than the bytes
        assert version.size is not None
        num_parts = -(-version.size // PART_BYTES)
        sums = [each for part in range(num_parts) for each in self._sums[part]]
        self._store(self.path, sha256, version, sums)
        self.delete()

    async def drop(self) -> None:
        await self._in_thread(self.delete)

    def delete(self) -> int:
        """Deletes everything, the log first; returns the bytes freed."""
        self._sums = {}
        self._log.unlink(missing_ok=True)
        num_bytes = self.path.stat().st_size if self.path.exists() else 0
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        return num_bytes

    def take(
        self, file: Path, version: RemoteVersion, checksums: Mapping[int, Sequence[int]]
    ) -> None:
        """Starts over with a complete file, of which the parts with `checksums` are good."""
        self.delete()
        self._write_note(version)
        self._write_log(checksums)
        os.replace(file, self.path)  # last: without a file, note and log count as nothing

    def _write_note(self, version: RemoteVersion) -> None:
        self._note.write_text(json.dumps(asdict(version)))

    def _write_log(self, checksums: Mapping[int, Sequence[int]]) -> None:
        with self._log_lock, self._log.open("ab") as log:
            for part, sums in checksums.items():
                log.write(f"{part}{''.join(f' {each:016x}' for each in sums)}\n".encode())
                self._sums[part] = list(sums)

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        """Runs `work` in a thread, to its end even if cancelled: then the lock is released."""
        with storage_errors(self.path):
            loop = asyncio.get_running_loop()
            running = loop.run_in_executor(None, work, *arguments)
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                while not running.done():  # also if it is cancelled again
                    with suppress(asyncio.CancelledError):
                        await asyncio.wait({running})
                running.exception()  # of no interest any more
                raise
