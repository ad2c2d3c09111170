"""Limits on the work of a chat template: steps, characters and seconds.

A template comes with a model file from anywhere. The sandbox protects our objects from it; the
budget protects our time and memory. Every operation pays, before it begins, for everything that it
will read and make, so that no single one takes long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any

from jinja2 import Undefined
from jinja2.exceptions import SecurityError

# Costs in characters.
ITEM_CHARS = 4  # a place in a list
OBJECT_CHARS = 64  # a list or an iterator itself
_REPR_CHARS = 4  # a character in the repr of a list, where it may be escaped

_CHECK_EVERY = 1024  # values

# A busy machine does not use up a template's seconds. Pyodide has one thread and no such clock.
_cpu_time: Callable[[], float] = getattr(time, "thread_time", monotonic)

# The types of values that have parts or a length; the views are those of dicts.
_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
CONTAINERS: Any = (list, tuple, dict, range, *_VIEWS)
SIZED: Any = (str, *CONTAINERS)


@dataclass(frozen=True, slots=True)
class TemplateLimits:
    """Limits far above the needs of real templates.

    The largest real ones have 30,000 characters in 4,000 syntax nodes, and render a long
    conversation in some ten thousand steps.

    `source_chars` and `nodes` bound the time to compile. `work_chars` bounds the characters that
    all operations of one rendering read or make; each character of the messages and tools adds
    `work_per_input_char` and one step. `seconds` are CPU time, in a browser wall time.
    """

    source_chars: int = 64 * 1024
    nodes: int = 10_000
    steps: int = 1_000_000
    seconds: float = 5.0
    work_chars: int = 16 * 1024 * 1024
    work_per_input_char: int = 64


class Budget:
    """The rest of the limits in one rendering; every method raises SecurityError beyond one.

    A budget belongs to the thread that made it, whose time it measures.
    """

    def __init__(self, limits: TemplateLimits, input_chars: int) -> None:
        self.max_nodes = limits.nodes
        self._steps = limits.steps + input_chars
        self._chars = limits.work_chars + limits.work_per_input_char * input_chars
        self._cpu_deadline = _cpu_time() + limits.seconds
        self._deadline = monotonic() + limits.seconds  # the CPU time ends no earlier

    def spend(self, num_chars: int = 0) -> None:
        """Pays for one step that reads or makes `num_chars` characters."""
        self._steps -= 1
        self._chars -= num_chars
        if self._steps < 0 or self._chars < 0 or monotonic() > self._deadline:
            self._check()

    def _check(self, num_chars: int = 0) -> None:
        if self._steps < 0:
            raise SecurityError("the template loops for too long")
        if self._chars < num_chars:
            raise SecurityError("the template produces too much text")
        if (now := monotonic()) > self._deadline:
            left_s = self._cpu_deadline - _cpu_time()
            if left_s <= 0:
                raise SecurityError("the template takes too much time")
            self._deadline = now + left_s

    def spend_value(self, value: Any, *, times: int = 1, plain: bool = False) -> None:
        """Pays `times` the `size` of `value`."""
        self.spend(times * self.size(value, plain=plain))

    def size(self, value: Any, *, plain: bool = False) -> int:
        """Counts characters and items in `value`, shared parts as often as they are reached.

        With `plain`, objects that are not plain data raise SecurityError: the cost of formatting or
        comparing them is unknown.
        """
        num_chars = num_values = 0
        pending = [value]
        while pending:
            item = pending.pop()
            if isinstance(item, str):
                num_chars += len(item)
            elif isinstance(item, CONTAINERS):
                num_chars += ITEM_CHARS * len(item)
                self._check(num_chars)
                pending.extend(item)
                if isinstance(item, dict):
                    pending.extend(item.values())
            elif isinstance(item, int):
                num_chars += item.bit_length() >> 2
            elif plain and not isinstance(item, float | Undefined | None):
                raise SecurityError(f"a {type(item).__name__} cannot be written as text or sorted")
            num_values += 1
            if num_values % _CHECK_EVERY == 0:
                self._check(num_chars)
        return num_chars

    def text(self, value: Any) -> str:
        """Pays for and returns `value` as text; raises SecurityError unless it is plain data."""
        if isinstance(value, str):
            self.spend(len(value))
            return value
        self.spend_value(value, times=_REPR_CHARS, plain=True)
        return str(value)

    def items(self, values: Iterable[Any]) -> Iterator[Any]:
        """Yields the values, paying for each."""
        for value in values:
            self.spend(ITEM_CHARS)
            yield value

    def sized(self, value: Any) -> Any:
        """Turns an iterator into a list, paying for it; returns values with a length unchanged."""
        is_list = isinstance(value, (SIZED, Undefined))
        return value if is_list else list(self.items(value))


def count_chars(value: Any) -> int:
    """Counts the characters in the strings of a JSON-like value, and one for any other part."""
    num_chars = 0
    pending = [value]
    while pending:
        item = pending.pop()
        num_chars += len(item) if isinstance(item, str) else 1
        if isinstance(item, dict):
            pending.extend(item.keys())
            pending.extend(item.values())
        elif isinstance(item, list | tuple):
            pending.extend(item)
    return num_chars
