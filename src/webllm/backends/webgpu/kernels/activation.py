"""Activations that only matrix products read, and the WGSL that reads and writes them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from webllm.backends.webgpu.device.protocol import Slice
from webllm.backends.webgpu.kernels.template import part

GROUP = 32  # columns that share a scale, in activations and in weights


class ActivationFormat(Enum):
    """The storage of activations [rows, cols]; cols is a multiple of 32.

    I8   two slices: u32 [rows, cols / 4], four int8 in order; and vec2<f32> [rows, cols / 32],
         (scale, scale * sum of the group's int8): value = scale * int8.
    F32  f32 [rows, cols].
    """

    I8 = "i8"
    F32 = "f32"


_READ = {
    ActivationFormat.I8: "parts/activation#read_i8",
    ActivationFormat.F32: "parts/activation#read_f32",
}
_WRITE = {
    ActivationFormat.I8: "parts/activation#write_i8",
    ActivationFormat.F32: "parts/activation#write_f32",
}


@dataclass(frozen=True, slots=True)
class Encoded:
    """A matrix in an activation format; plain f32 is the format F32. `scales` is for I8 only."""

    format: ActivationFormat
    values: Slice
    scales: Slice | None = None

    @property
    def slices(self) -> tuple[Slice, ...]:
        return (self.values,) if self.scales is None else (self.values, self.scales)

    @property
    def read(self) -> str:
        """WGSL that reads groups of 32 columns; its interface is in parts/activation.wgsl."""
        return part(_READ[self.format])

    @property
    def write(self) -> str:
        """WGSL that writes groups of 32 columns; its interface is in parts/activation.wgsl."""
        return part(_WRITE[self.format])


def row_bytes(format: ActivationFormat, cols: int) -> tuple[int, ...]:
    """Returns the bytes of one row in each slice."""
    match format:
        case ActivationFormat.I8:
            return (cols, cols // GROUP * 8)
        case ActivationFormat.F32:
            return (cols * 4,)
