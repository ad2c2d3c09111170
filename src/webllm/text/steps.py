"""Long work on text as a generator, so that its caller can do other work between the steps."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import islice
from typing import TypeAlias, TypeVar

_T = TypeVar("_T")

# Yields every few milliseconds of work, and returns the result.
Steps: TypeAlias = Generator[None, None, _T]


def finish(steps: Steps[_T]) -> _T:
    """Runs all steps at once and returns the result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _T = end.value
            return result


def collect(items: Iterator[_T], step_items: int = 1024) -> Steps[list[_T]]:
    """Collects `items` in a list, `step_items` per step."""
    found = list(islice(items, step_items))
    while more := list(islice(items, step_items)):
        yield
        found += more
    return found
