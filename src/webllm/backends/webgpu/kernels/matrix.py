"""The layout of weight matrices in device memory, and the WGSL that reads them.

A matrix [rows, cols], cols % 32 == 0, is two buffers. Group i of 32 columns is the one in row
i / (cols / 32) at column 32 * (i % (cols / 32)):

    quants  array<vec4<u32>>
            4, 5, 6 bits: one vec4 a group; byte b of word j holds the low four bits of elements
            4j + b (its low nibble) and 16 + 4j + b (its high nibble), as in GGUF's Q4_0
            8 bits: two vec4, int8 in order; 16 and 32 bits: 4 and 8 vec4, floats in order
    scales  array<u32>, for each group first the high bits of its quants, then its scales
            high bits: 5 bits: one word, bit 8b + j for element 4j + b; 6 bits: two words (elements
            0-15 and 16-31), bits 8b + 2j and above for element 4j + b
            scales: f16. One for 32 columns without high bits: the half words of `scales` in order;
            else a word that holds (scale, unused) or (scale, scale of the upper 16 columns).
            With mins: a word (scale, min) for each 32 or 16 columns
            floats: one word, unused

A kernel that reads weights declares both bindings under these names and includes
`reader(format)`, whose interface is in parts/matrix.wgsl.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

from webllm.artifacts.checkpoint import Storage
from webllm.backends.webgpu.device.protocol import Device, Slice
from webllm.backends.webgpu.kernels.activation import GROUP
from webllm.backends.webgpu.kernels.template import part, source
from webllm.errors import UnsupportedModelError

_SHARD_ROWS = 256  # keeps the first group of every shard even and 256-byte aligned
_HIGH_WORDS = {5: 1, 6: 2}


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """value = scale * (q - zero), or scale * q + min with `mins`; 16 and 32 bits are floats.

    scale_group: columns that share a scale, 16 or 32; 0 for floats.
    bf16: 16 bits are bfloat16, else IEEE half precision.
    """

    bits: int
    scale_group: int = 0
    mins: bool = False
    bf16: bool = False

    @property
    def is_float(self) -> bool:
        return self.bits >= 16

    @property
    def zero(self) -> int:
        return 0 if self.mins or self.bits >= 8 else 1 << (self.bits - 1)

    @property
    def high_words(self) -> int:
        """Words of high bits that a group has in `scales`."""
        return _HIGH_WORDS.get(self.bits, 0)

    @property
    def half_scales(self) -> bool:
        """Whether `scales` holds just one half word for each group."""
        return not self.is_float and not self.high_words and self.scale_words == 0

    @property
    def scale_words(self) -> int:
        """Words that a group has in `scales`; 0 for half a word, and for floats."""
        if self.is_float or (self.scale_group == GROUP and not self.mins and not self.high_words):
            return 0
        per_scale = GROUP // self.scale_group if self.mins else 1
        return self.high_words + per_scale

    def quants_bytes(self, groups: int) -> int:
        return 4 * groups * (self.bits if self.bits >= 8 else 4)

    def scales_bytes(self, groups: int) -> int:
        if self.is_float:
            return 4
        return 4 * groups * self.scale_words or 4 * -(-groups // 2)


def format_of(storage: Storage) -> WeightFormat:
    """Returns the narrowest format that holds the numbers of a storage type exactly."""
    if storage.is_float:
        return WeightFormat(storage.bits, bf16=storage.bf16)
    return WeightFormat(max(storage.bits, 4), min(storage.scale_group, GROUP), storage.mins)


def common_format(storages: Iterable[Storage]) -> WeightFormat:
    """Returns the narrowest format that holds all of them exactly, for the parts of one weight."""
    return reduce(_wider, map(format_of, storages))


def _wider(a: WeightFormat, b: WeightFormat) -> WeightFormat:
    if a == b:
        return a
    if a.is_float or b.is_float:
        return WeightFormat(32)
    scale_group = min(a.scale_group, b.scale_group)
    return WeightFormat(max(a.bits, b.bits), scale_group, a.mins or b.mins)


@dataclass(frozen=True, slots=True)
class Shard:
    """`rows` rows of a matrix from `first_row`: as many as one binding holds."""

    first_row: int
    rows: int
    quants: Slice
    scales: Slice


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight on the device, [rows, cols]; most have one shard."""

    rows: int
    cols: int
    format: WeightFormat
    shards: tuple[Shard, ...]

    @property
    def groups(self) -> int:
        """Groups of 32 columns in a row."""
        return self.cols // GROUP

    def destroy(self) -> None:
        for shard in self.shards:
            shard.quants.buffer.destroy()
            shard.scales.buffer.destroy()


def allocate(device: Device, rows: int, cols: int, format: WeightFormat) -> Matrix:
    """Returns a matrix of zeros.

    Raises UnsupportedModelError if cols % 32, DeviceMemoryError if there is no room.
    """
    if cols % GROUP:
        raise UnsupportedModelError(f"a matrix of {cols} columns: only multiples of {GROUP} run")
    shards = []
    groups = cols // GROUP
    step = _rows_per_shard(device, cols, format)
    for first in range(0, rows, step):
        count = min(step, rows - first)
        quants_bytes = format.quants_bytes(count * groups)
        scales_bytes = format.scales_bytes(count * groups)
        quants = Slice(device.buffer(quants_bytes, "quants"), 0, quants_bytes)
        scales = Slice(device.buffer(scales_bytes, "scales"), 0, scales_bytes)
        shards.append(Shard(first, count, quants, scales))
    return Matrix(rows, cols, format, tuple(shards))


def _rows_per_shard(device: Device, cols: int, format: WeightFormat) -> int:
    largest = min(device.limits.max_binding_bytes, device.limits.max_buffer_bytes)
    row_bytes = format.quants_bytes(cols // GROUP)
    return max(1, largest // (row_bytes * _SHARD_ROWS)) * _SHARD_ROWS


_LOAD_QUANTS = {
    4: "parts/matrix#bits4",
    5: "parts/matrix#bits5",
    6: "parts/matrix#bits6",
    8: "parts/matrix#bits8",
}
_LOAD_SCALES = {  # by (scale_group, mins)
    (32, False): "parts/matrix#scale32",
    (16, False): "parts/matrix#scale16",
    (32, True): "parts/matrix#min32",
    (16, True): "parts/matrix#min16",
}


def reader(format: WeightFormat) -> str:
    """Returns the WGSL of `Group`, `load_group` and `group_value`."""
    if format.bits == 32:
        return part("parts/matrix#float32")
    if format.bits == 16:
        return part("parts/matrix#bfloat16" if format.bf16 else "parts/matrix#float16")
    by_group = _LOAD_SCALES[format.scale_group, format.mins]
    return source(
        "parts/matrix#quantized",
        scale_words=str(format.scale_words),
        high_words=str(format.high_words),
        zero=str(format.zero),
        load_quants=part(_LOAD_QUANTS[format.bits]),
        load_scales=part("parts/matrix#half_scale" if format.half_scales else by_group),
    )
