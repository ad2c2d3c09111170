"""Parses the header of a safetensors file.

Format: https://huggingface.co/docs/safetensors. Every offset is checked against the file's size.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from math import prod
from typing import Any

import msgspec

from webllm.artifacts.checkpoint import Plane
from webllm.artifacts.json_files import json_object
from webllm.artifacts.safetensors.quantization import Stored
from webllm.errors import CheckpointError, UnsupportedModelError

LENGTH = struct.Struct("<Q")  # of the header, before it
MAX_HEADER_BYTES = 100_000_000  # the reference's limit
_BYTES = {
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
    **dict.fromkeys(("I32", "U32", "F32"), 4),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 8),
}


class _Tensor(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def tensors_from_header(header: bytes, file: str, file_bytes: int) -> dict[str, Stored]:
    """Returns the tensors of `file`, which has `file_bytes` bytes and this header.

    Raises CheckpointError for a malformed file, UnsupportedModelError for an unknown type.
    """
    document: Mapping[str, Any] = json_object(header, f"the header of {file}")
    start, end = LENGTH.size + len(header), 0
    tensors = {}
    for name, value in document.items():
        if name != "__metadata__":
            try:
                tensors[name] = msgspec.convert(value, _Tensor)
            except msgspec.ValidationError as error:
                raise CheckpointError(f"{file}: tensor {name!r} is malformed: {error}") from None
    for name, tensor in sorted(tensors.items(), key=lambda each: each[1].data_offsets):
        _check(name, tensor, file)
        if tensor.data_offsets[0] < end:
            raise CheckpointError(f"{file}: tensor {name!r} overlaps the one stored before it")
        end = tensor.data_offsets[1]
    if start + end > file_bytes:
        raise CheckpointError(
            f"{file}: the last tensor ends at byte {start + end}, but the file has {file_bytes}; "
            "it is truncated: download it again"
        )
    return {
        name: Stored(
            name, tensor.dtype, tuple(tensor.shape), Plane(file, start + tensor.data_offsets[0])
        )
        for name, tensor in tensors.items()
    }


def _check(name: str, tensor: _Tensor, file: str) -> None:
    if tensor.dtype not in _BYTES:
        raise UnsupportedModelError(
            f"{file}: tensor {name!r} is stored as {tensor.dtype}, which webllm does not know"
        )
    first, end = tensor.data_offsets
    if end - first != prod(tensor.shape) * _BYTES[tensor.dtype] or min([*tensor.shape, first]) < 0:
        raise CheckpointError(
            f"{file}: tensor {name!r} has {end - first} bytes for the shape {tensor.shape} of "
            f"{tensor.dtype}"
        )
