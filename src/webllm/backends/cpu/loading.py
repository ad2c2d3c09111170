"""Moves a program's weights and tables into the kernels' memory, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from webllm.artifacts.checkpoint import Checkpoint, RawBytes
from webllm.backends.cpu.host import Bytes, Host, Memory
from webllm.backends.cpu.records import PackingRecord, matrix_record, matrix_record_bytes
from webllm.backends.cpu.space import Space
from webllm.backends.cpu.weights import PANEL_ROWS, Format, Run, runs_of
from webllm.ops.program import Program, RopeKV
from webllm.ops.values import Part, RopeTable, RowOrder, Weight
from webllm.ops.vectors import read_vector

_PIECE_BYTES = 8 << 20  # of a file that are resident, or copied, at once


@dataclass(frozen=True, slots=True)
class LoadedWeights:
    """Addresses of what the ops read; valid until `memory` is closed."""

    memory: Memory
    matrices: dict[Weight, int]  # of a Matrix record
    vectors: dict[Weight, int]  # of a vector's floats
    float_weights: frozenset[Weight]  # matrices that multiply f32 activations
    ropes: dict[RopeTable, tuple[int, int]]  # fine, coarse


@dataclass(slots=True)
class _Contents:
    """What goes where, before there is memory."""

    space: Space = field(default_factory=Space)
    small: list[tuple[int, Bytes]] = field(default_factory=list)
    records: dict[Weight, int] = field(default_factory=dict)  # a Matrix each
    runs: dict[Weight, list[tuple[Run, int]]] = field(default_factory=dict)
    vectors: dict[Weight, int] = field(default_factory=dict)
    ropes: dict[RopeTable, tuple[int, int]] = field(default_factory=dict)

    def put(self, data: Bytes) -> int:
        offset = self.space.take(len(data))
        self.small.append((offset, data))
        return offset


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows of a tensor: what is packed in one call."""

    tensor: str
    start: int  # bytes within the tensor
    num_bytes: int
    packing: PackingRecord


class WeightLoader:
    """Allocates for all weights at once; then every piece of `pieces` is to be packed, in order.

    `check_program` has accepted the program. Raises UnsupportedModelError or DeviceMemoryError
    before anything is packed.
    """

    def __init__(self, host: Host, program: Program, checkpoint: Checkpoint) -> None:
        self._host, self._checkpoint = host, checkpoint
        self._contents = _plan_contents(program, checkpoint)
        self._packing_offset = self._contents.space.take(PackingRecord.SIZE)
        self.memory = host.allocate(self._contents.space.num_bytes, filled=True)
        try:
            self.pieces = list(self._pieces())
            self.total_bytes = sum(piece.num_bytes for piece in self.pieces)
            self._write_small()
        except BaseException:
            self.memory.close()
            raise

    def pack(self, piece: Piece, data: RawBytes) -> None:
        with self._host.source(data) as source:
            self.memory.write(self._packing_offset, piece.packing.pack(source))
            self._host.pack(self.memory.address + self._packing_offset)

    def _pieces(self) -> Iterator[Piece]:
        for weight, runs in self._contents.runs.items():
            for run, offset in runs:
                first_row = 0
                for part in run.parts:
                    panels = self.memory.address + offset
                    yield from self._pieces_of(part, weight.cols, run.format, panels, first_row)
                    first_row += part.rows

    def _pieces_of(
        self, part: Part, cols: int, form: Format, panels: int, first_row: int
    ) -> Iterator[Piece]:
        info = self._checkpoint.tensors[part.tensor]
        row_bytes = cols // info.dtype.block_elements * info.dtype.block_bytes
        pairs = part.head_dim if part.order is RowOrder.HALVES_TO_PAIRS else 0
        together = pairs or PANEL_ROWS  # rows change places only within these
        step = max(_PIECE_BYTES // (row_bytes * together), 1) * together
        for row in range(0, part.rows, step):
            rows = min(step, part.rows - row)
            packing = PackingRecord(
                panels, info.dtype, form, rows, cols, first_row + row, pair_head_dim=pairs
            )
            yield Piece(part.tensor, row * row_bytes, rows * row_bytes, packing)

    def _write_small(self) -> None:
        for offset, data in self._contents.small:
            self.memory.write(offset, data)
        for weight, runs in self._contents.runs.items():
            places, panel = [], 0
            for run, offset in runs:
                places.append((self.memory.address + offset, int(run.format), panel))
                panel += run.num_panels
            record = matrix_record(weight.rows, weight.cols, places)
            self.memory.write(self._contents.records[weight], record)

    def loaded(self) -> LoadedWeights:
        """Once every piece is packed."""
        contents, base = self._contents, self.memory.address
        return LoadedWeights(
            memory=self.memory,
            matrices={weight: base + offset for weight, offset in contents.records.items()},
            vectors={weight: base + offset for weight, offset in contents.vectors.items()},
            float_weights=frozenset(
                weight
                for weight, runs in contents.runs.items()
                if any(run.format.is_float for run, _ in runs)
            ),
            ropes={
                table: (base + fine, base + coarse)
                for table, (fine, coarse) in contents.ropes.items()
            },
        )


def _plan_contents(program: Program, checkpoint: Checkpoint) -> _Contents:
    contents = _Contents()
    for weight in program.matrices():
        runs = runs_of(weight, checkpoint)
        contents.records[weight] = contents.space.take(matrix_record_bytes(len(runs)))
        contents.runs[weight] = [
            (run, contents.space.take(run.num_bytes(weight.cols))) for run in runs
        ]
    for weight in program.vectors():
        contents.vectors[weight] = contents.put(read_vector(weight, checkpoint).tobytes())
    for op in program.ops:
        if isinstance(op, RopeKV) and op.rope not in contents.ropes:
            contents.ropes[op.rope] = contents.put(op.rope.fine), contents.put(op.rope.coarse)
    return contents
