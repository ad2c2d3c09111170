"""Files on this disk, mapped into memory."""

from __future__ import annotations

import mmap
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from webllm.artifacts.files import Span
from webllm.errors import CheckpointError, ModelNotFoundError


class MappedFiles:
    """The open files of one model; see `Files` for its members.

    Raises ModelNotFoundError for a file that cannot be opened, CheckpointError for an empty one.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = dict(paths)
        self._mapped: dict[str, mmap.mmap] = {}
        try:
            for name, path in self._paths.items():
                self._mapped[name] = _mapped(path)
        except BaseException:
            self.close()
            raise
        self._sizes = {name: len(each) for name, each in self._mapped.items()}

    @property
    def names(self) -> Collection[str]:
        return self._paths.keys()

    def place(self, name: str) -> str:
        return str(self._paths[name])

    def size(self, name: str) -> int:
        return self._sizes[name]

    def view(self, name: str, start: int, num_bytes: int) -> memoryview:
        """Returns part of a file, read-only and uncopied; it stays valid after `close`."""
        path = self._paths[name]
        if name not in self._mapped:
            raise CheckpointError(f"{path}: is closed; open the model again to read it")
        return memoryview(self._mapped[name])[start : start + num_bytes]

    async def load(self, name: str) -> bytes:
        return bytes(self.view(name, 0, self.size(name)))

    async def peek(self, name: str, start: int, num_bytes: int) -> bytes:
        return bytes(self.view(name, start, num_bytes))

    async def read(self, name: str, start: int, num_bytes: int) -> memoryview:
        return self.view(name, start, num_bytes)

    async def gather(self, name: str, spans: Sequence[Span]) -> list[bytes]:
        return [bytes(self.view(name, start, end - start)) for start, end in spans]

    def close(self) -> None:
        """Unmaps the files, or leaves that to the last view of each."""
        while self._mapped:
            _, mapped = self._mapped.popitem()
            with suppress(BufferError):  # views keep the mapping alive
                mapped.close()


def _mapped(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise CheckpointError(f"{path}: the file is empty; download it again") from None
    except OSError as error:
        raise ModelNotFoundError(f"{path}: cannot be opened ({error.strerror})") from error
