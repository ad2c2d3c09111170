"""The cost of operators, comparisons and methods in chat templates.

Each function pays from the rendering's budget for the worst case of an operation before it runs,
and raises SecurityError if the result could become endlessly large.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

from jinja2 import Undefined
from jinja2.exceptions import SecurityError

from webllm.text.template_budget import CONTAINERS, ITEM_CHARS, OBJECT_CHARS, Budget

MAX_INT_BITS = 4096
# Costs in characters.
_CONVERTED_CHARS = 512  # a number in a format
_ESCAPED_CHARS = 6  # a character in HTML
_PIECE_CHARS = 24  # a small string of its own
# A conversion of the % operator whose width is an argument or has three digits.
_WIDE_CONVERSION = re.compile(r"%[^%a-zA-Z]*?(\*|\d{3})")
# The same in str.format, where a field may give the width.
_WIDE_FIELD = re.compile(r"\{[^{}:]*:[^{}]*?(\{|\d{3})")
_TOO_WIDE = "a format with a width of three digits or more is not allowed"

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lteq": operator.le,
    "gt": operator.gt,
    "gteq": operator.ge,
    "in": lambda left, right: left in right,
    "notin": lambda left, right: left not in right,
}


def compare(budget: Budget, name: str, left: Any, right: Any) -> Any:
    """Pays for a comparison and returns its result; `name` is Jinja's."""
    if name in ("in", "notin"):
        right = spend_on_search(budget, left, right)
    else:
        spend_on_comparison(budget, left, right)
    return COMPARISONS[name](left, right)


def spend_on_comparison(budget: Budget, left: Any, right: Any) -> None:
    if isinstance(left, str) and isinstance(right, str):
        budget.spend(min(len(left), len(right)))
    elif isinstance(left, CONTAINERS) and isinstance(right, CONTAINERS):
        budget.spend_value(left)  # each part is compared with at most one of the other
    else:
        budget.spend()


def spend_on_search(budget: Budget, wanted: Any, values: Any) -> Any:
    """Pays for `wanted in values`; returns the values, an iterator as a list."""
    if isinstance(values, str):
        budget.spend(len(values))
        return values
    if isinstance(values, dict):
        budget.spend_value(wanted)  # it is hashed
        return values
    values = budget.sized(values)
    budget.spend(len(values) * (ITEM_CHARS + budget.size(wanted) // ITEM_CHARS))
    return values


def spend_on_method(budget: Budget, owner: Any, name: str, args: Sequence[Any]) -> list[Any]:
    """Pays for `owner.name(*args)`; returns the arguments, iterators as lists."""
    args = list(args)
    if isinstance(owner, str):
        _spend_on_text(budget, owner, name, args)
    elif isinstance(owner, dict):
        budget.spend_value(args[:1])  # the key
    elif isinstance(owner, list | tuple):
        budget.spend_value(args, plain=True)  # quoted in an error if it is not found
        spend_on_search(budget, args[0] if args else None, owner)
    return args


def _spend_on_text(budget: Budget, text: str, name: str, args: list[Any]) -> None:
    num_chars = len(text)
    if name == "join" and args:
        args[0] = budget.sized(args[0])
        num_chars += len(args[0]) * len(text)
    num_chars += _growth(text) * budget.size(args, plain=True)
    first = len(args[0]) if args and isinstance(args[0], str) else 1
    if name in ("format", "format_map"):
        if _WIDE_FIELD.search(text):
            raise SecurityError(_TOO_WIDE)
        num_chars += text.count("{") * _converted_chars(budget, args)
    elif name == "replace" and len(args) >= 2:
        num_chars += replaced_chars(text, _text(args[0]), _text(args[1]))
    elif name in ("split", "rsplit") and args and isinstance(args[0], str) and args[0]:
        num_chars += _PIECE_CHARS * (1 + text.count(args[0]))
    elif name in ("split", "rsplit", "splitlines"):
        num_chars += _PIECE_CHARS // 2 * len(text)
    if name in ("rsplit", "rfind", "rindex", "rpartition", "strip", "lstrip", "rstrip"):
        num_chars += len(text) * first // 2  # searching from the right is quadratic
    budget.spend(num_chars + OBJECT_CHARS)


def spend_on_operator(budget: Budget, operator: str, left: Any, right: Any) -> None:
    """Pays for `left operator right`; raises SecurityError if the result could be endless."""
    if isinstance(left, int) and isinstance(right, int):
        _check_int_size(operator, left, right)
        budget.spend()
    elif operator == "%" and isinstance(left, str):
        if _WIDE_CONVERSION.search(left):
            raise SecurityError(_TOO_WIDE)
        times = _growth(left) * left.count("%")
        budget.spend(len(left) + times * _converted_chars(budget, right))
    elif operator == "*" and isinstance(left, int) and isinstance(right, str | list | tuple):
        budget.spend(_flat_chars(right) * max(left, 0))
    elif operator == "*" and isinstance(right, int) and isinstance(left, str | list | tuple):
        budget.spend(_flat_chars(left) * max(right, 0))
    elif operator == "+" and isinstance(left, str | list | tuple):
        budget.spend(_growth(left, right) * (_flat_chars(left) + _flat_chars(right)))
    elif not isinstance(left, int | float | Undefined):
        budget.spend_value(left)  # sets of keys
        budget.spend_value(right)
    else:
        budget.spend()


def check_int(number: int) -> None:
    if number.bit_length() > MAX_INT_BITS:
        raise SecurityError(f"a number of {number.bit_length()} bits is too large")


def replaced_chars(text: str, old: str, new: str) -> int:
    return len(text) + text.count(old) * len(new)


def _check_int_size(operator: str, left: int, right: int) -> None:
    num_bits = 0
    if operator == "*":
        num_bits = left.bit_length() + right.bit_length()
    elif operator == "**" and right > 0:
        num_bits = left.bit_length() * right
    elif operator in "+-":
        num_bits = max(left.bit_length(), right.bit_length()) + 1
    if num_bits > MAX_INT_BITS:
        raise SecurityError(f"the result of {operator} would be too large a number")


def _flat_chars(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    return OBJECT_CHARS + ITEM_CHARS * len(value) if isinstance(value, list | tuple) else 0


def _converted_chars(budget: Budget, values: Any) -> int:
    """The most characters that one conversion of a format makes of the values."""
    return _CONVERTED_CHARS + ITEM_CHARS * budget.size(values, plain=True)


def _growth(*values: Any) -> int:
    """Characters per added character: Markup, which Jinja's `safe` makes, escapes them."""
    return _ESCAPED_CHARS if any(hasattr(value, "__html__") for value in values) else 1


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
