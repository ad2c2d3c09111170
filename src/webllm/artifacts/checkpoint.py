"""A model file of any format: its configuration, tensors and tokenizer, and the bytes of tensors.

Has the table of storage types. Knows no file format and no arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from math import prod
from types import MappingProxyType, TracebackType
from typing import Protocol, Self

from webllm.errors import CheckpointError, ModelNotFoundError, UnsupportedModelError

OnBytes = Callable[[int, int], None]  # called with (loaded, total) bytes

_MAX_VECTOR_BYTES = 4 << 20  # beyond every real one

GROUP_COLS = 32  # columns quantized together: of int8 activations, and of a block at least
MAX_PLANES = 3  # of a storage type


class StorageType(IntEnum):
    """How a tensor is stored: GGUF's types with its numbers (ggml's `enum ggml_type`), then ours.

    Ours are those of compressed-tensors (GROUP4), MLX (AFFINE4) and MLC, with the size of a group
    where it is not the usual one. Types without a `Storage` are here so that errors can name them.
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

    GROUP4 = 1000
    GROUP4_BF16 = 1001
    GROUP4_64 = 1002
    GROUP4_64_BF16 = 1003
    GROUP4_32 = 1004
    GROUP4_32_BF16 = 1005
    MLC_Q4 = 1006
    MLC_Q4_BF16 = 1007
    AFFINE4 = 1010
    AFFINE4_BF16 = 1011
    AFFINE4_32 = 1012
    AFFINE4_32_BF16 = 1013

    @property
    def supported(self) -> bool:
        """Whether webllm reads tensors of this type."""
        return self in _STORAGE

    @property
    def is_ggml(self) -> bool:
        """Whether GGUF has this type."""
        return self < StorageType.GROUP4

    @property
    def storage(self) -> Storage:
        """Its row in the table of types. KeyError unless `supported`; see `TensorInfo.storage`."""
        return _STORAGE[self]

    @property
    def block_elements(self) -> int:
        """Values in one block; a row is a whole number of blocks."""
        return self.storage.block_elements

    @property
    def plane_bytes(self) -> tuple[int, ...]:
        """Bytes of one block in each plane."""
        return self.storage.plane_bytes

    @property
    def block_bytes(self) -> int:
        """Bytes of one block in all planes."""
        return sum(self.storage.plane_bytes)

    @property
    def unpacked_as(self) -> StorageType:
        """The type whose functions, in C and in WGSL, unpack this one too."""
        return self.storage.like or self


@dataclass(frozen=True, slots=True)
class Storage:
    """The blocks of a storage type and the numbers in them.

    A row is a run of blocks. A block has some bytes in each plane, and a plane holds the blocks of
    all rows. An integer q of `bits` bits is the weight scale * (q - zero), or scale * q + minimum
    if there are `mins`; 16 and 32 bits are floats. Each backend derives the format that holds them.
    """

    block_elements: int
    plane_bytes: tuple[int, ...]
    bits: int
    scale_group: int = 0  # columns that share a scale; 0 for floats
    zero: int = 0
    mins: bool = False
    bf16: bool = False  # floats, or scales and minimums in planes of their own; else they are f16
    like: StorageType | None = None  # the type with the same fields: only sizes and `zero` differ

    @property
    def is_float(self) -> bool:
        return self.bits >= 16


# A new type is a row here and a function in each backend: docs/adding.md. Sums list the fields of a
# block in the order of the file.
_STORAGE = {
    StorageType.F32: Storage(1, (4,), 32),
    StorageType.F16: Storage(1, (2,), 16),
    StorageType.BF16: Storage(1, (2,), 16, bf16=True),
    # scale, nibbles
    StorageType.Q4_0: Storage(32, (2 + 16,), 4, 32, zero=8),
    # scale, minimum, nibbles
    StorageType.Q4_1: Storage(32, (2 + 2 + 16,), 4, 32, mins=True),
    # scale, fifth bits, nibbles
    StorageType.Q5_0: Storage(32, (2 + 4 + 16,), 5, 32, zero=16),
    # scale, minimum, fifth bits, nibbles
    StorageType.Q5_1: Storage(32, (2 + 2 + 4 + 16,), 5, 32, mins=True),
    # scale, bytes
    StorageType.Q8_0: Storage(32, (2 + 32,), 8, 32),
    # scales, 2-bit values, scale, minimum
    StorageType.Q2_K: Storage(256, (16 + 64 + 2 + 2,), 2, 16, mins=True),
    # third bits, 2-bit values, scales, scale
    StorageType.Q3_K: Storage(256, (32 + 64 + 12 + 2,), 3, 16, zero=4),
    # scale, minimum, scales, nibbles
    StorageType.Q4_K: Storage(256, (2 + 2 + 12 + 128,), 4, 32, mins=True),
    # scale, minimum, scales, fifth bits, nibbles
    StorageType.Q5_K: Storage(256, (2 + 2 + 12 + 32 + 128,), 5, 32, mins=True),
    # nibbles, upper bits, scales, scale
    StorageType.Q6_K: Storage(256, (128 + 64 + 16 + 2,), 6, 16, zero=32),
    # scale, nibbles: each is the place of an int8 in a table of sixteen
    StorageType.IQ4_NL: Storage(32, (2 + 16,), 8, 32),
    # scale, upper bits of scales, scales, nibbles as in IQ4_NL
    StorageType.IQ4_XS: Storage(256, (2 + 2 + 4 + 128,), 8, 32),
    # Planes of codes, the first in the lowest bits, and of scales.
    StorageType.GROUP4: Storage(128, (64, 2), 4, 128, zero=8),
    StorageType.GROUP4_BF16: Storage(128, (64, 2), 4, 128, 8, bf16=True, like=StorageType.GROUP4),
    StorageType.GROUP4_64: Storage(64, (32, 2), 4, 64, 8, like=StorageType.GROUP4),
    StorageType.GROUP4_64_BF16: Storage(64, (32, 2), 4, 64, 8, bf16=True, like=StorageType.GROUP4),
    StorageType.GROUP4_32: Storage(32, (16, 2), 4, 32, 8, like=StorageType.GROUP4),
    StorageType.GROUP4_32_BF16: Storage(32, (16, 2), 4, 32, 8, bf16=True, like=StorageType.GROUP4),
    StorageType.MLC_Q4: Storage(32, (16, 2), 4, 32, 7, like=StorageType.GROUP4),
    StorageType.MLC_Q4_BF16: Storage(32, (16, 2), 4, 32, 7, bf16=True, like=StorageType.GROUP4),
    # Planes of codes, of scales and of minimums.
    StorageType.AFFINE4: Storage(64, (32, 2, 2), 4, 64, mins=True),
    StorageType.AFFINE4_BF16: Storage(
        64, (32, 2, 2), 4, 64, mins=True, bf16=True, like=StorageType.AFFINE4
    ),
    StorageType.AFFINE4_32: Storage(32, (16, 2, 2), 4, 32, mins=True, like=StorageType.AFFINE4),
    StorageType.AFFINE4_32_BF16: Storage(
        32, (16, 2, 2), 4, 32, mins=True, bf16=True, like=StorageType.AFFINE4
    ),
}

