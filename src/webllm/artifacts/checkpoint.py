"""The interface of a model file: metadata, tensor descriptions and raw bytes.

Has the table of storage types. Knows no file format and no arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import TracebackType
from typing import Protocol, Self

from webllm.errors import UnsupportedModelError

OnBytes = Callable[[int, int], None]  # called with (loaded, total) bytes

GROUP_COLS = 32  # columns quantized together: of int8 activations, and of a block at least
MAX_PLANES = 3  # of a storage type


class GGMLType(IntEnum):
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
    def storage(self) -> Storage:
        """Its row in the table of types. KeyError unless `supported`; see `TensorInfo.storage`."""
        return _STORAGE[self]

    @property
    def block_elements(self) -> int:
        """Values in one block; a row is a whole number of blocks."""
        return self.storage.block_elements

    @property
    def planes(self) -> tuple[int, ...]:
        """Bytes of one block in each plane."""
        return self.storage.planes

    @property
    def block_bytes(self) -> int:
        """Bytes of one block in all planes."""
        return sum(self.storage.planes)

    @property
    def unpacked_as(self) -> GGMLType:
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
    planes: tuple[int, ...]
    bits: int
    scale_group: int = 0  # columns that share a scale; 0 for floats
    zero: int = 0
    mins: bool = False
    bf16: bool = False  # floats, or scales and minimums in planes of their own; else they are f16
    like: GGMLType | None = None  # the type with the same fields: only sizes and `zero` differ

    @property
    def is_float(self) -> bool:
        return self.bits >= 16


# A new type is a row here and a function in each backend: docs/adding.md. Sums list the fields of a
# block in the order of the file.
_STORAGE = {
    GGMLType.F32: Storage(1, (4,), 32),
    GGMLType.F16: Storage(1, (2,), 16),
    GGMLType.BF16: Storage(1, (2,), 16, bf16=True),
    # scale, nibbles
    GGMLType.Q4_0: Storage(32, (2 + 16,), 4, 32, zero=8),
    # scale, minimum, nibbles
    GGMLType.Q4_1: Storage(32, (2 + 2 + 16,), 4, 32, mins=True),
    # scale, fifth bits, nibbles
    GGMLType.Q5_0: Storage(32, (2 + 4 + 16,), 5, 32, zero=16),
    # scale, minimum, fifth bits, nibbles
    GGMLType.Q5_1: Storage(32, (2 + 2 + 4 + 16,), 5, 32, mins=True),
    # scale, bytes
    GGMLType.Q8_0: Storage(32, (2 + 32,), 8, 32),
    # scales, 2-bit values, scale, minimum
    GGMLType.Q2_K: Storage(256, (16 + 64 + 2 + 2,), 2, 16, mins=True),
    # third bits, 2-bit values, scales, scale
    GGMLType.Q3_K: Storage(256, (32 + 64 + 12 + 2,), 3, 16, zero=4),
    # scale, minimum, scales, nibbles
    GGMLType.Q4_K: Storage(256, (2 + 2 + 12 + 128,), 4, 32, mins=True),
    # scale, minimum, scales, fifth bits, nibbles
    GGMLType.Q5_K: Storage(256, (2 + 2 + 12 + 32 + 128,), 5, 32, mins=True),
    # nibbles, upper bits, scales, scale
    GGMLType.Q6_K: Storage(256, (128 + 64 + 16 + 2,), 6, 16, zero=32),
    # scale, nibbles: each is the place of an int8 in a table of sixteen
    GGMLType.IQ4_NL: Storage(32, (2 + 16,), 8, 32),
    # scale, upper bits of scales, scales, nibbles as in IQ4_NL
    GGMLType.IQ4_XS: Storage(256, (2 + 2 + 4 + 128,), 8, 32),
    # Planes of codes, the first in the lowest bits, and of scales.
    GGMLType.GROUP4: Storage(128, (64, 2), 4, 128, zero=8),
    GGMLType.GROUP4_BF16: Storage(128, (64, 2), 4, 128, 8, bf16=True, like=GGMLType.GROUP4),
    GGMLType.GROUP4_64: Storage(64, (32, 2), 4, 64, 8, like=GGMLType.GROUP4),
    GGMLType.GROUP4_64_BF16: Storage(64, (32, 2), 4, 64, 8, bf16=True, like=GGMLType.GROUP4),
    GGMLType.GROUP4_32: Storage(32, (16, 2), 4, 32, 8, like=GGMLType.GROUP4),
    GGMLType.GROUP4_32_BF16: Storage(32, (16, 2), 4, 32, 8, bf16=True, like=GGMLType.GROUP4),
    GGMLType.MLC_Q4: Storage(32, (16, 2), 4, 32, 7, like=GGMLType.GROUP4),
    GGMLType.MLC_Q4_BF16: Storage(32, (16, 2), 4, 32, 7, bf16=True, like=GGMLType.GROUP4),
    # Planes of codes, of scales and of minimums.
    GGMLType.AFFINE4: Storage(64, (32, 2, 2), 4, 64, mins=True),
    GGMLType.AFFINE4_BF16: Storage(
        64, (32, 2, 2), 4, 64, mins=True, bf16=True, like=GGMLType.AFFINE4
    ),
    GGMLType.AFFINE4_32: Storage(32, (16, 2, 2), 4, 32, mins=True, like=GGMLType.AFFINE4),
    GGMLType.AFFINE4_32_BF16: Storage(
        32, (16, 2, 2), 4, 32, mins=True, bf16=True, like=GGMLType.AFFINE4
    ),
}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """The name, shape, storage type and place of one tensor."""

    name: str
    shape: tuple[int, ...]  # row-major, (rows, cols) for a matrix: the reverse of GGUF's order
    dtype: GGMLType
    offset: int  # bytes from the start of the file
    nbytes: int

    @property
    def storage(self) -> Storage:
        """The storage of its type. Raises UnsupportedModelError if webllm does not read it."""
        if not self.dtype.supported:
            raise UnsupportedModelError(
                f"{self.name} is stored as {self.dtype.name}, which webllm cannot read; choose "
                "another quantization of this model"
            )
        return self.dtype.storage


class JsBytes(Protocol):
    """A browser's Uint8Array: bytes outside Python's memory."""

    byteLength: int  # noqa: N815 - JavaScript's name


RawBytes = memoryview | JsBytes


class Checkpoint(Protocol):
    """An open model file."""

    @property
    def metadata(self) -> Mapping[str, object]:
        """Key to int, float, bool, str, or a sequence of these; valid after `close`."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Tensor name to description, in file order; valid after `close`."""

    @property
    def fingerprint(self) -> str:
        """Eight hex digits of the file's header: files of other metadata or tensors have others."""

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""

    def data(self, name: str) -> memoryview:
        """Returns the tensor's bytes, read-only and uncopied; in a browser of vectors only.

        A view stays valid after `close`: the file is unmapped when the last view is dropped.
        Raises ModelNotFoundError if there is no such tensor.
        """

    async def read(self, name: str, start: int, num_bytes: int) -> RawBytes:
        """Reads part of a tensor for a device; in a browser the bytes never enter Python."""

    def close(self) -> None:
        """Closes the file; does nothing if it is closed."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
