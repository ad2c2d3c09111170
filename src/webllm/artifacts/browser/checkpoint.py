"""A GGUF file in a browser's Blob, as a Checkpoint. Python holds only its header and vectors."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Self

from js import Uint8Array

from webllm.artifacts.browser.promises import settled
from webllm.artifacts.browser.windows import BlobWindows
from webllm.artifacts.checkpoint import JsBytes, TensorInfo
from webllm.artifacts.gguf_header import GGUFHeader, MoreBytesNeeded, parse_header
from webllm.errors import CheckpointError, ModelNotFoundError, UnsupportedModelError

_HEADER_BYTES = 4 << 20  # first read; enough for a vocabulary of 100,000 tokens


async def open_gguf_blob(name: str, blob: Any) -> BlobCheckpoint:
    """Opens a GGUF file: checks the whole header and reads all vectors.

    Raises CheckpointError if the file is malformed or truncated, UnsupportedModelError if it is
    valid but we do not read it.
    """
    try:
        header = await _read_header(blob)
    except (CheckpointError, UnsupportedModelError) as error:
        raise type(error)(f"{name}: {error}") from None
    checkpoint = BlobCheckpoint(name, blob, header)
    await checkpoint.read_vectors()
    return checkpoint


async def _read_header(blob: Any) -> GGUFHeader:
    file_bytes, num_bytes = int(blob.size), _HEADER_BYTES
    while True:
        start = await _slice(blob, 0, min(num_bytes, file_bytes))
        try:
            with start.to_memoryview() as view:
                return parse_header(view, file_bytes)
        except MoreBytesNeeded as more:
            num_bytes = max(more.num_bytes, 2 * num_bytes)


async def _slice(blob: Any, start: int, end: int) -> Any:
    return Uint8Array.new(await settled(blob.slice(start, end).arrayBuffer()))


class BlobCheckpoint:
    """An open GGUF file; see `Checkpoint` for its members."""

    def __init__(self, name: str, blob: Any, header: GGUFHeader) -> None:
        self.metadata: Mapping[str, object] = MappingProxyType(header.metadata)
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(header.tensors)
        self.nbytes = sum(tensor.nbytes for tensor in header.tensors.values())
        self._name = name
        self._blob = blob
        self._windows: BlobWindows | None = BlobWindows(blob)
        self._vectors: dict[str, bytes] = {}

    async def read_vectors(self) -> None:
        vectors = [tensor for tensor in self.tensors.values() if len(tensor.shape) == 1]
        found = await asyncio.gather(
            *(_slice(self._blob, each.offset, each.offset + each.nbytes) for each in vectors)
        )
        for tensor, data in zip(vectors, found, strict=True):
            self._vectors[tensor.name] = data.to_bytes()

    def data(self, name: str) -> memoryview:
        """Returns the bytes of a vector; larger tensors are read by `read`."""
        if name not in self._vectors:
            raise ModelNotFoundError(f"{self._name}: has no vector {name!r}")
        return memoryview(self._vectors[name]).toreadonly()

    async def read(self, name: str, start: int, num_bytes: int) -> JsBytes:
        if self._windows is None:
            raise CheckpointError(f"{self._name}: is closed; open it again to read {name!r}")
        first = self.tensors[name].offset + start
        data: JsBytes = await self._windows.read(first, first + num_bytes)
        return data

    def close(self) -> None:
        self._blob = self._windows = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
