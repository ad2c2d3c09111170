"""A model file of any format: its configuration, tensors and tokenizer, and the bytes of tensors.

Names storage types and their block sizes. Knows no file format and no arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from math import prod
from types import MappingProxyType, TracebackType
from typing import Protocol, Self

from webllm.errors import CheckpointError, ModelNotFoundError

OnBytes = Callable[[int, int], None]  # called with (loaded, total) bytes

_MAX_VECTOR_BYTES = 4 << 20  # beyond every real one

GROUP_COLS = 32  # columns quantized together: of int8 activations, and of a block at least


class StorageType(IntEnum):
    """A storage type, numbered as GGUF numbers it (ggml's `enum ggml_type`).

    A row is a run of blocks of `block_elements` values. The fields of a block lie together, in one
    plane, or in several: then each plane has one field of all blocks of the row. Types without a
    block size are listed only so that an error can name them.
    """

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q8_1 = 9
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    Q8_K = 15
    IQ2_XXS = 16
    IQ2_XS = 17
    IQ3_XXS = 18
    IQ1_S = 19
    IQ4_NL = 20
    IQ3_S = 21
    IQ2_S = 22
    IQ4_XS = 23
    I8 = 24
    I16 = 25
    I32 = 26
    I64 = 27
    F64 = 28
    IQ1_M = 29
    BF16 = 30
    TQ1_0 = 34
    TQ2_0 = 35
    MXFP4 = 39
    NVFP4 = 40
    Q1_0 = 41

    @property
    def supported(self) -> bool:
        """Whether webllm reads tensors of this type."""
        return self in _BLOCKS

    @property
    def block_elements(self) -> int:
        """Values in one block; a row is a whole number of blocks. KeyError unless `supported`."""
        return _BLOCKS[self][0]

    @property
    def plane_bytes(self) -> tuple[int, ...]:
        """Bytes of one block in each plane. KeyError unless `supported`."""
        return _BLOCKS[self][1:]

    @property
    def block_bytes(self) -> int:
        """Bytes of one block in all planes. KeyError unless `supported`."""
        return sum(self.plane_bytes)


# (values, bytes in each plane) of one block; the sums list a block's fields in storage order.
_BLOCKS: dict[StorageType, tuple[int, ...]] = {
    StorageType.F32: (1, 4),
    StorageType.F16: (1, 2),
    StorageType.BF16: (1, 2),
    StorageType.Q4_0: (32, 2 + 16),  # scale, nibbles
    StorageType.Q4_1: (32, 2 + 2 + 16),  # scale, minimum, nibbles
    StorageType.Q5_0: (32, 2 + 4 + 16),  # scale, fifth bits, nibbles
    StorageType.Q5_1: (32, 2 + 2 + 4 + 16),  # scale, minimum, fifth bits, nibbles
    StorageType.Q8_0: (32, 2 + 32),  # scale, bytes
    StorageType.Q2_K: (256, 16 + 64 + 2 + 2),  # scales, 2-bit values, scale, minimum
    StorageType.Q3_K: (256, 32 + 64 + 12 + 2),  # third bits, 2-bit values, scales, scale
    StorageType.Q4_K: (256, 2 + 2 + 12 + 128),  # scale, minimum, scales, nibbles
    StorageType.Q5_K: (256, 2 + 2 + 12 + 32 + 128),  # scale, minimum, scales, fifth bits, nibbles
    StorageType.Q6_K: (256, 128 + 64 + 16 + 2),  # nibbles, upper bits, scales, scale
}


@dataclass(frozen=True, slots=True)
class Plane:
    """A place of rows, one after the other, in one of a model's files."""

    file: str
    offset: int  # bytes from the start of the file


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """The name, shape, storage type and place of one tensor.

    is_paired: the rows of a rotary projection are stored so that the two of each pair lie side by
    side, as GGUF has llama's; Hugging Face has the first halves of a head before the second ones.
    plus: is added to the stored values of a vector.
    """

    name: str
    shape: tuple[int, ...]  # row-major, (rows, cols) for a matrix
    dtype: StorageType
    planes: tuple[Plane, ...]
    is_paired: bool = False
    plus: float = 0.0

    @property
    def row_bytes(self) -> tuple[int, ...]:
        """Bytes of a row in each plane; a vector is one row."""
        blocks = self.shape[-1] // self.dtype.block_elements
        return tuple(blocks * size for size in self.dtype.plane_bytes)

    @property
    def nbytes(self) -> int:
        return prod(self.shape[:-1]) * sum(self.row_bytes)

    def rows(self, name: str, first: int, count: int) -> TensorInfo:
        """Returns the tensor `name`, which is rows `first` to `first + count` of this matrix."""
        planes = [
            replace(plane, offset=plane.offset + first * size)
            for plane, size in zip(self.planes, self.row_bytes, strict=True)
        ]
        return replace(self, name=name, shape=(count, *self.shape[1:]), planes=tuple(planes))


class JsBytes(Protocol):
    """A browser's Uint8Array: bytes outside Python's memory."""

    byteLength: int  # noqa: N815 - JavaScript's name


RawBytes = memoryview | JsBytes


class Files(Protocol):
    """The open files of one model, by name. Methods raise ModelNotFoundError for another name."""

    def size(self, name: str) -> int:
        """Returns the bytes of a file."""

    async def load(self, name: str, start: int, end: int) -> bytes | memoryview:
        """Returns bytes `start` to `end` in Python's memory."""

    async def gather(self, name: str, ranges: list[tuple[int, int]]) -> list[bytes]:
        """Returns the bytes of small ranges (start, end) from all over a file."""

    async def read(self, name: str, start: int, end: int) -> RawBytes:
        """Returns bytes `start` to `end` for a device; in a browser they never enter Python."""

    def close(self) -> None:
        """Closes the files; does nothing if they are closed."""


@dataclass(frozen=True, slots=True)
class GGUFTokenizer:
    """The tokenizer and chat templates of a GGUF file: its `tokenizer.*` keys."""

    metadata: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class JSONTokenizer:
    """The tokenizer and chat templates of Hugging Face's files, as they are."""

    document: bytes  # tokenizer.json
    config: bytes | None = None  # tokenizer_config.json
    chat_template: str | None = None  # chat_template.jinja


@dataclass(frozen=True, slots=True)
class Description:
    """A model file without the contents of its tensors, as its format reads it.

    `config` has the names of Hugging Face's config.json, and `tensors` those of its checkpoints.
    Where a file has a key or a tensor that has no such name, it keeps its own: `models/` refuses
    what it does not read. Norms are stored as they multiply (Gemma: with the 1 added, or `plus`).
    `defaults` has the fields of WebLLM's ChatOptions that the file gives, such as temperature.
    """

    config: Mapping[str, object]
    tensors: Mapping[str, TensorInfo]
    tokenizer: GGUFTokenizer | JSONTokenizer
    fingerprint: str  # eight hex digits: files of other settings or tensors have others
    conv_template: Mapping[str, object] | None = None  # WebLLM's chat template
    defaults: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


class Checkpoint:
    """An open model file; a description and the files with the tensors' bytes."""

    def __init__(self, description: Description, files: Files) -> None:
        self.config = description.config
        self.tensors = description.tensors
        self.tokenizer = description.tokenizer
        self.conv_template = description.conv_template
        self.defaults = description.defaults
        self.fingerprint = description.fingerprint
        self._files: Files | None = files
        self._vectors: dict[str, bytes] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    async def read_vectors(self) -> None:
        """Reads all vectors, which `data` returns from then on."""
        of_file: dict[str, list[TensorInfo]] = {}
        for tensor in self.tensors.values():
            if len(tensor.shape) == 1 and tensor.nbytes <= _MAX_VECTOR_BYTES:
                of_file.setdefault(tensor.planes[0].file, []).append(tensor)
        for name, tensors in of_file.items():
            starts = [tensor.planes[0].offset for tensor in tensors]
            ranges = [(at, at + each.nbytes) for at, each in zip(starts, tensors, strict=True)]
            found = await self._open_files("the vectors").gather(name, ranges)
            self._vectors |= {each.name: data for each, data in zip(tensors, found, strict=True)}

    def data(self, name: str) -> memoryview:
        """Returns the bytes of a vector. Raises ModelNotFoundError if there is none."""
        if name not in self._vectors:
            raise ModelNotFoundError(f"the model file has no vector {name!r}")
        return memoryview(self._vectors[name]).toreadonly()

    async def read(self, name: str, first_row: int, num_rows: int) -> tuple[RawBytes, ...]:
        """Reads rows of a matrix for a device, the bytes of each plane."""
        tensor, files = self.tensors[name], self._open_files(name)
        found = []
        for plane, size in zip(tensor.planes, tensor.row_bytes, strict=True):
            start = plane.offset + first_row * size
            found.append(await files.read(plane.file, start, start + num_rows * size))
        return tuple(found)

    def _open_files(self, what: str) -> Files:
        if self._files is None:
            raise CheckpointError(f"the model file is closed; open it again to read {what}")
        return self._files

    def close(self) -> None:
        """Closes the files; does nothing if they are closed."""
        files, self._files = self._files, None
        if files is not None:
            files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
