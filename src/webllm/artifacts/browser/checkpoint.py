"""A GGUF file in a browser, as a Checkpoint. Python holds only its header and vectors."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Self

from webllm.artifacts.browser.files import WindowedFiles
from webllm.artifacts.checkpoint import JsBytes, TensorInfo
from webllm.artifacts.gguf_header import GGUFHeader, MoreBytesNeeded, parse_header
from webllm.errors import CheckpointError, ModelNotFoundError, UnsupportedModelError

_HEADER_BYTES = 4 << 20  # first read; enough for a vocabulary of 100,000 tokens


async def open_gguf_file(name: str, files: WindowedFiles) -> BrowserCheckpoint:
    """Opens the GGUF file `name`: checks the whole header and reads all vectors.

    Raises CheckpointError if the file is malformed or truncated, UnsupportedModelError if it is
    valid but we do not read it.
    """
    try:
        header = await _read_header(name, files)
    except (CheckpointError, UnsupportedModelError) as error:
        raise type(error)(f"{files.place(name)}: {error}") from None
    checkpoint = BrowserCheckpoint(name, files, header)
    await checkpoint.read_vectors()
    return checkpoint


async def _read_header(name: str, files: WindowedFiles) -> GGUFHeader:
    num_bytes = _HEADER_BYTES
    while True:
        start: Any = await files.read(name, 0, num_bytes)
        try:
            with start.to_memoryview() as view:
                return parse_header(view, files.size(name))
        except MoreBytesNeeded as more:
            num_bytes = max(more.num_bytes, 2 * num_bytes)


class BrowserCheckpoint:
    """An open GGUF file; see `Checkpoint` for its members."""

    def __init__(self, name: str, files: WindowedFiles, header: GGUFHeader) -> None:
        self.metadata: Mapping[str, object] = MappingProxyType(header.metadata)
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(header.tensors)
        self.fingerprint = header.fingerprint
        self.nbytes = sum(tensor.nbytes for tensor in header.tensors.values())
        self._name = name
        self._files = files
        self._vectors: dict[str, bytes] = {}

    async def read_vectors(self) -> None:
        vectors = [tensor for tensor in self.tensors.values() if len(tensor.shape) == 1]
        found = await self._files.gather(
            self._name, [(each.offset, each.offset + each.nbytes) for each in vectors]
        )
        self._vectors = {each.name: data for each, data in zip(vectors, found, strict=True)}

    def data(self, name: str) -> memoryview:
        """Returns the bytes of a vector; larger tensors are read by `read`."""
        if name not in self._vectors:
            raise ModelNotFoundError(f"{self._files.place(self._name)}: has no vector {name!r}")
        return memoryview(self._vectors[name]).toreadonly()

    async def read(self, name: str, start: int, num_bytes: int) -> JsBytes:
        return await self._files.read(self._name, self.tensors[name].offset + start, num_bytes)

    def close(self) -> None:
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