_MATRICES_OF_TOKENS = dict.fromkeys(
    ("model.embed_tokens.weight", "lm_head.weight"), StorageType.Q8_0
)


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
    quantized: the type that a device makes of a matrix of floats while it loads it.
    """

    name: str
    shape: tuple[int, ...]  # row-major, (rows, cols) for a matrix
    dtype: StorageType
    planes: tuple[Plane, ...]
    is_paired: bool = False
    plus: float = 0.0
    quantized: StorageType | None = None

    @property
    def packed(self) -> Storage:
        """The storage of the numbers that a device packs. Raises as `storage` does."""
        return self.quantized.storage if self.quantized else self.storage

    @property
    def storage(self) -> Storage:
        """The storage of its type. Raises UnsupportedModelError if webllm does not read it."""
        if not self.dtype.supported:
            raise UnsupportedModelError(
                f"{self.name} is stored as {self.dtype.name}, which webllm cannot read; choose "
                "another quantization of this model"
            )
        return self.dtype.storage

    @property
    def row_bytes(self) -> tuple[int, ...]:
        """Bytes of a row in each plane; a vector is one row."""
        blocks = self.shape[-1] // self.dtype.block_elements
        return tuple(blocks * size for size in self.dtype.plane_bytes)

    @property
    def nbytes(self) -> int:
        return prod(self.shape[:-1]) * sum(self.row_bytes)

    def rows(self, name: str, first: int, count: int) -> TensorInfo:
        """Returns the tensor `name`: rows `first` to `first + count` of this matrix or vector."""
        sizes = self.row_bytes if len(self.shape) > 1 else (self.dtype.block_bytes,)
        planes = [
            replace(plane, offset=plane.offset + first * size)
            for plane, size in zip(self.planes, sizes, strict=True)
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
class TokenizerFiles:
    """The tokenizer and chat templates of Hugging Face's files, as they are."""

    document: bytes  # tokenizer.json; SentencePiece's tokenizer.model if there is only that
    is_json: bool = True
    config: bytes | None = None  # tokenizer_config.json
    chat_template: str | None = None  # chat_template.jinja
    eos_ids: tuple[int, ...] = ()  # eos_token_id of config.json and generation_config.json


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
    tokenizer: GGUFTokenizer | TokenizerFiles
    fingerprint: str  # eight hex digits: files of other settings or tensors have others
    conv_template: Mapping[str, object] | str | None = None  # WebLLM's chat template, or its name
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

    def quantize(self, dtype: StorageType) -> None:
        """Lets devices quantize matrices of floats to Q4_0 or Q8_0 while they load them.

        With Q4_0 the token embedding and the output become Q8_0, where four bits cost most.
        """
        found = {
            tensor.name: replace(tensor, quantized=_MATRICES_OF_TOKENS.get(tensor.name, dtype))
            for tensor in self.tensors.values()
            if len(tensor.shape) == 2 and tensor.dtype.supported and tensor.storage.is_float
        }
        if found:
            self.tensors = {**self.tensors, **found}
            self.fingerprint += f"+{dtype.name.lower()}"

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
        files = self._open_files(name)
        places = self._places(name, first_row, num_rows)
        return tuple([await files.read(*place) for place in places])

    async def load(
        self, name: str, first_row: int, num_rows: int
    ) -> tuple[bytes | memoryview, ...]:
        """Reads rows of a matrix into Python's memory, the bytes of each plane."""
        files = self._open_files(name)
        places = self._places(name, first_row, num_rows)
        return tuple([await files.load(*place) for place in places])

    def _places(self, name: str, first_row: int, num_rows: int) -> Iterator[tuple[str, int, int]]:
        """Yields (file, start, end) of rows in each plane."""
        tensor = self.tensors[name]
        for plane, size in zip(tensor.planes, tensor.row_bytes, strict=True):
            start = plane.offset + first_row * size
            yield plane.file, start, start + num_rows * size

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
