"""A long list of numbers kept in its stored bytes: a tenth of the memory of a tuple."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload


class NumberArray(Sequence[int | float | bool]):
    """The numbers in `data`, in the machine's byte order; `letter` is their format in `struct`."""

    def __init__(self, data: bytes, letter: str) -> None:
        self._numbers: memoryview = memoryview(data).cast(letter)  # type: ignore[call-overload]

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> int | float | bool: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[int | float | bool, ...]: ...
    def __getitem__(
        self, index: int | slice
    ) -> int | float | bool | tuple[int | float | bool, ...]:
        if isinstance(index, slice):
            return tuple(self._numbers[index])
        return self._numbers[index]

    def __iter__(self) -> Iterator[int | float | bool]:
        return iter(self._numbers)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<NumberArray of {len(self)}: {', '.join(map(repr, self[:3]))}…>"
