"""Pads sizes that no kernel has with zeros: heads of 8 dimensions, a feed-forward size of 172.

Such sizes are those of tiny models for tests. The added rows and columns of weights are zeros, and
so is everything that comes of them. Weights are padded as they are read, in Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from webllm.artifacts.checkpoint import GROUP_COLS, Checkpoint, RawBytes, TensorInfo
from webllm.errors import UnsupportedModelError
from webllm.ops.program import Attention, GatedLinear, Linear, Op, Program, RopeKV
from webllm.ops.values import Part, RowOrder, Value, Weight

HEAD_DIM_STEP = 16  # attention kernels have multiples of it


@dataclass(frozen=True, slots=True)
class Blocks:
    """Rows or columns in blocks of `size`; zeros follow each up to `padded`."""

    size: int
    padded: int

    def total(self, num: int) -> int:
        """Returns how many `num` rows or columns are with their zeros."""
        return num // self.size * self.padded

    def stored(self, index: int) -> int:
        """Returns how many of the first `index` are no zeros."""
        return index // self.padded * self.size + min(index % self.padded, self.size)

    @property
    def is_padded(self) -> bool:
        return self.size < self.padded

    @property
    def halves(self) -> Blocks:
        return Blocks(self.size // 2, self.padded // 2)


def padded(program: Program, checkpoint: Checkpoint) -> tuple[Program, Checkpoint]:
    """Returns a program of sizes that kernels have, and the checkpoint with its weights.

    They are the arguments themselves if there is nothing to pad. Raises UnsupportedModelError for
    columns that cannot be padded, because they are stored in larger blocks.
    """
    padding = _Padding(_padded_values(program))
    if not padding.values:
        return program, checkpoint
    ops = tuple(padding.op(op) for op in program.ops)
    kv_cache = replace(program.kv_cache, head_dim=_head_blocks(program.kv_cache.head_dim).padded)
    for name, (_, cols) in padding.tensors.items():
        _check_columns(checkpoint.tensors[name], cols)
    return replace(program, ops=ops, kv_cache=kv_cache), PaddedCheckpoint(
        checkpoint, padding.tensors
    )


def _head_blocks(head_dim: int) -> Blocks:
    step = HEAD_DIM_STEP if head_dim % 2 == 0 else 1  # rotary pairs: `check_program` refuses others
    return Blocks(head_dim, -(-head_dim // step) * step)


def _padded_values(program: Program) -> dict[int, Blocks]:
    """Returns the columns of every value that has to be padded, by its id."""
    found = {}
    for op in program.ops:
        match op:
            case RopeKV(value, heads) | Attention(_, heads, _, _, value):
                found[value.id] = _head_blocks(heads.head_dim)
            case GatedLinear(_, gate, _, _, out):
                found[out.id] = Blocks(gate.rows, -(-gate.rows // GROUP_COLS) * GROUP_COLS)
            case _:
                pass
    return {key: blocks for key, blocks in found.items() if blocks.is_padded}


@dataclass(slots=True)
class _Padding:
    values: Mapping[int, Blocks]
    tensors: dict[str, tuple[Blocks, Blocks]] = field(default_factory=dict)  # rows and columns

    def op(self, op: Op) -> Op:
        match op:
            case Linear(x, weight, out, bias):
                return replace(
                    op,
                    x=self.value(x),
                    weight=self.weight(weight, out, x),
                    out=self.value(out),
                    bias=bias and self.weight(bias, out),
                )
            case GatedLinear(x, gate, up, _, out):
                gate, up = self.weight(gate, out, x), self.weight(up, out, x)
                return replace(op, x=self.value(x), gate=gate, up=up, out=self.value(out))
            case RopeKV(qkv, heads) | Attention(qkv, heads):
                blocks = _head_blocks(heads.head_dim)
                if isinstance(op, Attention):
                    op = replace(op, out=self.value(op.out))
                elif op.q_gamma and blocks.is_padded:
                    raise UnsupportedModelError(
                        f"heads of {heads.head_dim} dimensions are normed; only multiples of "
                        f"{HEAD_DIM_STEP} run: choose another model"
                    )
                return replace(
                    op, qkv=self.value(qkv), heads=replace(heads, head_dim=blocks.padded)
                )
            case _:
                return op

    def value(self, value: Value) -> Value:
        blocks = self.values.get(value.id)
        return replace(value, cols=blocks.total(value.cols)) if blocks else value

    def weight(self, weight: Weight, out: Value, x: Value | None = None) -> Weight:
        """Pads the rows of a weight as the columns of `out`, its columns as those of `x`."""
        cols = self.values.get(x.id) if x else None
        cols = cols or Blocks(weight.cols, weight.cols)
        parts = tuple(self._part(part, self.values.get(out.id), cols) for part in weight.parts)
        return Weight(parts, cols.total(weight.cols))

    def _part(self, part: Part, rows: Blocks | None, cols: Blocks) -> Part:
        rows = rows or Blocks(part.rows, part.rows)
        head_dim = part.head_dim and rows.total(part.head_dim)
        is_halves = part.order is RowOrder.HALVES_TO_PAIRS
        if rows.is_padded or cols.is_padded:
            self.tensors[part.tensor] = rows.halves if is_halves else rows, cols
        return replace(part, rows=rows.total(part.rows), head_dim=head_dim)


def _check_columns(tensor: TensorInfo, cols: Blocks) -> None:
    if cols.is_padded and cols.size % tensor.storage.block_elements:
        raise UnsupportedModelError(
            f"{tensor.name} has columns in blocks of {cols.size}, which would have to be "
            f"{cols.padded}, and is stored as {tensor.dtype.name}: choose the model in F16"
        )


class PaddedCheckpoint(Checkpoint):
    """A checkpoint whose tensors have zeros between their rows and columns."""

    def __init__(self, stored: Checkpoint, blocks: Mapping[str, tuple[Blocks, Blocks]]) -> None:
        vars(self).update(vars(stored))  # the same description, files and vectors
        self._stored, self._blocks = stored, blocks
        self.tensors = dict(stored.tensors) | {
            name: replace(stored.tensors[name], shape=self._shape(name)) for name in blocks
        }

    def _shape(self, name: str) -> tuple[int, ...]:
        sizes = zip(self._blocks[name], self._stored.tensors[name].shape, strict=False)
        return tuple(blocks.total(size) for blocks, size in sizes)

    def data(self, name: str) -> memoryview:
        stored = self._stored.data(name)
        if name not in self._blocks:
            return stored
        size = self.tensors[name].dtype.block_bytes
        rows, _ = self._blocks[name]
        return _spread(stored, size * rows.size, size * rows.padded)

    async def read(self, name: str, first_row: int, num_rows: int) -> tuple[RawBytes, ...]:
        if name not in self._blocks:
            return await self._stored.read(name, first_row, num_rows)
        rows, cols = self._blocks[name]
        first, end = rows.stored(first_row), rows.stored(first_row + num_rows)
        stored = await self._stored.load(name, first, end - first)
        sizes = zip(self._stored.tensors[name].row_bytes, self.tensors[name].row_bytes, strict=True)
        num_blocks = self._stored.tensors[name].shape[1] // cols.size  # in a row
        kept = [row for row in range(num_rows) if (first_row + row) % rows.padded < rows.size]
        return tuple(
            _placed(_spread(plane, size // num_blocks, wide // num_blocks), wide, kept, num_rows)
            for plane, (size, wide) in zip(stored, sizes, strict=True)
        )


def _spread(data: bytes | memoryview, size: int, padded: int) -> memoryview:
    """Returns the blocks of `size` bytes with zeros after each, up to `padded` bytes."""
    num_blocks = len(data) // size
    out = bytearray(num_blocks * padded)
    for block in range(num_blocks):
        out[block * padded : block * padded + size] = data[block * size : (block + 1) * size]
    return memoryview(out)


def _placed(rows: memoryview, row_bytes: int, places: list[int], num_rows: int) -> memoryview:
    """Returns `num_rows` rows of zeros with `rows` at their places."""
    out = bytearray(num_rows * row_bytes)
    for index, place in enumerate(places):
        row = rows[index * row_bytes : (index + 1) * row_bytes]
        out[place * row_bytes : (place + 1) * row_bytes] = row
    return memoryview(out)
