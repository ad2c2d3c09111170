"""Loads a program's weights and rotary tables into the kernels' memory, in pieces.

A piece is some rows of one tensor: it is read from the checkpoint, then packed into panels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from webllm.artifacts.checkpoint import Checkpoint, RawBytes
from webllm.backends.cpu.formats import PANEL_ROWS, Format, Run, runs_of
from webllm.backends.cpu.kernels import Allocation, Bytes, Kernels
from webllm.backends.cpu.memory_plan import BumpAllocator
from webllm.backends.cpu.structs import PackingStruct, matrix_bytes, pack_matrix
from webllm.ops.checks import out_of_range
from webllm.ops.program import Program, RopeKV
from webllm.ops.values import Part, RopeTable, RowOrder, Weight
from webllm.ops.vectors import read_vector

_PIECE_BYTES = 8 << 20  # bytes of the file that are resident, or copied, at a time


@dataclass(frozen=True, slots=True)
class LoadedWeights:
    """Addresses of everything the ops read; valid until `memory` is closed."""

    memory: Allocation
    matrices: dict[Weight, int]  # address of a Matrix
    vectors: dict[Weight, int]  # address of f32 [rows]
    float_weights: frozenset[Weight]  # matrices that multiply f32 activations
    ropes: dict[RopeTable, tuple[int, int]]  # addresses of the fine and the coarse table


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of a tensor that one call packs."""

    tensor: str
    first_row: int
    num_rows: int
    num_bytes: int
    packing: PackingStruct


@dataclass(slots=True)
class _Layout:
    """The offset of everything, planned before there is memory."""

    allocator: BumpAllocator = field(default_factory=BumpAllocator)
    small: list[tuple[int, Bytes]] = field(default_factory=list)  # vectors and rotary tables
    matrices: dict[Weight, int] = field(default_factory=dict)  # offset of a Matrix
    runs: dict[Weight, list[tuple[Run, int]]] = field(default_factory=dict)  # with its panels
    vectors: dict[Weight, int] = field(default_factory=dict)
    ropes: dict[RopeTable, tuple[int, int]] = field(default_factory=dict)

    def add(self, data: Bytes) -> int:
        offset = self.allocator.allocate(len(data))
        self.small.append((offset, data))
        return offset


class WeightLoader:
    """Allocates memory for all weights; the caller then packs each of `pieces`, in order.

    The program has passed `check_program`. Raises UnsupportedModelError for an unknown storage
    type and DeviceMemoryError, both before anything is packed.
    """

    def __init__(self, kernels: Kernels, program: Program, checkpoint: Checkpoint) -> None:
        self._kernels, self._checkpoint = kernels, checkpoint
        self._layout = _plan_layout(program, checkpoint)
        self._packing_offset = self._layout.allocator.allocate(PackingStruct.SIZE)
        self.memory = kernels.allocate(self._layout.allocator.num_bytes, filled=True)
        try:
            self.pieces = list(self._pieces())
            self.total_bytes = sum(piece.num_bytes for piece in self.pieces)
            self._write_small()
        except BaseException:
            self.memory.close()
            raise

    def pack(self, piece: Piece, planes: Sequence[RawBytes]) -> None:
        """Packs the piece's rows, as the checkpoint has them in each plane.

        Raises CheckpointError for scales that f16 cannot hold.
        """
        with ExitStack() as stack:
            sources = [stack.enter_context(self._kernels.source(plane)) for plane in planes]
            self.memory.write(self._packing_offset, piece.packing.pack(sources))
            self._kernels.pack(self.memory.address + self._packing_offset)
        if any(self.memory.read(self._packing_offset + PackingStruct.OUT_OF_RANGE, 4)):
            raise out_of_range(piece.tensor)

    def _pieces(self) -> Iterator[Piece]:
        for weight, runs in self._layout.runs.items():
            for run, offset in runs:
                first_row = 0
                for part in run.parts:
                    panels = self.memory.address + offset
                    yield from self._pieces_of(part, weight.cols, run.format, panels, first_row)
                    first_row += part.rows

    def _pieces_of(
        self, part: Part, cols: int, format: Format, panels: int, first_row: int
    ) -> Iterator[Piece]:
        info = self._checkpoint.tensors[part.tensor]
        row_bytes = sum(info.row_bytes)
        pairs = part.head_dim if part.order is RowOrder.HALVES_TO_PAIRS else 0
        unit = pairs or PANEL_ROWS  # rows are reordered within whole heads only
        step = max(_PIECE_BYTES // (row_bytes * unit), 1) * unit
        for row in range(0, part.rows, step):
            rows = min(step, part.rows - row)
            packing = PackingStruct(
                panels, info.dtype, info.quantized, format, rows, cols, first_row + row, pairs
            )
            yield Piece(part.tensor, row, rows, rows * row_bytes, packing)

    def _write_small(self) -> None:
        """Writes everything that is not packed: vectors, rotary tables, Matrix structs."""
        for offset, data in self._layout.small:
            self.memory.write(offset, data)
        for weight, runs in self._layout.runs.items():
            fields, panel = [], 0
            for run, offset in runs:
                fields.append((self.memory.address + offset, int(run.format), panel))
                panel += run.num_panels
            matrix = pack_matrix(weight.rows, weight.cols, fields)
            self.memory.write(self._layout.matrices[weight], matrix)

    def loaded(self) -> LoadedWeights:
        """Returns the weights, once every piece is packed."""
        layout, base = self._layout, self.memory.address
        return LoadedWeights(
            memory=self.memory,
            matrices={weight: base + offset for weight, offset in layout.matrices.items()},
            vectors={weight: base + offset for weight, offset in layout.vectors.items()},
            float_weights=frozenset(
                weight
                for weight, runs in layout.runs.items()
                if any(run.format.is_float for run, _ in runs)
            ),
            ropes={
                table: (base + fine, base + coarse)
                for table, (fine, coarse) in layout.ropes.items()
            },
        )


def _plan_layout(program: Program, checkpoint: Checkpoint) -> _Layout:
    layout = _Layout()
    for weight in program.matrices():
        runs = runs_of(weight, checkpoint)
        layout.matrices[weight] = layout.allocator.allocate(matrix_bytes(len(runs)))
        layout.runs[weight] = [
            (run, layout.allocator.allocate(run.num_bytes(weight.cols))) for run in runs
        ]
    for weight in program.vectors():
        layout.vectors[weight] = layout.add(read_vector(weight, checkpoint).tobytes())
    for op in program.ops:
        if isinstance(op, RopeKV) and op.rope not in layout.ropes:
            layout.ropes[op.rope] = layout.add(op.rope.fine), layout.add(op.rope.coarse)
    return layout
