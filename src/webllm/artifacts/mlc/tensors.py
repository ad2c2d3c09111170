"""Reads `tensor-cache.json`: where each tensor lies in the shards, by Hugging Face's names.

Group quantization q4*_1: `name.q_weight` has eight 4-bit codes in a u32, the first one lowest,
and `name.q_scale` a scale for 32 columns; a weight is (code - 7) * scale. MLC fuses projections:
their rows, one after the other, are tensors of their own here. See mlc-llm's
`quantization/group_quantization.py` and tvm's `contrib/tvmjs.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from webllm.artifacts.checkpoint import Plane, StorageType, TensorInfo
from webllm.errors import CheckpointError, UnsupportedModelError

_CODES, _SCALE = ".q_weight", ".q_scale"
_CODES_PER_WORD = 8
_GROUP = 32
_DTYPE_BYTES = {"float16": 2, "float32": 4, "bfloat16": 2, "uint32": 4}
_STORAGE = {
    "float16": StorageType.F16,
    "float32": StorageType.F32,
    "bfloat16": StorageType.BF16,
}


class _Record(msgspec.Struct):
    name: str
    shape: list[int]
    dtype: str
    nbytes: int
    byteOffset: int  # noqa: N815 - the file's name
    format: str = "raw"

    @property
    def storage(self) -> str:
        """The type of the bytes: f32-to-bf16 keeps the upper half of each float32."""
        is_half = self.format == "f32-to-bf16" and self.dtype == "float32"
        return "bfloat16" if is_half else self.dtype


class _Shard(msgspec.Struct):
    dataPath: str  # noqa: N815 - the file's name
    nbytes: int
    records: list[_Record]


class Cache(msgspec.Struct):
    """`tensor-cache.json`."""

    records: list[_Shard]


def read_cache(document: Mapping[str, Any]) -> Cache:
    """Reads the document; raises CheckpointError if it is malformed."""
    try:
        return msgspec.convert(document, Cache)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"tensor-cache.json is malformed: {error}") from None


def shard_sizes(cache: Cache) -> dict[str, int]:
    """Returns the bytes of each shard by its name."""
    return {shard.dataPath: shard.nbytes for shard in cache.records}


def tensors_from_cache(cache: Cache, config: Mapping[str, object]) -> dict[str, TensorInfo]:
    """Returns the tensors by name; `config` has the sizes of what is fused.

    Raises CheckpointError for a contradictory cache, UnsupportedModelError for a
    storage type that is not read.
    """
    records: dict[str, tuple[_Record, Plane]] = {}
    for shard in cache.records:
        for record in _checked(shard):
            if record.name in records:
                raise CheckpointError(f"tensor {record.name!r} occurs twice in tensor-cache.json")
            records[record.name] = record, Plane(shard.dataPath, record.byteOffset)
    tensors: dict[str, TensorInfo] = {}
    for record, plane in records.values():
        if record.name.endswith(_SCALE):
            continue
        tensor = _tensor(record, plane, records)
        for part in _parts(tensor, config):
            tensors[part.name] = part
    return tensors


def _checked(shard: _Shard) -> Iterator[_Record]:
    """Yields the records of a shard, which lie in it one after the other."""
    end = 0
    for record in sorted(shard.records, key=lambda each: each.byteOffset):
        if record.storage not in _DTYPE_BYTES:
            raise UnsupportedModelError(
                f"tensor {record.name!r} is stored as {record.dtype}; webllm reads "
                + ", ".join(_DTYPE_BYTES)
            )
        elements = 1
        for size in record.shape:
            elements *= max(size, 0)
        expected = elements * _DTYPE_BYTES[record.storage]
        if not record.shape or record.nbytes != expected or not expected:
            raise CheckpointError(
                f"tensor {record.name!r} has {record.nbytes} bytes for the shape {record.shape} of "
                f"{record.storage}"
            )
        if record.byteOffset < end:
            raise CheckpointError(f"tensor {record.name!r} overlaps the one stored before it")
        end = record.byteOffset + record.nbytes
        if end > shard.nbytes:
            raise CheckpointError(
                f"tensor {record.name!r} ends at byte {end} of {shard.dataPath}, which has "
                f"{shard.nbytes}"
            )
        yield record


def _tensor(
    record: _Record, plane: Plane, records: Mapping[str, tuple[_Record, Plane]]
) -> TensorInfo:
    """Describes one tensor by its codes and scales, or by its values."""
    name = record.name.removeprefix("language_model.")
    if not record.name.endswith(_CODES):
        dtype = _STORAGE.get(record.storage)
        if dtype is None:
            raise UnsupportedModelError(f"tensor {record.name!r} is stored as {record.dtype}")
        return TensorInfo(name, tuple(record.shape), dtype, (plane,))
    scale, scale_plane = records.get(record.name.removesuffix(_CODES) + _SCALE, (None, None))
    if scale is None or scale_plane is None:
        raise CheckpointError(f"tensor {record.name!r} has no {_SCALE}")
    if len(record.shape) != 2 or record.dtype != "uint32":
        raise CheckpointError(
            f"tensor {record.name!r} has the shape {record.shape} of {record.dtype}; 4-bit codes "
            "are a matrix of uint32"
        )
    rows, words = record.shape
    cols = words * _CODES_PER_WORD
    if scale.shape != [rows, cols // _GROUP] or cols % _GROUP:
        raise UnsupportedModelError(
            f"tensor {record.name!r} has the scales {scale.shape}; webllm reads a scale for "
            f"{_GROUP} columns (q4f16_1, q4f32_1)"
        )
    types = {"float16": StorageType.MLC_Q4, "bfloat16": StorageType.MLC_Q4_BF16}
    if scale.storage not in types:
        raise UnsupportedModelError(f"tensor {scale.name!r} is stored as {scale.dtype}")
    name = name.removesuffix(_CODES) + ".weight"
    return TensorInfo(name, (rows, cols), types[scale.storage], (plane, scale_plane))


def _parts(tensor: TensorInfo, config: Mapping[str, object]) -> Iterator[TensorInfo]:
    """Yields the tensors that MLC has fused into one, in Hugging Face's names."""
    stem, _, suffix = tensor.name.rpartition(".")
    outer, _, last = stem.rpartition(".")
    if last in ("qkv_proj", "c_attn"):
        heads, kv_heads = _size(config, "num_attention_heads"), _size(config, "num_key_value_heads")
        head_dim = config.get("head_dim") or _size(config, "hidden_size") // heads
        if not isinstance(head_dim, int):
            raise CheckpointError(f"head_dim is {head_dim!r}, not a whole number")
        sizes = {"q_proj": heads * head_dim, "k_proj": kv_heads * head_dim}
        sizes["v_proj"] = kv_heads * head_dim
    elif last == "gate_up_proj":
        wide = _size(config, "intermediate_size")
        sizes = {"gate_proj": wide, "up_proj": wide}
    else:
        yield tensor
        return
    if sum(sizes.values()) != tensor.shape[0]:
        raise CheckpointError(
            f"tensor {tensor.name} has {tensor.shape[0]} rows; its parts have "
            + " + ".join(map(str, sizes.values()))
        )
    first = 0
    for name, rows in sizes.items():
        yield (tensor.rows(f"{outer}.{name}.{suffix}", first, rows))
        first += rows


def _size(config: Mapping[str, object], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or value < 1:
        raise CheckpointError(f"{name} of mlc-chat-config.json is {value!r}, not a whole number")
    return value
