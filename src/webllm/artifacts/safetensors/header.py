"""Parses the header of a safetensors file.

Format: https://huggingface.co/docs/safetensors. Every offset is checked against the file's size.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from math import prod
from typing import Any

import msgspec

from webllm.artifacts.checkpoint import Plane, StorageType, TensorInfo
from webllm.artifacts.json_files import parsed
from webllm.errors import CheckpointError, UnsupportedModelError

LENGTH = struct.Struct("<Q")  # of the header, before it
MAX_HEADER_BYTES = 100_000_000  # the reference's limit
_STORAGE = {"F32": StorageType.F32, "F16": StorageType.F16, "BF16": StorageType.BF16}


class _Tensor(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def tensors_from_header(header: bytes, file: str, file_bytes: int) -> dict[str, TensorInfo]:
    """Returns the tensors of `file`, which has `file_bytes` bytes and this header.

    Raises CheckpointError for a malformed file, UnsupportedModelError for a storage type that is
    not read.
    """
    document: Mapping[str, Any] = parsed(header, f"the header of {file}")
    start = LENGTH.size + len(header)
    tensors = {}
    for name, value in document.items():
        if name == "__metadata__":
            continue
        try:
            tensor = msgspec.convert(value, _Tensor)
        except msgspec.ValidationError as error:
            raise CheckpointError(f"{file}: tensor {name!r} is malformed: {error}") from None
        tensors[name] = _placed(name, tensor, file, start, file_bytes)
    _check_overlaps(tensors)
    return tensors


def _placed(name: str, tensor: _Tensor, file: str, start: int, file_bytes: int) -> TensorInfo:
    dtype = _STORAGE.get(tensor.dtype)
    if dtype is None:
        raise UnsupportedModelError(
            f"{file}: tensor {name!r} is stored as {tensor.dtype}; webllm reads "
            f"{', '.join(_STORAGE)}: take a copy in one of these, a GGUF file or MLC's form"
        )
    first, end = tensor.data_offsets
    expected = prod(tensor.shape) * dtype.block_bytes
    if not tensor.shape or min(tensor.shape) < 1 or end - first != expected or first < 0:
        raise CheckpointError(
            f"{file}: tensor {name!r} has {end - first} bytes for the shape {tensor.shape} of "
            f"{tensor.dtype}"
        )
    if start + end > file_bytes:
        raise CheckpointError(
            f"{file}: tensor {name!r} ends at byte {start + end}, but the file has {file_bytes}; "
            "it is truncated: download it again"
        )
    return TensorInfo(name, tuple(tensor.shape), dtype, (Plane(file, start + first),))


def _check_overlaps(tensors: Mapping[str, TensorInfo]) -> None:
    end = 0
    for tensor in sorted(tensors.values(), key=lambda each: each.planes[0].offset):
        if tensor.planes[0].offset < end:
            raise CheckpointError(f"tensor {tensor.name!r} overlaps the one stored before it")
        end = tensor.planes[0].offset + tensor.nbytes
