"""Plans one block of memory before it is allocated: each piece gets an offset in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from webllm.ops.program import Program, values_of
from webllm.ops.values import Value

ALIGNMENT = 64


@dataclass(slots=True)
class BumpAllocator:
    """Assigns offsets one after the other, each a multiple of `ALIGNMENT`."""

    num_bytes: int = 0

    def allocate(self, num_bytes: int) -> int:
        offset = self.num_bytes
        self.num_bytes += -(-num_bytes // ALIGNMENT) * ALIGNMENT
        return offset


@dataclass(frozen=True, slots=True)
class Arena:
    """The byte offset of every value of a program in an arena of `num_bytes`."""

    offsets: dict[int, int]  # by value id
    num_bytes: int


@dataclass(frozen=True, slots=True)
class _Lifetime:
    value: Value
    first: int  # index of the op that writes the value first
    last: int  # index of the last op that reads or writes it
    num_bytes: int


def plan_arena(program: Program, bytes_of: Callable[[Value], int], alignment: int = 256) -> Arena:
    """Places a program's values; values whose lifetimes do not overlap may share memory.

    The largest values go first, each to the lowest offset that is free during its lifetime
    (greedy by size, arXiv:2001.03288). `bytes_of` gives the size of a value.
    """
    living: list[dict[int, tuple[int, _Lifetime]]] = [{} for _ in program.ops]  # op -> value id
    offsets, num_bytes = {}, 0
    lifetimes = _lifetimes(program, bytes_of, alignment)
    for lifetime in sorted(lifetimes, key=lambda each: (-each.num_bytes, each.first)):
        ops = living[lifetime.first : lifetime.last + 1]
        placed = {value_id: place for op in ops for value_id, place in op.items()}
        offset = _lowest_free_offset(lifetime.num_bytes, placed.values())
        for op in ops:
            op[lifetime.value.id] = offset, lifetime
        offsets[lifetime.value.id] = offset
        num_bytes = max(num_bytes, offset + lifetime.num_bytes)
    return Arena(offsets, num_bytes)


def _lifetimes(
    program: Program, bytes_of: Callable[[Value], int], alignment: int
) -> list[_Lifetime]:
    touched: dict[int, list[int]] = {}
    for index, op in enumerate(program.ops):
        for value in values_of(op):
            touched.setdefault(value.id, []).append(index)
    return [
        _Lifetime(value, min(at), max(at), -(-bytes_of(value) // alignment) * alignment)
        for value in program.values()
        for at in [touched[value.id]]
    ]


def _lowest_free_offset(num_bytes: int, placed: Iterable[tuple[int, _Lifetime]]) -> int:
    """The lowest offset with room for `num_bytes` between what is `placed`."""
    offset = 0
    for start, other in sorted(placed, key=lambda item: item[0]):
        if start < offset + num_bytes:
            offset = max(offset, start + other.num_bytes)
    return offset
