"""Buffer planning: values whose lifetimes do not overlap share memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from webllm.ops.program import Program, values_of
from webllm.ops.values import Value


@dataclass(frozen=True, slots=True)
class Arena:
    """Byte offsets of every value in one block of memory of `num_bytes`."""

    offsets: dict[int, int]  # by value id
    num_bytes: int


@dataclass(frozen=True, slots=True)
class _Span:
    value: Value
    first: int  # index of the op that writes it first
    last: int  # index of the last op that touches it
    num_bytes: int


def plan_arena(program: Program, bytes_of: Callable[[Value], int], alignment: int = 256) -> Arena:
    """Places the largest values first, each at the lowest offset free during its lifetime."""
    living: list[dict[int, tuple[int, _Span]]] = [{} for _ in program.ops]  # by op, by value id
    offsets, num_bytes = {}, 0
    for span in sorted(_spans(program, bytes_of, alignment), key=lambda s: (-s.num_bytes, s.first)):
        lifetime = living[span.first : span.last + 1]
        met = {value_id: placed for during in lifetime for value_id, placed in during.items()}
        offset = _lowest_offset(span.num_bytes, met.values())
        for during in lifetime:
            during[span.value.id] = offset, span
        offsets[span.value.id] = offset
        num_bytes = max(num_bytes, offset + span.num_bytes)
    return Arena(offsets, num_bytes)


def _spans(program: Program, bytes_of: Callable[[Value], int], alignment: int) -> list[_Span]:
    touched: dict[int, list[int]] = {}
    for index, op in enumerate(program.ops):
        for value in values_of(op):
            touched.setdefault(value.id, []).append(index)
    return [
        _Span(value, min(at), max(at), -(-bytes_of(value) // alignment) * alignment)
        for value in program.values()
        for at in [touched[value.id]]
    ]


def _lowest_offset(num_bytes: int, placed: Iterable[tuple[int, _Span]]) -> int:
    """Between what is `placed` at some time of the same lifetime."""
    offset = 0
    for start, other in sorted(placed, key=lambda item: item[0]):
        if start < offset + num_bytes:
            offset = max(offset, start + other.num_bytes)
    return offset
