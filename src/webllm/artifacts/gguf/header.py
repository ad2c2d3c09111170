"""Parses a GGUF header (versions 2 and 3, little endian) into metadata and tensor descriptions.

Bytes in, data out: it opens no file and reads no tensor. Follows ggml's docs/gguf.md. Every count
and length is checked against the size of the file before anything of that size is allocated, so a
malformed header costs an error and never memory.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass, replace
from zlib import crc32

from webllm.artifacts.checkpoint import Plane, StorageType, TensorInfo
from webllm.artifacts.gguf.packed_arrays import NumberArray, StringArray
from webllm.errors import CheckpointError, UnsupportedModelError

_SCALARS = {
    type_id: struct.Struct("<" + letter)
    for type_id, letter in zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIifBQqd", strict=True)
}
_UINT32, _BOOL, _STRING, _ARRAY, _UINT64 = 4, 7, 8, 9, 10  # GGUF's metadata value types
_LENGTH = _SCALARS[_UINT64]
_TYPES = {dtype.value: dtype for dtype in StorageType if dtype.is_ggml}

_MAX_NAME_BYTES = 65_535  # keys and tensor names; GGUF's own limit for keys
_MAX_ARRAY_DEPTH = 8
_MAX_DIMENSIONS = 4
# Far beyond every real model; they bound the memory that a small file can cost.
_MAX_ENTRIES = 1 << 16  # metadata entries; models have some 50
_MAX_TENSORS = 1 << 16  # the largest models have some 3,000
_MAX_NUMBERS = 1 << 24  # in one array; vocabularies have 2**18 entries
_MAX_STRINGS = 1 << 21  # in one array; there are some 2**19 merges
_MAX_NESTED = 1 << 12  # arrays within arrays, in the whole file
_TENSOR_LAYOUTS = [struct.Struct(f"<{n}QIQ") for n in range(_MAX_DIMENSIONS + 1)]


class MoreBytesNeeded(Exception):  # noqa: N818 - a signal, not an error: never leaves artifacts/
    """The header continues after the buffer: parse again with at least `num_bytes` of the file."""

    def __init__(self, num_bytes: int) -> None:
        super().__init__(num_bytes)
        self.num_bytes = num_bytes


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """Everything in a GGUF file except the contents of its tensors."""

    version: int
    alignment: int  # bytes
    metadata: dict[str, object]  # int, float, bool, NumberArray; str, StringArray; or a tuple
    tensors: dict[str, TensorInfo]
    fingerprint: str  # CRC-32 of the header's bytes, eight hex digits


def parse_header(buffer: memoryview, file_bytes: int, file: str = "") -> GGUFHeader:
    """Parses the header of a GGUF file of `file_bytes` bytes from its first `len(buffer)` bytes.

    The tensors have GGUF's names and the place `file`.

    Raises CheckpointError for a malformed file, UnsupportedModelError for a version, byte order or
    tensor type webllm does not read, MoreBytesNeeded if the header continues after `buffer`.
    """
    reader = _HeaderReader(buffer, file_bytes)
    version = _read_version(reader)
    num_tensors = reader.number(_UINT64, "the tensor count")
    num_entries = reader.number(_UINT64, "the metadata count")
    reader.require_count(num_entries, 8 + 4 + 1, "metadata entries", _MAX_ENTRIES)
    metadata: dict[str, object] = {}
    for _ in range(num_entries):
        key = reader.name("a metadata key")
        if key in metadata:
            raise CheckpointError(f"the metadata key {key!r} occurs twice; the file is damaged")
        metadata[key] = _read_value(reader, reader.number(_UINT32, f"the type of {key!r}"), key)
    alignment = _alignment(metadata)
    reader.require_count(num_tensors, 8 + 4 + 8 + 4 + 8, "tensors", _MAX_TENSORS)
    tensors = [_read_tensor(reader, alignment, file) for _ in range(num_tensors)]
    data_start = reader.position + -reader.position % alignment
    placed = _place(tensors, data_start, file_bytes)
    fingerprint = f"{crc32(buffer[: reader.position]):08x}"
    return GGUFHeader(version, alignment, metadata, placed, fingerprint)


class _HeaderReader:
    """A position in the header; every read is checked against the buffer first."""

    def __init__(self, buffer: memoryview, file_bytes: int) -> None:
        self.buffer = buffer
        self.file_bytes = file_bytes
        self.position = 0
        self.num_nested = 0  # arrays within arrays read so far

    def require(self, num_bytes: int, what: str) -> None:
        end = self.position + num_bytes
        if end > self.file_bytes:
            raise CheckpointError(
                f"{what} at byte {self.position} takes {num_bytes} bytes, but the file has "
                f"{self.file_bytes - self.position} left; it is damaged: download it again"
            )
        if end > len(self.buffer):
            raise MoreBytesNeeded(end)

    def require_count(self, count: int, item_bytes: int, what: str, max_count: int) -> None:
        """Checks that the rest of the file can hold `count` items of at least `item_bytes`.

        `max_count` bounds the count itself.
        """
        if count * item_bytes > self.file_bytes - self.position:
            raise CheckpointError(
                f"the header announces {count} {what}, more than the remaining "
                f"{self.file_bytes - self.position} bytes can hold; it is truncated or damaged"
            )
        if count > max_count:
            raise CheckpointError(f"the header has {count} {what}; at most {max_count} are read")

    def number(self, type_id: int, what: str) -> int:
        layout = _SCALARS[type_id]
        self.require(layout.size, what)
        (value,) = layout.unpack_from(self.buffer, self.position)
        self.position += layout.size
        return value  # type: ignore[no-any-return]

    def text(self, what: str) -> bytes:
        num_bytes = self.number(_UINT64, what)
        self.require(num_bytes, what)
        start = self.position
        self.position += num_bytes
        return bytes(self.buffer[start : self.position])

    def name(self, what: str) -> str:
        raw = self.text(what)
        if not 0 < len(raw) <= _MAX_NAME_BYTES:
            raise CheckpointError(f"{what} has {len(raw)} bytes; 1 to {_MAX_NAME_BYTES} are legal")
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{what} is not UTF-8: {raw[:40]!r} ({error.reason})") from None


def _read_version(reader: _HeaderReader) -> int:
    reader.require(8, "the magic number and version")
    magic = bytes(reader.buffer[:4])
    if magic != b"GGUF":
        raise CheckpointError(f"this is not a GGUF file: it begins with {magic!r}, not b'GGUF'")
    reader.position = 4
    version = reader.number(_UINT32, "the version")
    if version in (2, 3):
        return version
    if version & 0xFFFF == 0:
        raise UnsupportedModelError(
            f"the file is big endian (version reads as {version:#x}); convert it to little endian"
        )
    raise UnsupportedModelError(
        f"GGUF version {version} is not supported, only 2 and 3; convert it"
    )


def _read_value(reader: _HeaderReader, type_id: int, key: str, depth: int = 0) -> object:
    if type_id in _SCALARS:
        value = reader.number(type_id, f"the value of {key!r}")
        if type_id == _BOOL:
            _check_bools(value, key)
            return bool(value)
        return value
    if type_id == _STRING:
        return reader.text(f"the value of {key!r}").decode("utf-8", "surrogateescape")
    if type_id == _ARRAY:
        return _read_array(reader, key, depth + 1)
    raise CheckpointError(f"{key!r} has the value type {type_id}; GGUF defines 0 to 12")


def _read_array(reader: _HeaderReader, key: str, depth: int) -> object:
    if depth > _MAX_ARRAY_DEPTH:
        raise CheckpointError(f"{key!r} nests arrays more than {_MAX_ARRAY_DEPTH} deep")
    type_id = reader.number(_UINT32, f"the element type of {key!r}")
    count = reader.number(_UINT64, f"the length of {key!r}")
    if type_id in _SCALARS:
        return _read_numbers(reader, type_id, count, key)
    elements = f"elements of {key!r}"
    if type_id == _STRING:
        reader.require_count(count, 8, elements, _MAX_STRINGS)
        return _read_strings(reader, count, key)
    if type_id == _ARRAY:
        reader.require_count(count, 12, elements, _MAX_NESTED - reader.num_nested)
        reader.num_nested += count
        return tuple(_read_array(reader, key, depth + 1) for _ in range(count))
    raise CheckpointError(f"{key!r} has the element type {type_id}; GGUF defines 0 to 12")


def _read_numbers(reader: _HeaderReader, type_id: int, count: int, key: str) -> NumberArray:
    if count > _MAX_NUMBERS:
        raise CheckpointError(f"{key!r} has {count} elements; at most {_MAX_NUMBERS} are read")
    layout = _SCALARS[type_id]
    reader.require(count * layout.size, f"the array {key!r}")
    start = reader.position
    reader.position += count * layout.size
    data = bytes(reader.buffer[start : reader.position])
    if type_id == _BOOL:
        _check_bools(max(data, default=0), key)
        return NumberArray(data, "?")
    return NumberArray(data, layout.format[1:])


def _check_bools(largest: int, key: str) -> None:
    if largest > 1:
        raise CheckpointError(f"{key!r} is a bool of value {largest}; only 0 and 1 are legal")


def _read_strings(reader: _HeaderReader, count: int, key: str) -> StringArray:
    """Walks over the strings and notes the end of each."""
    unpack, buffer, size = _LENGTH.unpack_from, reader.buffer, len(reader.buffer)
    start = position = reader.position
    ends = array("Q")
    for i in range(count):
        if position + 8 > size or (end := position + 8 + unpack(buffer, position)[0]) > size:
            reader.position = position
            reader.text(f"string {i} of {key!r}")  # raises the error
            raise AssertionError("a string that does not fit was read")
        ends.append(end - start)
        position = end
    reader.position = position
    return StringArray(bytes(buffer[start:position]), ends)


def _alignment(metadata: dict[str, object]) -> int:
    value = metadata.get("general.alignment", 32)
    if type(value) is not int or value < 1 or value & (value - 1):
        raise CheckpointError(f"general.alignment is {value!r}; it has to be a power of two")
    return value


def _read_tensor(reader: _HeaderReader, alignment: int, file: str) -> TensorInfo:
    """Reads one tensor's description; its offset is relative to the data section."""
    name = reader.name("a tensor name")
    num_dimensions = reader.number(_UINT32, f"the number of dimensions of {name!r}")
    if not 1 <= num_dimensions <= _MAX_DIMENSIONS:
        raise CheckpointError(
            f"tensor {name!r} has {num_dimensions} dimensions; 1 to {_MAX_DIMENSIONS} are legal"
        )
    layout = _TENSOR_LAYOUTS[num_dimensions]
    reader.require(layout.size, f"the description of {name!r}")
    *sizes, type_id, offset = layout.unpack_from(reader.buffer, reader.position)
    reader.position += layout.size
    dtype = _tensor_type(type_id, name)
    if 0 in sizes or sizes[0] % dtype.block_elements:
        raise CheckpointError(
            f"tensor {name!r} has the shape {sizes[::-1]}; sizes have to be positive and rows of "
            f"{dtype.name} a multiple of {dtype.block_elements}"
        )
    if offset % alignment:
        raise CheckpointError(
            f"tensor {name!r} begins at offset {offset}, which is not a multiple of the alignment "
            f"{alignment}"
        )
    return TensorInfo(name, tuple(reversed(sizes)), dtype, (Plane(file, offset),))


