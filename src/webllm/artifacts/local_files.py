"""The files of a model in a folder, mapped into memory."""

from __future__ import annotations

import mmap
from collections.abc import Coroutine, Iterable, Mapping
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import TypeVar

from webllm.artifacts.checkpoint import Checkpoint
from webllm.artifacts.formats import open_checkpoint
from webllm.artifacts.integrity import Integrity
from webllm.artifacts.local_folder import ModelPaths, local_model
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
                raise ModelNotFoundError(f"the model lacks the file {name}")
            try:
                with path.open("rb") as file:
                    self._mapped[name] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError:
                raise CheckpointError(f"{path}: the file is empty; download it again") from None
            except OSError as error:
                raise ModelNotFoundError(f"{path}: cannot be opened ({error.strerror})") from error
        return self._mapped[name]


def open_local(path: str | PathLike[str]) -> Checkpoint:
    """Opens the model at `path`: a file, or the folder of several.

    Raises what `local_model` and `open_checkpoint` raise.
    """
    return open_paths(_finish(local_model(Path(path))))


def open_paths(model: ModelPaths, integrity: Integrity | None = None) -> Checkpoint:
    """Opens a model of this disk; raises what `open_checkpoint` raises."""
    return _finish(open_checkpoint(model.entry, model.paths, LocalFiles(model.paths), integrity))


def _finish(coroutine: Coroutine[None, None, _T]) -> _T:
    """Runs a coroutine that waits for nothing: the files are here."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: _T = done.value
        return result
    raise AssertionError("a file on this disk was waited for")
