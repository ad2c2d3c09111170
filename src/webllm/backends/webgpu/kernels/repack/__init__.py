"""Converts uploaded GGML blocks to the layout of `matrix.py`, on the device."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from webllm.artifacts.checkpoint import StorageType
from webllm.backends.webgpu.device.protocol import Device, Dispatch, Slice
from webllm.backends.webgpu.kernels.matrix import Matrix, Shard, WeightFormat
from webllm.backends.webgpu.kernels.template import part, source

PARAMS = Struct("=8I")
_THREADS = 64

_FLOATS = {
    StorageType.F32: "repack/parts/floats#f32",
    StorageType.F16: "repack/parts/floats#f16",
    StorageType.BF16: "repack/parts/floats#bf16",
}
_INTEGERS = {
    StorageType.Q4_0: ("repack/parts/q4_0",),
    StorageType.Q4_1: ("repack/parts/q4_1",),
    StorageType.Q5_0: ("repack/parts/q5_0",),
    StorageType.Q5_1: ("repack/parts/q5_1",),
    StorageType.Q8_0: ("repack/parts/q8_0",),
    StorageType.Q2_K: ("repack/parts/q2_k",),
    StorageType.Q3_K: ("repack/parts/q3_k",),
    StorageType.Q4_K: ("repack/parts/k_scales", "repack/parts/q4_k"),
    StorageType.Q5_K: ("repack/parts/k_scales", "repack/parts/q5_k"),
    StorageType.Q6_K: ("repack/parts/q6_k",),
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
    blocks: Slice,
    num_rows: int,
) -> Dispatch:
    """Converts at most `num_rows` rows of `dtype` in `blocks`; params: `Chunk.params`."""
    workgroups = -(-num_rows * matrix.groups // _THREADS)
    assert workgroups <= device.limits.max_workgroups, workgroups
    label = f"repack {dtype.name}"
    return Dispatch(
        device.pipeline(_source(dtype, matrix.format), label=label),
        (params, blocks, shard.quants, shard.scales),
        (workgroups, 1, 1),
        label,
    )


def _source(dtype: StorageType, format: WeightFormat) -> str:
    if format.bits == 16:
        assert dtype in _FLOATS, dtype
        return source("repack/repack", block=part("repack/parts/floats#copy16"), store="")
    if dtype in _FLOATS:
        block = part(_FLOATS[dtype])
    else:
        block = "\n".join(part(name) for name in _INTEGERS[dtype])
    if format.is_float:
        values = "" if dtype in _FLOATS else part("repack/repack#value")
        store = values + part("repack/repack#store_float32")
    else:
        store = source(
            "repack/repack#store_quantized",
            bits=str(format.bits),
            high_words=str(format.high_words),
            scale_words=str(format.scale_words),
            mins=str(format.mins).lower(),
            zero=str(format.zero),
        )
    return source("repack/repack", block=block, store=store)
