"""A GGUF file in a browser, as a Checkpoint. Python holds only its header and vectors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Self

from pyodide.ffi import to_js

from webllm.artifacts.browser.store import answered
from webllm.artifacts.checkpoint import JsBytes, TensorInfo
from webllm.artifacts.gguf_header import GGUFHeader, MoreBytesNeeded, parse_header
from webllm.errors import CheckpointError, IntegrityError, ModelNotFoundError, UnsupportedModelError

Repair = Callable[[], Awaitable[Any]]  # fetches damaged parts anew, returns another WindowedFile

_MAX_REPAIRS = 10  # of one read; a store may damage what it has just stored
_HEADER_BYTES = 4 << 20  # first read; enough for a vocabulary of 100,000 tokens


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


async def open_gguf_file(name: str, file: SourceFile) -> BrowserCheckpoint:
    """Opens a GGUF file: checks the whole header and reads all vectors.

    Raises CheckpointError if the file is malformed or truncated, UnsupportedModelError if it is
    valid but we do not read it.
    """
    try:
        header = await _read_header(file)
    except (CheckpointError, UnsupportedModelError) as error:
        raise type(error)(f"{name}: {error}") from None
    checkpoint = BrowserCheckpoint(name, file, header)
    await checkpoint.read_vectors()
    return checkpoint


async def _read_header(file: SourceFile) -> GGUFHeader:
    num_bytes = _HEADER_BYTES
    while True:
        start = await file.read(0, min(num_bytes, file.num_bytes))
        try:
            with start.to_memoryview() as view:
                return parse_header(view, file.num_bytes)
        except MoreBytesNeeded as more:
            num_bytes = max(more.num_bytes, 2 * num_bytes)


class BrowserCheckpoint:
    """An open GGUF file; see `Checkpoint` for its members."""

    def __init__(self, name: str, file: SourceFile, header: GGUFHeader) -> None:
        self.metadata: Mapping[str, object] = MappingProxyType(header.metadata)
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(header.tensors)
        self.fingerprint = header.fingerprint
        self.nbytes = sum(tensor.nbytes for tensor in header.tensors.values())
        self._name = name
        self._file: SourceFile | None = file
        self._vectors: dict[str, bytes] = {}

    async def read_vectors(self) -> None:
        assert self._file is not None
        vectors = [tensor for tensor in self.tensors.values() if len(tensor.shape) == 1]
        found = await self._file.gather(
            [(each.offset, each.offset + each.nbytes) for each in vectors]
        )
        self._vectors = {each.name: data for each, data in zip(vectors, found, strict=True)}

    def data(self, name: str) -> memoryview:
        """Returns the bytes of a vector; larger tensors are read by `read`."""
        if name not in self._vectors:
            raise ModelNotFoundError(f"{self._name}: has no vector {name!r}")
        return memoryview(self._vectors[name]).toreadonly()

    async def read(self, name: str, start: int, num_bytes: int) -> JsBytes:
        if self._file is None:
            raise CheckpointError(f"{self._name}: is closed; open it again to read {name!r}")
        first = self.tensors[name].offset + start
        data: JsBytes = await self._file.read(first, first + num_bytes)
        return data

    def close(self) -> None:
        self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
