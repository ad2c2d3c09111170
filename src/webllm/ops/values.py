"""What ops work on: activations (`Value`), weights (`Weight`) and rotary tables.

Nothing here holds numbers: a value is a row count that is known only when a step runs, times a
fixed number of columns; a weight names tensors of a checkpoint and says how their rows are laid.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Rows(Enum):
    """How many rows a value has in a step."""

    TOKENS = "tokens"  # every token of the batch
    OUTPUTS = "outputs"  # only the tokens whose logits are wanted


class Encoding(Enum):
    F32 = "f32"
    ACTIVATION = "activation"  # read by matrix products only: int8 groups, f16 or f32, by backend


@dataclass(frozen=True, slots=True)
class Value:
    """An activation, [rows, cols]."""

    id: int
    rows: Rows
    cols: int
    encoding: Encoding = Encoding.F32


class RowOrder(Enum):
    AS_STORED = "as_stored"
    HALVES_TO_PAIRS = "halves_to_pairs"  # within each head: (i, i + head_dim / 2) -> (2i, 2i + 1)


@dataclass(frozen=True, slots=True)
class Part:
    """One tensor of the checkpoint inside a weight; `head_dim` is read by HALVES_TO_PAIRS."""

    tensor: str
    rows: int
    order: RowOrder = RowOrder.AS_STORED
    head_dim: int = 0


@dataclass(frozen=True, slots=True)
class Weight:
    """A matrix [rows, cols]: its parts one below the other.

    A vector (gamma, bias) is a matrix of one column: its parts' elements, each a row. It is
    always stored as f32.
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
        return cls((Part(tensor, rows, order, head_dim),), cols)

    @staticmethod
    def concat(weights: Sequence[Weight]) -> Weight:
        return Weight(tuple(part for w in weights for part in w.parts), weights[0].cols)


@dataclass(frozen=True, slots=True)
class RopeTable:
    """Rotation angles as two tables of (cos, sin) in f32, exact at any position.

    position = FINE * coarse_row + fine_row, and the rotation is the product of the two rows'
    unit complex numbers, so nothing computes a sine of a large float on the device. The tables
    are computed when they are asked for: by a backend, once it has checked the program.
    """

    FINE = 256

    inv_freq: tuple[float, ...]  # radians a position, [head_dim / 2]
    max_positions: int
    scale: float = 1.0  # multiplies q and k (YaRN's attention factor)

    @classmethod
    def build(cls, inv_freq: Sequence[float], max_positions: int, scale: float = 1.0) -> RopeTable:
        return cls(tuple(inv_freq), max_positions, scale)

    @property
    def head_dim(self) -> int:
        return 2 * len(self.inv_freq)

    @property
    def num_coarse(self) -> int:
        return -(-self.max_positions // self.FINE)

    @property
    def fine(self) -> bytes:
        """[FINE, head_dim / 2, 2]"""
        return _unit_rows(self.inv_freq, range(self.FINE), self.scale)

    @property
    def coarse(self) -> bytes:
        """[num_coarse, head_dim / 2, 2]"""
        return _unit_rows(self.inv_freq, range(0, self.num_coarse * self.FINE, self.FINE), 1.0)


def _unit_rows(inv_freq: Sequence[float], positions: range, scale: float) -> bytes:
    table = array("f")
    for position in positions:
        for frequency in inv_freq:
            angle = position * frequency
            table.append(scale * math.cos(angle))
            table.append(scale * math.sin(angle))
    return table.tobytes()
