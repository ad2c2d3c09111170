"""Chooses the format in which each weight is packed; formats.h describes the formats.

A weight is packed as runs of rows, each in the smallest format that holds its tensors exactly.
Tensors whose rows share a panel (16 rows, interleaved) get the union of their formats.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

from webllm.artifacts.checkpoint import GROUP_COLS, Checkpoint, Storage
from webllm.ops.program import Program
from webllm.ops.values import Part, Weight

PANEL_ROWS = 16


class Format(IntFlag):
    """How a panel stores weights.

    Values below F16 combine the flags of a quantized format; the others are float formats.
    """

    BITS4 = 0
    BITS8 = 1
    GROUPS_OF_16 = 2  # a scale for every 16 columns, not for every 32
    MINS = 4  # a minimum for each scale
    F16 = 8
    BF16 = 9
    F32 = 10

    @property
    def is_float(self) -> bool:
        return self >= Format.F16

    def union(self, other: Format) -> Format:
        """Returns the smallest format that holds the weights of either format exactly."""
        if self == other:
            return self
        return Format.F32 if self.is_float or other.is_float else self | other

    def panel_bytes(self, cols: int) -> int:
        """Returns the bytes of one panel: 16 rows of `cols` columns."""
        if self.is_float:
            return cols * PANEL_ROWS * (4 if self == Format.F32 else 2)
        scales = (64 if self & Format.GROUPS_OF_16 else 32) * (2 if self & Format.MINS else 1)
        return cols // GROUP_COLS * ((512 if self & Format.BITS8 else 256) + scales)


def format_of(storage: Storage) -> Format:
    """Returns the smallest format that holds the numbers of a storage type exactly."""
    if storage.is_float:
        half = Format.BF16 if storage.bf16 else Format.F16
        return Format.F32 if storage.bits == 32 else half
    format = Format.BITS4 if storage.bits <= 4 else Format.BITS8
    if storage.scale_group == GROUP_COLS // 2:
        format |= Format.GROUPS_OF_16
    return format | Format.MINS if storage.mins else format


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive parts of a weight in one format. A run begins at a multiple of 16 rows."""

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
    """Divides a weight into runs.

    A part joins the run before it if their formats are equal, or if that run ends inside a panel.
    Raises UnsupportedModelError for a type that is not read.
    """
    runs: list[Run] = []
    for part in weight.parts:
        run = Run((part,), format_of(checkpoint.tensors[part.tensor].packed))
        if runs and (runs[-1].rows % PANEL_ROWS or runs[-1].format == run.format):
            last = runs.pop()
            run = Run((*last.parts, part), last.format.union(run.format))
        runs.append(run)
    return runs


def packed_bytes(program: Program, checkpoint: Checkpoint) -> int:
    """Returns the bytes of all packed matrices, without the small vectors and rotary tables."""
    return sum(
        run.num_bytes(weight.cols)
        for weight in program.matrices()
        for run in runs_of(weight, checkpoint)
    )
