"""The interface of a model file: metadata, tensor descriptions and raw bytes.

Names GGML's storage types and their block sizes. Knows no file format and no arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import TracebackType
from typing import Protocol, Self

OnBytes = Callable[[int, int], None]  # called with (loaded, total) bytes

GROUP_COLS = 32  # columns quantized together: of int8 activations, and of a block at least


class GGMLType(IntEnum):
    """A storage type, numbered as GGUF numbers it (ggml's `enum ggml_type`).

    A quantized row is a run of blocks of `block_elements` values in `block_bytes` bytes.
    Types without a block size are listed only so that an error can name them.
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
    def block_bytes(self) -> int:
        """Bytes of one block. KeyError unless `supported`."""
        return _BLOCKS[self][1]


# (values, bytes) of one block; the sums list a block's fields in storage order.
_BLOCKS = {
    GGMLType.F32: (1, 4),
    GGMLType.F16: (1, 2),
    GGMLType.BF16: (1, 2),
    GGMLType.Q4_0: (32, 2 + 16),  # scale, nibbles
    GGMLType.Q4_1: (32, 2 + 2 + 16),  # scale, minimum, nibbles
    GGMLType.Q5_0: (32, 2 + 4 + 16),  # scale, fifth bits, nibbles
    GGMLType.Q5_1: (32, 2 + 2 + 4 + 16),  # scale, minimum, fifth bits, nibbles
    GGMLType.Q8_0: (32, 2 + 32),  # scale, bytes
    GGMLType.Q2_K: (256, 16 + 64 + 2 + 2),  # scales, 2-bit values, scale, minimum
    GGMLType.Q3_K: (256, 32 + 64 + 12 + 2),  # third bits, 2-bit values, scales, scale
    GGMLType.Q4_K: (256, 2 + 2 + 12 + 128),  # scale, minimum, scales, nibbles
    GGMLType.Q5_K: (256, 2 + 2 + 12 + 32 + 128),  # scale, minimum, scales, fifth bits, nibbles
    GGMLType.Q6_K: (256, 128 + 64 + 16 + 2),  # nibbles, upper bits, scales, scale
}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """The name, shape, storage type and place of one tensor."""

    name: str
    shape: tuple[int, ...]  # row-major, (rows, cols) for a matrix: the reverse of GGUF's order
    dtype: GGMLType
    offset: int  # bytes from the start of the file
    nbytes: int


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
