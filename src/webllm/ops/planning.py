"""Buffer planning: values whose lifetimes do not overlap share memory."""

from __future__ import annotations

from collections.abc import Callable
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
    placed: list[tuple[int, _Span]] = []
    for span in sorted(_spans(program, bytes_of, alignment), key=lambda s: (-s.num_bytes, s.first)):
        placed.append((_lowest_offset(span, placed), span))
    offsets = {span.value.id: offset for offset, span in placed}
    return Arena(offsets, max((o + span.num_bytes for o, span in placed), default=0))


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


def _lowest_offset(span: _Span, placed: list[tuple[int, _Span]]) -> int:
    offset = 0
    for start, other in sorted(placed, key=lambda item: item[0]):
        overlaps_in_time = other.first <= span.last and span.first <= other.last
        if overlaps_in_time and start < offset + span.num_bytes:
            offset = max(offset, start + other.num_bytes)
    return offset
