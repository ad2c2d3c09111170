"""The files of a model in a browser: of its store, or picked. Python holds none whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from pyodide.ffi import to_js

from webllm.artifacts.browser.store import answered
from webllm.artifacts.checkpoint import JsBytes
from webllm.artifacts.files import Span
from webllm.errors import CheckpointError, IntegrityError

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

    async def gather(self, ranges: Sequence[Span], num_kept: int = _NUM_GATHERED) -> list[bytes]:
        """Returns the bytes of small ranges from all over the file.

        Keeps `num_kept` of the windows that it reads for `read`.
        """
        pairs = to_js(list(ranges))
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


class WindowedFiles:
    """The open files of one model; see `Files` for its members. `place` says where they are."""

    def __init__(self, place: str, files: Mapping[str, SourceFile]) -> None:
        self._place, self._files = place, dict(files)
        self._sizes = {name: file.num_bytes for name, file in files.items()}
        self._warm: list[str] = []  # the last is the one read last

    @property
    def names(self) -> Collection[str]:
        return self._sizes.keys()

    def place(self, name: str) -> str:
        return self._place if len(self._sizes) == 1 else f"{name} of {self._place}"

    def size(self, name: str) -> int:
        return self._sizes[name]

    async def load(self, name: str) -> bytes:
        return await self.peek(name, 0, self._sizes[name])

    async def peek(self, name: str, start: int, num_bytes: int) -> bytes:
        data: bytes = (await self.read(name, start, num_bytes)).to_bytes()  # type: ignore[attr-defined]
        return data

    async def read(self, name: str, start: int, num_bytes: int) -> JsBytes:
        end = min(start + num_bytes, self._sizes[name])
        data: JsBytes = await self._file(name).read(start, end)
        return data

    async def gather(self, name: str, spans: Sequence[Span]) -> list[bytes]:
        return await self._file(name).gather(spans, _NUM_GATHERED // len(self._sizes))

    def close(self) -> None:
        self._files.clear()

    def _file(self, name: str) -> SourceFile:
        """Returns a file; of those that were read before it, all but a few free their windows."""
        if name not in self._files:
            raise CheckpointError(f"{self.place(name)}: is closed; open the model again to read it")
        if name in self._warm:
            self._warm.remove(name)
        self._warm.append(name)
        if len(self._warm) > _NUM_WARM:
            self._files[self._warm.pop(0)].forget()
        return self._files[name]
