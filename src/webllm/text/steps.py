"""Long work on text as a generator, so that whoever runs it may see to other things in between."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, TypeVar

_T = TypeVar("_T")

# Yields after every few milliseconds of work, and returns the result.
Steps: TypeAlias = Generator[None, None, _T]


def finish(steps: Steps[_T]) -> _T:
    """The result, without a pause."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _T = end.value
            return result
