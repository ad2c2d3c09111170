"""A GGUF file mapped into memory, as a Checkpoint."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from contextlib import suppress
from os import PathLike
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from webllm.artifacts.checkpoint import TensorInfo
from webllm.artifacts.gguf_header import GGUFHeader, parse_header
from webllm.errors import CheckpointError, ModelNotFoundError, UnsupportedModelError


def open_gguf(path: str | PathLike[str]) -> GGUFCheckpoint:
    """Maps a GGUF file (version 2 or 3, little endian) and checks its whole header.

    Raises ModelNotFoundError if it cannot be opened, CheckpointError if it is malformed or
    truncated, UnsupportedModelError for a valid one that we do not read (big endian, tensor types).
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise CheckpointError(f"{path}: the file is empty; download it again") from None
    except OSError as error:
        raise ModelNotFoundError(f"{path}: cannot be opened ({error.strerror})") from error
    try:
        with memoryview(mapped) as view:
            header = parse_header(view, len(view))
    except (CheckpointError, UnsupportedModelError) as error:
        mapped.close()
        raise type(error)(f"{path}: {error}") from None
    return GGUFCheckpoint(path, mapped, header)


class GGUFCheckpoint:
    """An open GGUF file; see `Checkpoint` for its members."""

    def __init__(
        self,
        path: Path,
        mapped: mmap.mmap,
        header: GGUFHeader,
    ) -> None:
        self.path = path
        self.metadata: Mapping[str, object] = MappingProxyType(header.metadata)
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(header.tensors)
        self.fingerprint = header.fingerprint
        self.nbytes = sum(tensor.nbytes for tensor in header.tensors.values())
        self._mapped: mmap.mmap | None = mapped

    def data(self, name: str) -> memoryview:
        """Returns the bytes of a tensor, uncopied; the view stays valid after `close`."""
        if self._mapped is None:
            raise CheckpointError(f"{self.path}: is closed; open it again to read {name!r}")
        tensor = self.tensors.get(name)
        if tensor is None:
            some = ", ".join(list(self.tensors)[:3]) or "none"
            raise ModelNotFoundError(
                f"{self.path}: has no tensor {name!r} among its {len(self.tensors)} ({some}, …)"
            )
        return memoryview(self._mapped)[tensor.offset : tensor.offset + tensor.nbytes]

    async def read(self, name: str, start: int, num_bytes: int) -> memoryview:
        return self.data(name)[start : start + num_bytes]

    def close(self) -> None:
        """Unmaps the file, or leaves that to the last view of it."""
        mapped, self._mapped = self._mapped, None
        if mapped is not None:
            with suppress(BufferError):  # views keep the mapping alive
                mapped.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
