"""The formats of packed weights, and the choice of one for each tensor; formats.h describes them.

A weight becomes runs of rows, each in the smallest format that holds its tensors exactly. Tensors
whose rows share a panel of 16 get the union of their formats.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

from webllm.artifacts.checkpoint import GROUP_COLS, Checkpoint, GGMLType
from webllm.errors import UnsupportedModelError
from webllm.ops.program import Program
from webllm.ops.values import Part, Weight

PANEL_ROWS = 16


class Format(IntFlag):
    """The storage of weights in a panel: flags of a quantized format, or a float format."""

    BITS4 = 0
    BITS8 = 1
    HALVES = 2  # a scale for every 16 columns, not for every 32
    MINS = 4  # a minimum beside each scale
    F16 = 8
    BF16 = 9
    F32 = 10

    @property
    def is_float(self) -> bool:
        return self >= Format.F16

    def union(self, other: Format) -> Format:
        """Returns the smallest format that holds weights of both exactly."""
        if self == other:
            return self
        return Format.F32 if self.is_float or other.is_float else self | other

    def panel_bytes(self, cols: int) -> int:
        """Bytes of one panel: 16 rows of `cols` columns."""
        if self.is_float:
            return cols * PANEL_ROWS * (4 if self == Format.F32 else 2)
        scales = (64 if self & Format.HALVES else 32) * (2 if self & Format.MINS else 1)
        return cols // GROUP_COLS * ((512 if self & Format.BITS8 else 256) + scales)


_FORMATS = {
    GGMLType.F32: Format.F32,
    GGMLType.F16: Format.F16,
    GGMLType.BF16: Format.BF16,
    GGMLType.Q4_0: Format.BITS4,
    GGMLType.Q4_1: Format.MINS,
    GGMLType.Q5_0: Format.BITS8,
    GGMLType.Q5_1: Format.BITS8 | Format.MINS,
    GGMLType.Q8_0: Format.BITS8,
    GGMLType.Q2_K: Format.HALVES | Format.MINS,
    GGMLType.Q3_K: Format.HALVES,
    GGMLType.Q4_K: Format.MINS,
    GGMLType.Q5_K: Format.BITS8 | Format.MINS,
    GGMLType.Q6_K: Format.BITS8 | Format.HALVES,
}


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive parts of a weight in one format; its first row is a multiple of 16."""

    parts: tuple[Part, ...]
    format: Format

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def num_panels(self) -> int:
        return -(-self.rows // PANEL_ROWS)

    def num_bytes(self, cols: int) -> int:
        return self.num_panels * self.format.panel_bytes(cols)


def runs_of(weight: Weight, checkpoint: Checkpoint) -> list[Run]:
    """Divides a weight into runs. Raises UnsupportedModelError for an unknown storage type."""
    runs: list[Run] = []
    for part in weight.parts:
        run = Run((part,), _format(checkpoint, part.tensor))
        if runs and (runs[-1].rows % PANEL_ROWS or runs[-1].format == run.format):
            last = runs.pop()
            run = Run((*last.parts, part), last.format.union(run.format))
        runs.append(run)
    return runs


def _format(checkpoint: Checkpoint, tensor: str) -> Format:
    dtype = checkpoint.tensors[tensor].dtype
    if dtype not in _FORMATS:
        raise UnsupportedModelError(f"{tensor} is stored as {dtype.name}, which webllm cannot read")
    return _FORMATS[dtype]


def packed_bytes(program: Program, checkpoint: Checkpoint) -> int:
    """Returns the bytes of all packed matrices; vectors and rotary tables are tiny beside them."""
    return sum(
        run.num_bytes(weight.cols)
        for weight in program.matrices()
        for run in runs_of(weight, checkpoint)
    )
