"""Moves a program's weights and tables into the kernels' memory, part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from webllm.artifacts.checkpoint import Checkpoint
from webllm.cpu.host import Bytes, Host, Memory
from webllm.cpu.records import PackingRecord, matrix_record, matrix_record_bytes
from webllm.cpu.space import Space
from webllm.cpu.weights import Run, runs_of, vector
from webllm.ops.program import Program, RopeKV
from webllm.ops.values import Part, RopeTable, RowOrder, Weight


@dataclass(frozen=True, slots=True)
class LoadedWeights:
    """Addresses of what the ops read; valid until `memory` is closed."""

    memory: Memory
    weights: dict[Weight, int]  # of a Matrix record, or of a vector's floats
    float_weights: frozenset[Weight]  # matrices that multiply f32 activations
    ropes: dict[RopeTable, tuple[int, int]]  # fine, coarse


@dataclass(slots=True)
class _Contents:
    """What goes where, before there is memory."""

    space: Space = field(default_factory=Space)
    offsets: dict[Weight, int] = field(default_factory=dict)
    small: list[tuple[int, Bytes]] = field(default_factory=list)
    matrices: dict[Weight, list[tuple[Run, int]]] = field(default_factory=dict)
    ropes: dict[RopeTable, tuple[int, int]] = field(default_factory=dict)

    def put(self, data: Bytes) -> int:
        offset = self.space.take(len(data))
        self.small.append((offset, data))
        return offset


class WeightLoader:
    """Allocates for all weights at once, then packs tensor by tensor (`work`).

    Raises UnsupportedModelError or DeviceMemoryError before anything is packed.
    """

    def __init__(self, host: Host, program: Program, checkpoint: Checkpoint) -> None:
        self._host, self._checkpoint = host, checkpoint
        self._contents = _plan_contents(program, checkpoint)
        self._packing_offset = self._contents.space.take(PackingRecord.SIZE)
        self.memory = host.allocate(self._contents.space.num_bytes)
        self.total_bytes = sum(
            checkpoint.tensors[part.tensor].nbytes for part in self._parts_in_order()
        )

    def _parts_in_order(self) -> Iterator[Part]:
        for runs in self._contents.matrices.values():
            for run, _ in runs:
                yield from run.parts

    def work(self) -> Iterator[tuple[Callable[[], None], int]]:
        """Pieces of work to do in order, with the number of file bytes each one moves."""
        yield self._write_small, 0
        for weight, runs in self._contents.matrices.items():
            for run, offset in runs:
                first_row = 0
                for part in run.parts:
                    record = self._packing(weight, run, offset, part, first_row)
                    nbytes = self._checkpoint.tensors[part.tensor].nbytes
                    yield self._pack_work(part.tensor, record), nbytes
                    first_row += part.rows

    def _write_small(self) -> None:
        for offset, data in self._contents.small:
            self.memory.write(offset, data)
        for weight, runs in self._contents.matrices.items():
            places, panel = [], 0
            for run, offset in runs:
                places.append((self.memory.address + offset, int(run.format), panel))
                panel += run.num_panels
            record = matrix_record(weight.rows, weight.cols, places)
            self.memory.write(self._contents.offsets[weight], record)

    def _packing(
        self, weight: Weight, run: Run, offset: int, part: Part, first_row: int
    ) -> PackingRecord:
        return PackingRecord(
            panels=self.memory.address + offset,
            type_id=self._checkpoint.tensors[part.tensor].dtype,
            format=run.format,
            rows=part.rows,
            cols=weight.cols,
            first_row=first_row,
            pair_head_dim=part.head_dim if part.order is RowOrder.HALVES_TO_PAIRS else 0,
        )

    def _pack_work(self, tensor: str, record: PackingRecord) -> Callable[[], None]:
        def pack() -> None:
            with self._host.source(self._checkpoint.data(tensor)) as source:
                self.memory.write(self._packing_offset, record.pack(source))
                self._host.pack(self.memory.address + self._packing_offset)

        return pack

    def loaded(self) -> LoadedWeights:
        """Once all work is done."""
        contents, base = self._contents, self.memory.address
        return LoadedWeights(
            memory=self.memory,
            weights={weight: base + offset for weight, offset in contents.offsets.items()},
            float_weights=frozenset(
                weight
                for weight, runs in contents.matrices.items()
                if any(run.format.is_float for run, _ in runs)
            ),
            ropes={
                table: (base + fine, base + coarse)
                for table, (fine, coarse) in contents.ropes.items()
            },
        )


def _plan_contents(program: Program, checkpoint: Checkpoint) -> _Contents:
    contents = _Contents()
    for weight, is_matrix in program.weights().items():
        if is_matrix:
            runs = runs_of(weight, checkpoint)
            contents.offsets[weight] = contents.space.take(matrix_record_bytes(len(runs)))
            contents.matrices[weight] = [
                (run, contents.space.take(run.num_bytes(weight.cols))) for run in runs
            ]
        else:
            contents.offsets[weight] = contents.put(vector(weight, checkpoint).tobytes())
    for op in program.ops:
        if isinstance(op, RopeKV) and op.rope not in contents.ropes:
            contents.ropes[op.rope] = contents.put(op.rope.fine), contents.put(op.rope.coarse)
    return contents
