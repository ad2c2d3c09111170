"""How much a chat template may do: steps, characters and seconds.

A template comes with a model file from anywhere. The sandbox keeps it from our objects; this keeps
it from our time and memory. Every operation pays for all that it will read and make before it
begins, so that none of them alone takes long.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any

from jinja2 import Undefined
from jinja2.exceptions import SecurityError

ITEM_CHARS = 4  # what a place in a list costs, in characters
OBJECT_CHARS = 64  # and a list or an iterator itself
_REPR_CHARS = 4  # and a character inside of a list that is written as text, where it is escaped
_CHECK_EVERY = 1024  # values

# What the parts of a value may be; the views are those of dicts.
_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
CONTAINERS: Any = (list, tuple, dict, range, *_VIEWS)
SIZED: Any = (str, *CONTAINERS)


@dataclass(frozen=True, slots=True)
class TemplateLimits:
    """Far above what real templates need: the largest have 30,000 characters in 4,000 nodes of
    syntax, and render a long conversation in some ten thousand steps.

    `source_chars` and `nodes` bound the time to compile. `work_chars` bounds the characters that
    all operations of one rendering together make or read; `work_per_input_char` is added for each
    character of the messages and tools, and one step.
    """

    source_chars: int = 64 * 1024
    nodes: int = 10_000
    steps: int = 1_000_000
    seconds: float = 5.0
    work_chars: int = 16 * 1024 * 1024
    work_per_input_char: int = 64


class Budget:
    """What is left of the limits during one rendering; exceeding one is a `SecurityError`."""

    def __init__(self, limits: TemplateLimits, input_chars: int) -> None:
        self.max_nodes = limits.nodes
        self._steps = limits.steps + input_chars
        self._chars = limits.work_chars + limits.work_per_input_char * input_chars
        self._deadline = monotonic() + limits.seconds

    def spend(self, num_chars: int = 0) -> None:
        """One step, which makes or reads `num_chars` characters."""
        self._steps -= 1
        self._chars -= num_chars
        if self._steps < 0 or self._chars < 0 or monotonic() > self._deadline:
            self._check()

    def _check(self, num_chars: int = 0) -> None:
        if self._steps < 0:
            raise SecurityError("the template loops for too long")
        if self._chars < num_chars:
            raise SecurityError("the template makes too much text")
        if monotonic() > self._deadline:
            raise SecurityError("the template takes too much time")

    def spend_value(self, value: Any, *, times: int = 1, plain: bool = False) -> None:
        """Pay `times` for all that `value` holds, as `size` counts it."""
        self.spend(times * self.size(value, plain=plain))

    def size(self, value: Any, *, plain: bool = False) -> int:
        """Characters and items in `value`, shared parts counted as often as they are reached.

        With `plain`, refuse objects that are no data: nobody could foresee their text or order.
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
        """`value` as text, paid for; only plain data has one."""
        if isinstance(value, str):
            self.spend(len(value))
            return value
        self.spend_value(value, times=_REPR_CHARS, plain=True)
        return str(value)

    def items(self, values: Iterable[Any]) -> Iterator[Any]:
        """The values, each paid for when it comes."""
        for value in values:
            self.spend(ITEM_CHARS)
            yield value

    def sized(self, value: Any) -> Any:
        """A list instead of an iterator, paid for; what has a length comes back as it is."""
        is_list = isinstance(value, (SIZED, Undefined))
        return value if is_list else list(self.items(value))


def count_chars(value: Any) -> int:
    """Characters in the strings of a JSON-like value, and one for everything else."""
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
