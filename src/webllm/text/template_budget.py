"""How much a chat template may do: steps, characters and seconds.

A template comes with a model file from anywhere. The sandbox keeps it from our objects; this keeps
it from our time and memory.
"""

import time
from dataclasses import dataclass
from typing import Any

from jinja2 import Undefined
from jinja2.exceptions import SecurityError


@dataclass(frozen=True)
class TemplateLimits:
    """Far above what real templates need: the largest have 30,000 characters and render a long
    conversation in some ten thousand steps.

    `work_chars` bounds the characters that all operations of one rendering together make or read;
    `work_per_input_char` is added for each character of the messages and tools.
    """

    source_chars: int = 128 * 1024
    steps: int = 1_000_000
    seconds: float = 5.0
    work_chars: int = 16 * 1024 * 1024
    work_per_input_char: int = 128


class Budget:
    """What is left of the limits during one rendering; exceeding one is a `SecurityError`."""

    def __init__(self, limits: TemplateLimits, input_chars: int) -> None:
        self._steps = limits.steps
        self._chars = limits.work_chars + limits.work_per_input_char * input_chars
        self._deadline = time.monotonic() + limits.seconds

    def spend(self, num_chars: int = 0) -> None:
        """One step, which makes or reads `num_chars` characters or list items."""
        self._steps -= 1
        self._chars -= num_chars
        if self._steps < 0:
            raise SecurityError("the template loops for too long")
        if self._chars < 0:
            raise SecurityError("the template makes too much text")
        if time.monotonic() > self._deadline:
            raise SecurityError("the template takes too much time")

    def spend_value(self, value: Any, *, as_text: bool = False) -> None:
        """Pay for all that `value` holds, counting shared parts as often as they are reached.

        With `as_text`, refuse objects whose text we could not foresee.
        """
        pending = [value]
        while pending:
            item = pending.pop()
            if isinstance(item, str):
                self.spend(len(item))
            elif isinstance(item, list | tuple):
                self.spend(len(item))
                pending.extend(item)
            elif isinstance(item, dict):
                self.spend(len(item))
                pending.extend(item.keys())
                pending.extend(item.values())
            elif as_text and not isinstance(item, int | float | Undefined | None):
                raise SecurityError(f"a {type(item).__name__} cannot be written as text")


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
