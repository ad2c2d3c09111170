"""The operands of ops: activations (`Value`), weights (`Weight`) and rotary tables.

They are descriptions and hold no numbers. A value has a fixed number of columns and a number of
rows that each step decides. A weight names tensors of a checkpoint and the order of their rows.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Rows(Enum):
    """The number of rows that a value has in a step."""

    TOKENS = "tokens"  # one for every token of the batch
    OUTPUTS = "outputs"  # one for every token whose logits are wanted


class Encoding(Enum):
    """The storage of a value."""

    F32 = "f32"
    ACTIVATION = "activation"  # read by matrix products only: the backend chooses, mostly int8


@dataclass(frozen=True, slots=True)
class Value:
    """An activation, [rows, cols], in one buffer of the backend."""

    id: int
    rows: Rows
    cols: int
    encoding: Encoding = Encoding.F32


class RowOrder(Enum):
    """The order of a tensor's rows once loaded."""

    AS_STORED = "as_stored"
    HALVES_TO_PAIRS = "halves_to_pairs"  # within each head: (i, i + head_dim / 2) -> (2i, 2i + 1)


@dataclass(frozen=True, slots=True)
class Part:
    """One tensor of the checkpoint within a weight."""

    tensor: str
    rows: int
    order: RowOrder = RowOrder.AS_STORED
    head_dim: int = 0  # only for HALVES_TO_PAIRS


@dataclass(frozen=True, slots=True)
class Weight:
    """A matrix [rows, cols]: the rows of its parts, one part after the other.

    A vector (a gamma or bias) is a matrix of one column. A backend stores it as f32.
    """

    parts: tuple[Part, ...]
    cols: int

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @classmethod
    def of(
        cls,
        tensor: str,
        rows: int,
        cols: int = 1,
        order: RowOrder = RowOrder.AS_STORED,
        head_dim: int = 0,
    ) -> Weight:
        """Returns a weight of one tensor."""
        return cls((Part(tensor, rows, order, head_dim),), cols)

    @staticmethod
    def concat(weights: Sequence[Weight]) -> Weight:
        """Stacks weights of equal columns: [sum of rows, cols]."""
        return Weight(tuple(part for w in weights for part in w.parts), weights[0].cols)


@dataclass(frozen=True, slots=True)
class RopeTable:
    """Rotation angles as two tables of (cos, sin) in f32, accurate at any position.

    position = FINE * coarse_row + fine_row. The rotation is the product of the two rows' unit
    complex numbers, so that a device never computes the sine of a large float. A backend computes
    the tables after it has checked the program, as a file may claim any number of positions.
    """

    FINE = 256

    inv_freq: tuple[float, ...]  # radians per position, [head_dim / 2]
    max_positions: int
    scale: float = 1.0  # multiplies q and k (YaRN's attention factor)

    @classmethod
    def build(cls, inv_freq: Sequence[float], max_positions: int, scale: float = 1.0) -> RopeTable:
        """Returns the tables of `inv_freq` for positions below `max_positions`."""
        return cls(tuple(inv_freq), max_positions, scale)

    @property
    def head_dim(self) -> int:
        """Dimensions of a head that rotate."""
        return 2 * len(self.inv_freq)

    @property
    def num_coarse(self) -> int:
        return -(-self.max_positions // self.FINE)

    @property
    def fine(self) -> bytes:
        """(cos, sin) of positions 0 .. FINE - 1, times `scale`: f32 [FINE, head_dim / 2, 2]."""
        return _unit_rows(self.inv_freq, range(self.FINE), self.scale)

    @property
    def coarse(self) -> bytes:
        """(cos, sin) of every FINE-th position: f32 [num_coarse, head_dim / 2, 2]."""
        return _unit_rows(self.inv_freq, range(0, self.num_coarse * self.FINE, self.FINE), 1.0)


def _unit_rows(inv_freq: Sequence[float], positions: range, scale: float) -> bytes:
    table = array("f")
    for position in positions:
        for frequency in inv_freq:
            angle = position * frequency
            table.append(scale * math.cos(angle))
            table.append(scale * math.sin(angle))
    return table.tobytes()
