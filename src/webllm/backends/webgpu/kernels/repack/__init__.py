"""Converts uploaded blocks of weights to the layout of `matrix.py`, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct

from webllm.artifacts.checkpoint import StorageType
from webllm.backends.webgpu.device.protocol import Device, Dispatch, Slice
from webllm.backends.webgpu.kernels.activation import GROUP
from webllm.backends.webgpu.kernels.matrix import Matrix, Shard, WeightFormat
from webllm.backends.webgpu.kernels.template import part, source

PARAMS = Struct("=8I")
_THREADS = 64
_STEPS = {
    StorageType.Q4_0: "repack/parts/quantize#q4_0",
    StorageType.Q8_0: "repack/parts/quantize#q8_0",
}


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive rows of one part of a weight, and their place in the matrix.

    first_row: the chunk's first row within its part. Row r of the part goes to row
    target_row + stride * r. If head_dim > 0, the two halves of each head's rows are interleaved
    into pairs first, as rotary embedding wants them.
    """

    first_row: int
    rows: int
    head_dim: int
    target_row: int
    stride: int

    def params(self, matrix: Matrix, shard: Shard) -> bytes:
        """Returns the kernel's `Params`."""
        return PARAMS.pack(
            self.rows,
            matrix.groups,
            self.first_row,
            self.head_dim,
            self.target_row,
            self.stride,
            shard.first_row,
            shard.rows,
        )


def repack(
    device: Device,
    dtype: StorageType,
    matrix: Matrix,
    shard: Shard,
    params: Slice,
    planes: Sequence[Slice],
    num_rows: int,
    out_of_range: Slice | None = None,
    quantized: StorageType | None = None,
) -> Dispatch:
    """Converts at most `num_rows` rows of `dtype`.

    params: `Chunk.params`. planes: the rows as a file has them, in each plane. out_of_range: a u32
    that becomes 1 if f16 cannot hold a scale; types of several planes need it, and `quantized`:
    what floats become, Q4_0 or Q8_0.
    """
    workgroups = -(-num_rows * matrix.groups // _THREADS)
    assert workgroups <= device.limits.max_workgroups, workgroups
    label = f"repack {dtype.name}"
    bindings: tuple[Slice, ...] = params, planes[0], shard.quants, shard.scales
    if quantized or len(planes) > 1:
        assert out_of_range is not None, dtype
        bindings = *bindings, out_of_range, *planes[1:]
    return Dispatch(
        device.pipeline(_source(dtype, quantized, matrix.format), label=label),
        bindings,
        (workgroups, 1, 1),
        label,
    )


def _source(dtype: StorageType, quantized: StorageType | None, format: WeightFormat) -> str:
    elements, storage = dtype.block_elements, dtype.storage
    block = _block(dtype, format)
    if quantized:
        block += source("repack/parts/quantize", steps=part(_STEPS[quantized]))
    return source(
        "repack/repack",
        block_bytes=str(storage.plane_bytes[0] * max(1, GROUP // elements)),
        block_groups=str(max(1, elements // GROUP)),
        source_zero=str((quantized or dtype).storage.zero),
        block=block,
        quantize="quantize();" if quantized else "",
        store=_store(dtype, format),
    )


def unpacking_part(dtype: StorageType) -> str:
    """Returns the name of the part that unpacks a type, which is the type's own."""
    name = dtype.unpacked_as.name.lower()
    return f"repack/parts/floats#{name}" if dtype.storage.is_float else f"repack/parts/{name}"


def _block(dtype: StorageType, format: WeightFormat) -> str:
    storage = dtype.storage
    if format.bits == 16:
        assert storage.bits == 16, dtype
        return part("repack/parts/floats#copy16")
    if storage.is_float:
        return part(unpacking_part(dtype))
    bf16 = str(storage.bf16).lower()
    included = {
        "k_scales": part("repack/parts/k_scales"),
        "iq4_values": part("repack/parts/iq4_values"),
        "planes": source("repack/parts/planes", bf16=bf16),
    }
    overflows = format.bits == 4 and not format.mins and storage.zero < format.zero  # the code 15
    return source(unpacking_part(dtype), negates=str(overflows).lower(), **included)


def _store(dtype: StorageType, format: WeightFormat) -> str:
    if format.bits == 16:
        return ""
    if format.is_float:
        values = "" if dtype.storage.is_float else part("repack/repack#value")
        return values + part("repack/repack#store_float32")
    return source(
        "repack/repack#store_quantized",
        bits=str(format.bits),
        high_words=str(format.high_words),
        scale_words=str(format.scale_words),
        mins=str(format.mins).lower(),
        zero=str(format.zero),
    )
