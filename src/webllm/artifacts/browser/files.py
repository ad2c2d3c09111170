"""The files of a model in a browser: of its store, or picked. Python holds none whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pyodide.ffi import to_js

from webllm.artifacts.browser.store import answered
from webllm.artifacts.checkpoint import JsBytes
from webllm.errors import IntegrityError, ModelNotFoundError

Repair = Callable[[], Awaitable[Any]]  # fetches damaged parts anew, returns another WindowedFile

_MAX_REPAIRS = 10  # of one read; a store may damage what it has just stored
_NUM_GATHERED = 32  # windows kept by all files of a model together
_NUM_WARM = 2  # files that keep the windows they have read last


class SourceFile:
    """A `WindowedFile` of windows.js. Parts that are damaged in its store are fetched anew."""

    def __init__(self, windows: Any, repair: Repair | None = None) -> None:
        self.num_bytes = int(windows.size)
        self._windows, self._repair = windows, repair

    async def read(self, start: int, end: int) -> Any:
        """Returns bytes `start` to `end` as a Uint8Array."""
        return await self._repaired(lambda: self._windows.read(start, end))

    async def gather(
        self, ranges: list[tuple[int, int]], num_kept: int = _NUM_GATHERED
    ) -> list[bytes]:
        """Returns the bytes of small ranges from all over the file.

        Keeps `num_kept` of the windows that it reads for `read`.
        """
        pairs = to_js(ranges)
        found = await self._repaired(lambda: self._windows.gather(pairs, num_kept))
        return [data.to_bytes() for data in found]

    def forget(self) -> None:
        """Frees the windows that were read last."""
        self._windows.forget()

    async def _repaired(self, read: Callable[[], Any]) -> Any:
        for _ in range(_MAX_REPAIRS if self._repair else 0):  # each finds damage further on
            try:
                return await answered(read())
            except IntegrityError:
                assert self._repair is not None
                self._windows = await self._repair()
        return await answered(read())


class BrowserFiles:
    """`Files` of a browser, whose bytes enter Python by `load` and `gather` only."""

    def __init__(self, files: Mapping[str, SourceFile]) -> None:
        self._files = dict(files)
        self._warm: list[str] = []  # the last is the one read last

    def size(self, name: str) -> int:
        return self._file(name).num_bytes

    async def load(self, name: str, start: int, end: int) -> bytes:
        data: bytes = (await self._warmed(name).read(start, end)).to_bytes()
        return data

    async def gather(self, name: str, ranges: list[tuple[int, int]]) -> list[bytes]:
        return await self._warmed(name).gather(ranges, _NUM_GATHERED // len(self._files))

    async def read(self, name: str, start: int, end: int) -> JsBytes:
        data: JsBytes = await self._warmed(name).read(start, end)
        return data

    def close(self) -> None:
        self._files.clear()

    def _file(self, name: str) -> SourceFile:
        if name not in self._files:
            raise ModelNotFoundError(f"the model lacks the file {name}")
        return self._files[name]

    def _warmed(self, name: str) -> SourceFile:
        """Returns a file; of those that were read before it, all but a few free their windows."""
        file = self._file(name)
        if name in self._warm:
            self._warm.remove(name)
        self._warm.append(name)
        if len(self._warm) > _NUM_WARM:
            self._files[self._warm.pop(0)].forget()
        return file
