"""Long lists of numbers or strings, kept in the bytes of the file and decoded lazily.

A tuple of numbers takes ten times the memory. A vocabulary of 262,144 tokens takes 30 ms to check
and 160 ms to decode, and many callers that open a file never read it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import TypeVar, overload

_T = TypeVar("_T", bound=float | str)


class _PackedArray(Sequence[_T]):
    """Compares equal to any sequence of the same items."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)}: {', '.join(map(repr, self[:3]))}…>"


class NumberArray(_PackedArray[float]):
    """The numbers in `data`, in the machine's byte order; `letter` is their format in `struct`.

    Their type is int, float or bool, by the letter.
    """

    def __init__(self, data: bytes, letter: str) -> None:
        self._numbers: memoryview = memoryview(data).cast(letter)  # type: ignore[call-overload]

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> float: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[float, ...]: ...
    def __getitem__(self, index: int | slice) -> float | tuple[float, ...]:
        return tuple(self._numbers[index]) if isinstance(index, slice) else self._numbers[index]

    def __iter__(self) -> Iterator[float]:
        return iter(self._numbers)


class StringArray(_PackedArray[str]):
    """The strings in `data`, each after its 8-byte length; `ends[i]` is the end of string i.

    Bytes that are not UTF-8 are decoded to lone surrogates (`surrogateescape`), so that encoding
    gives back the stored bytes: different tokens stay different.
    """

    def __init__(self, data: bytes, ends: array[int]) -> None:
        self._data = data
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        position = range(len(self._ends))[index]  # negative indices and IndexError, as in a list
        start = (self._ends[position - 1] if position else 0) + 8
        return self._data[start : self._ends[position]].decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        start = 8
        for end in self._ends:
            yield self._data[start:end].decode("utf-8", "surrogateescape")
            start = end + 8
