"""Model files in a browser. Python holds only their headers and vectors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from pyodide.ffi import to_js

from webllm.artifacts.browser.store import answered
from webllm.artifacts.checkpoint import Checkpoint, JsBytes
from webllm.artifacts.gguf.reader import describe
from webllm.errors import IntegrityError, ModelNotFoundError

Repair = Callable[[], Awaitable[Any]]  # fetches damaged parts anew, returns another WindowedFile

_MAX_REPAIRS = 10  # of one read; a store may damage what it has just stored


class SourceFile:
    """A `WindowedFile` of windows.js. Parts that are damaged in its store are fetched anew."""

    def __init__(self, windows: Any, repair: Repair | None = None) -> None:
        self.num_bytes = int(windows.size)
        self._windows, self._repair = windows, repair

    async def read(self, start: int, end: int) -> Any:
        """Returns bytes `start` to `end` as a Uint8Array."""
        return await self._repaired(lambda: self._windows.read(start, end))

    async def gather(self, ranges: list[tuple[int, int]]) -> list[bytes]:
        """Returns the bytes of small ranges from all over the file."""
        pairs = to_js(ranges)
        found = await self._repaired(lambda: self._windows.gather(pairs))
        return [data.to_bytes() for data in found]

    async def _repaired(self, read: Callable[[], Any]) -> Any:
        for _ in range(_MAX_REPAIRS if self._repair else 0):  # each finds damage further on
            try:
                return await answered(read())
            except IntegrityError:
                assert self._repair is not None
                self._windows = await self._repair()
        return await answered(read())


class BrowserFiles:
    """`Files` of a browser: one file, whose bytes enter Python by `load` and `gather` only."""

    def __init__(self, name: str, file: SourceFile) -> None:
        self._files = {name: file}

    def size(self, name: str) -> int:
        return self._file(name).num_bytes

    async def load(self, name: str, start: int, end: int) -> bytes:
        data: bytes = (await self._file(name).read(start, end)).to_bytes()
        return data

    async def gather(self, name: str, ranges: list[tuple[int, int]]) -> list[bytes]:
        return await self._file(name).gather(ranges)

    async def read(self, name: str, start: int, end: int) -> JsBytes:
        data: JsBytes = await self._file(name).read(start, end)
        return data

    def close(self) -> None:
        self._files.clear()

    def _file(self, name: str) -> SourceFile:
        if name not in self._files:
            raise ModelNotFoundError(f"the model file lacks {name}")
        return self._files[name]


async def open_gguf_file(name: str, file: SourceFile) -> Checkpoint:
    """Opens a GGUF file: checks the whole header and reads all vectors.

    Raises CheckpointError if the file is malformed or truncated, UnsupportedModelError if it is
    valid but we do not read it.
    """
    files = BrowserFiles(name, file)
    checkpoint = Checkpoint(await describe([name], files), files)
    await checkpoint.read_vectors()
    return checkpoint
