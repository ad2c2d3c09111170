"""How a kernel stores values that only matrix products read; the interface is in i8.wgsl."""

from __future__ import annotations

from dataclasses import dataclass

from webllm.backends.webgpu.device.protocol import Slice
from webllm.backends.webgpu.kernels.target import ActivationFormat
from webllm.backends.webgpu.kernels.template import snippet

GROUP = 32  # columns


@dataclass(frozen=True, slots=True)
class Encoded:
    """A matrix in an activation format; plain f32 is the format F32. `scales` for I8 only."""

    format: ActivationFormat
    values: Slice
    scales: Slice | None = None

    @property
    def slices(self) -> tuple[Slice, ...]:
        return (self.values,) if self.scales is None else (self.values, self.scales)

    @property
    def store(self) -> str:
        """The snippet that stores groups of this format."""
        return snippet(f"activation/{self.format.value}")


def row_bytes(form: ActivationFormat, cols: int) -> tuple[int, ...]:
    """Bytes of one row in each slice."""
    match form:
        case ActivationFormat.I8:
            return (cols, cols // GROUP * 8)
        case ActivationFormat.F16:
            return (cols * 2,)
        case ActivationFormat.F32:
            return (cols * 4,)
