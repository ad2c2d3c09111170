"""The files of a model in a folder, mapped into memory."""

from __future__ import annotations

import mmap
from collections.abc import Coroutine, Iterable, Mapping
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import TypeVar

from webllm.artifacts.checkpoint import Checkpoint
from webllm.artifacts.gguf.reader import describe
from webllm.errors import CheckpointError, ModelNotFoundError

_T = TypeVar("_T")


class LocalFiles:
    """`Files` by their paths; each is mapped when it is first read."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = paths
        self._mapped: dict[str, mmap.mmap] = {}

    def size(self, name: str) -> int:
        return len(self._map(name))

    async def load(self, name: str, start: int, end: int) -> memoryview:
        return memoryview(self._map(name))[start:end]

    async def gather(self, name: str, ranges: Iterable[tuple[int, int]]) -> list[bytes]:
        mapped = self._map(name)
        return [mapped[start:end] for start, end in ranges]

    async def read(self, name: str, start: int, end: int) -> memoryview:
        return memoryview(self._map(name))[start:end]

    def close(self) -> None:
        """Unmaps the files, or leaves that to the last view of each."""
        while self._mapped:
            _, mapped = self._mapped.popitem()
            with suppress(BufferError):  # views keep the mapping alive
                mapped.close()

    def _map(self, name: str) -> mmap.mmap:
        if name not in self._mapped:
            path = self._paths.get(name)
            if path is None:
                raise ModelNotFoundError(f"the model file lacks {name}")
            try:
                with path.open("rb") as file:
                    self._mapped[name] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError:
                raise CheckpointError(f"{path}: the file is empty; download it again") from None
            except OSError as error:
                raise ModelNotFoundError(f"{path}: cannot be opened ({error.strerror})") from error
        return self._mapped[name]


def open_local(path: str | PathLike[str]) -> Checkpoint:
    """Opens the GGUF file at `path` and checks its whole header.

    Raises ModelNotFoundError if it cannot be opened, and the errors of `describe`.
    """
    path = Path(path)
    files = LocalFiles({str(path): path})
    return _finish(_open([str(path)], files))


async def _open(names: list[str], files: LocalFiles) -> Checkpoint:
    try:
        checkpoint = Checkpoint(await describe(names, files), files)
        await checkpoint.read_vectors()
    except BaseException:
        files.close()
        raise
    return checkpoint


def _finish(coroutine: Coroutine[None, None, _T]) -> _T:
    """Runs a coroutine that waits for nothing: the files are here."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: _T = done.value
        return result
    raise AssertionError("a file on this disk was waited for")
