"""The C structs of ops.h and packing.h as bytes: little endian, addresses always 64 bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from enum import IntEnum
from struct import Struct
from typing import ClassVar

from webllm.artifacts.checkpoint import MAX_PLANES, StorageType
from webllm.ops.step import StepLayout

OP_BYTES = 96
PROGRESS_BYTES = 64
QUERY_TILE_BYTES = 16


class OpKind(IntEnum):
    EMBED = 0
    NORM = 1
    LINEAR = 2
    GATED = 3
    ROPE_KV = 4
    ATTENTION = 5
    TAKE = 6
    SAMPLE = 7


_HEAD = Struct("<II")
_FIELDS = {
    OpKind.EMBED: Struct("<2Qf"),
    OpKind.NORM: Struct("<5Q2If"),
    OpKind.LINEAR: Struct("<4Q2I"),
    OpKind.GATED: Struct("<4Q3I"),
    OpKind.ROPE_KV: Struct("<5Q5If"),
    OpKind.ATTENTION: Struct("<3Q6If"),
    OpKind.TAKE: Struct("<2QI"),
    OpKind.SAMPLE: Struct("<2QI"),
}


def pack_op(kind: OpKind, of_outputs: bool, *fields: int | float) -> bytes:
    """Returns one `Op`; `fields` are those of its member of the union, in order."""
    packed = _HEAD.pack(kind, of_outputs) + _FIELDS[kind].pack(*fields)
    return packed.ljust(OP_BYTES, b"\0")


def matrix_bytes(num_runs: int) -> int:
    """Size of a `Matrix` of `num_runs` runs."""
    return 16 * (1 + num_runs)


def pack_matrix(rows: int, cols: int, runs: list[tuple[int, int, int]]) -> bytes:
    """Returns a `Matrix`; each run is (address, format, first panel)."""
    head = Struct("<4I").pack(rows, cols, len(runs), 0)
    return head + b"".join(Struct("<Q2I").pack(*run) for run in runs)


@dataclass(frozen=True, slots=True)
class PlanStruct:
    """A `Plan`; `pack` adds the step's layout."""

    SIZE: ClassVar[int] = 56 + 24 + 40

    ops: int
    step: int
    kv: int
    sampled: int
    logprobs: int
    progress: int
    query_tiles: int
    num_ops: int
    num_layers: int
    kv_heads: int
    head_dim: int
    tile_queries: int

    def pack(self, layout: StepLayout) -> bytes:
        sections = Struct("<10I").pack(
            layout.token_ids,
            layout.positions,
            layout.seq_ids,
            layout.slot_mapping,
            layout.context_lens,
            layout.query_starts,
            layout.output_rows,
            layout.sampling,
            layout.block_tables,
            layout.shape.max_blocks,
        )
        return Struct("<7Q6I").pack(*astuple(self), 0) + sections


@dataclass(frozen=True, slots=True)
class PackingStruct:
    """A `Packing`; `pack` adds the addresses of its source."""

    SIZE: ClassVar[int] = 8 * (MAX_PLANES + 1) + 4 * (MAX_PLANES + 5 + 7)
    OUT_OF_RANGE: ClassVar[int] = SIZE - 4  # offset of the u32 that the kernels set

    panels: int
    dtype: StorageType
    quantized: StorageType | None  # of floats: what they become
    format: int
    rows: int
    cols: int
    first_row: int
    pair_head_dim: int

    def pack(self, planes: Sequence[int]) -> bytes:
        """Returns the struct for a source whose planes are at these addresses."""
        storage = self.dtype.storage
        numbers = self.quantized.storage if self.quantized else storage
        missing = MAX_PLANES - len(planes)
        return Struct(f"<{MAX_PLANES + 1}Q{MAX_PLANES + 5 + 7}I").pack(
            *planes, *[planes[0]] * missing, self.panels,
            self.dtype.unpacked_as, storage.block_elements, *storage.plane_bytes, *[0] * missing,
            numbers.zero, storage.bf16, self.quantized or 0,
            self.format, self.rows, self.cols, self.first_row, self.pair_head_dim, 0, 0,
        )  # fmt: skip
