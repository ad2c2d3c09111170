"""Lays matrices out in device memory: GGML blocks, uploaded as they are, become planes."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from webllm.artifacts.checkpoint import GGMLType
from webllm.backends.webgpu.device.protocol import Device, Dispatch, Slice
from webllm.backends.webgpu.kernels.quant.planar import GROUP, Planar
from webllm.backends.webgpu.kernels.template import snippet, source
from webllm.errors import UnsupportedModelError

PARAMS = Struct("=8I")
_THREADS = 64
_SHARD_ROWS = 256  # keeps every shard's first group even and 256-byte aligned


@dataclass(frozen=True, slots=True)
class Shard:
    """Rows of a matrix that one binding holds: both planes of `rows` rows from `first_row`."""

    first_row: int
    rows: int
    quants: Slice
    side: Slice


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight on the device, [rows, cols]; most have one shard."""

    rows: int
    cols: int
    form: Planar
    shards: tuple[Shard, ...]

    @property
    def groups(self) -> int:
        """Groups of 32 columns in a row."""
        return self.cols // GROUP

    def destroy(self) -> None:
        for shard in self.shards:
            shard.quants.buffer.destroy()
            shard.side.buffer.destroy()


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive rows of one part of a weight, and where they go.

    first_row: of the chunk within its part; target_row, stride: row r of the part becomes row
    target_row + stride * r of the matrix, after its halves became pairs if head_dim is not 0.
    """

    first_row: int
    rows: int
    head_dim: int
    target_row: int
    stride: int

    def params(self, matrix: Matrix, shard: Shard) -> bytes:
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


def check_cols(cols: int) -> None:
    if cols % GROUP:
        raise UnsupportedModelError(f"a matrix of {cols} columns: only multiples of {GROUP} run")


def allocate(device: Device, rows: int, cols: int, form: Planar) -> Matrix:
    """Raises UnsupportedModelError if cols % 32, DeviceMemoryError if there is no room."""
    check_cols(cols)
    shards = []
    groups = cols // GROUP
    step = rows_per_shard(device, cols, form)
    for first in range(0, rows, step):
        count = min(step, rows - first)
        quants_bytes = form.quants_bytes(count * groups)
        side_bytes = form.side_bytes(count * groups)
        quants = Slice(device.buffer(quants_bytes, "quants"), 0, quants_bytes)
        side = Slice(device.buffer(side_bytes, "side"), 0, side_bytes)
        shards.append(Shard(first, count, quants, side))
    return Matrix(rows, cols, form, tuple(shards))


def rows_per_shard(device: Device, cols: int, form: Planar) -> int:
    largest = min(device.limits.max_binding_bytes, device.limits.max_buffer_bytes)
    row_bytes = form.quants_bytes(cols // GROUP)
    return max(1, largest // (row_bytes * _SHARD_ROWS)) * _SHARD_ROWS


def repack(
    device: Device,
    dtype: GGMLType,
    matrix: Matrix,
    shard: Shard,
    params: Slice,
    blocks: Slice,
    num_rows: int,
) -> Dispatch:
    """Launch for at most `num_rows` rows of `dtype` in `blocks`; `params`: `Chunk.params`."""
    workgroups = -(-num_rows * matrix.groups // _THREADS)
    assert workgroups <= device.limits.max_workgroups, workgroups
    pipeline = device.pipeline(_source(dtype, matrix.form), label=f"repack {dtype.name}")
    bindings = (params, blocks, shard.quants, shard.side)
    return Dispatch(pipeline, bindings, (workgroups, 1, 1), f"repack {dtype.name}")


def _source(dtype: GGMLType, form: Planar) -> str:
    floats = dtype in (GGMLType.F32, GGMLType.F16, GGMLType.BF16)
    if form.bits == 16:
        assert floats, dtype
        return source("repack", block=snippet("repack/halves"), planes="")
    block = snippet(f"repack/{dtype.name.lower()}")
    if dtype in (GGMLType.Q4_K, GGMLType.Q5_K):
        block = snippet("repack/k_scales") + block
    if form.is_float:
        values = "" if floats else snippet("repack/quantized_values")
        return source("repack", block=block + values, planes=snippet("repack/to_float32"))
    constants = (
        f"const BITS = {form.bits}u;\n"
        f"const HIGH_WORDS = {form.high_words}u;\n"
        f"const SIDE_WORDS = {form.side_words}u;\n"
        f"const MINS = {str(form.mins).lower()};\n"
        f"const TARGET_ZERO = {form.zero};\n"
    )
    return source("repack", block=block, planes=constants + snippet("repack/to_quantized"))