def _tensor_type(type_id: int, name: str) -> StorageType:
    dtype = _TYPES.get(type_id)
    if dtype is None:
        raise CheckpointError(
            f"tensor {name!r} has the unknown type id {type_id}; "
            "the file is damaged or newer than this version of webllm"
        )
    if not dtype.supported:
        known = ", ".join(each.name for each in _TYPES.values() if each.supported)
        raise UnsupportedModelError(
            f"tensor {name!r} is stored as {dtype.name}; webllm reads {known}: "
            "choose another quantization of this model"
        )
    return dtype


def _place(tensors: list[TensorInfo], data_start: int, file_bytes: int) -> dict[str, TensorInfo]:
    """Makes offsets absolute; checks that tensors lie in the file and do not overlap."""
    placed: dict[str, TensorInfo] = {}
    for tensor in tensors:
        if tensor.name in placed:
            raise CheckpointError(f"tensor {tensor.name!r} occurs twice; the file is damaged")
        [plane] = tensor.planes
        plane = replace(plane, offset=data_start + plane.offset)
        placed[tensor.name] = replace(tensor, planes=(plane,))
    end = data_start
    for tensor in sorted(placed.values(), key=lambda each: each.planes[0].offset):
        start = tensor.planes[0].offset
        if start < end:
            raise CheckpointError(f"tensor {tensor.name!r} overlaps the one stored before it")
        end = start + tensor.nbytes
        if end > file_bytes:
            raise CheckpointError(
                f"tensor {tensor.name!r} ends at byte {end}, but the file has {file_bytes}; "
                "it is truncated: download it again"
            )
    return placed
