"""Filters, methods and operators of chat templates that can make much out of little.

Each pays from the rendering's budget before it works.
"""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from jinja2 import pass_context
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.runtime import Context

from webllm.text.template_budget import Budget

_MAX_INT_BITS = 4096
_MAX_INDENT = 16
# A conversion of the % operator with a width from outside or of three digits.
_WIDE_CONVERSION = re.compile(r"%[^%a-zA-Z]*?(\*|\d{3})")
# The same in str.format, where a width may also be a field of its own.
_WIDE_FIELD = re.compile(r"\{[^{}:]*:[^{}]*?(\{|\d{3})")


def _budget(context: Context) -> Budget:
    budget: Budget = context.environment.budget  # type: ignore[attr-defined]
    return budget


@pass_context
def _spend(context: Context, num_chars: int) -> None:
    _budget(context).spend(max(num_chars, 0) if isinstance(num_chars, int) else 0)


@pass_context
def _counted(context: Context, value: Any) -> Any:
    _budget(context).spend(len(value) if isinstance(value, str | list | tuple | dict) else 0)
    return value


@pass_context
def _literal(context: Context, value: Any) -> Any:
    _budget(context).spend_value(value)
    return value


@pass_context
def _concat(context: Context, parts: list[Any]) -> str:
    _budget(context).spend_value(parts, as_text=True)
    return "".join(map(str, parts))


@pass_context
def _string(context: Context, value: Any) -> str:
    _budget(context).spend_value(value, as_text=True)
    return str(value)


@pass_context
def _join(
    context: Context, value: Iterable[Any], d: str = "", attribute: str | int | None = None
) -> Any:
    parts = list(value)
    budget = _budget(context)
    budget.spend_value(parts, as_text=True)
    budget.spend(len(parts) * len(str(d)))
    return FILTERS["join"](context.eval_ctx, parts, d, attribute)


@pass_context
def _replace(context: Context, s: str, old: str, new: str, count: int | None = None) -> Any:
    _budget(context).spend(_replaced_chars(str(s), str(old), str(new)))
    return FILTERS["replace"](context.eval_ctx, s, old, new, count)


@pass_context
def _indent(
    context: Context, s: str, width: int | str = 4, first: bool = False, blank: bool = False
) -> Any:
    num_lines = str(s).count("\n") + 1
    _budget(context).spend(len(str(s)) + num_lines * _indent_chars(width))
    return FILTERS["indent"](s, width, first, blank)


@pass_context
def _tojson(
    context: Context,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As `transformers` has it: no HTML escapes, unlike Jinja's own."""
    budget = _budget(context)
    budget.spend_value(value)
    _indent_chars(indent)
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    chunks = []
    for chunk in encoder.iterencode(value):
        budget.spend(len(chunk))
        chunks.append(chunk)
    return "".join(chunks)


PAYING_FILTERS: dict[str, Callable[..., Any]] = {
    "_spend": _spend,
    "_counted": _counted,
    "_literal": _literal,
    "_concat": _concat,
    "string": _string,
    "join": _join,
    "replace": _replace,
    "indent": _indent,
    "tojson": _tojson,
}


def spend_on_method(budget: Budget, text: str, name: str, args: list[Any]) -> None:
    """Pay for `text.name(*args)`."""
    budget.spend(len(text))
    if name in ("format", "format_map"):
        if _WIDE_FIELD.search(text):
            raise SecurityError("a format with a width of three digits or more is not allowed")
        for _ in range(text.count("{")):
            budget.spend_value(args, as_text=True)
    elif name == "replace" and len(args) >= 2:
        budget.spend(_replaced_chars(text, str(args[0]), str(args[1])))
    elif name == "join" and args and isinstance(args[0], list | tuple | dict | str):
        budget.spend_value(args[0])
        budget.spend(len(args[0]) * len(text))
    elif name in ("split", "rsplit", "splitlines"):
        budget.spend(4 * len(text))  # a list of many small strings


def spend_on_operator(budget: Budget, operator: str, left: Any, right: Any) -> None:
    """Pay for `left operator right`; refuse what could become endlessly large."""
    if isinstance(left, int) and isinstance(right, int):
        _check_int_size(operator, left, right)
    elif operator == "%" and isinstance(left, str):
        if _WIDE_CONVERSION.search(left):
            raise SecurityError("a format with a width of three digits or more is not allowed")
        for _ in range(left.count("%")):
            budget.spend_value(right, as_text=True)
    elif operator == "*":
        for sequence, times in ((left, right), (right, left)):
            if isinstance(sequence, str | list | tuple) and isinstance(times, int):
                budget.spend(len(sequence) * max(times, 0))
    elif operator == "+" and isinstance(left, str | list | tuple) and hasattr(right, "__len__"):
        budget.spend(len(left) + len(right))
    budget.spend()


def _check_int_size(operator: str, left: int, right: int) -> None:
    num_bits = 0
    if operator == "*":
        num_bits = left.bit_length() + right.bit_length()
    elif operator == "**" and right > 0:
        num_bits = left.bit_length() * right
    if num_bits > _MAX_INT_BITS:
        raise SecurityError(f"the result of {operator} would be too large a number")


def _indent_chars(width: int | str | None) -> int:
    num_chars = width if isinstance(width, int) else len(str(width or ""))
    if num_chars > _MAX_INDENT:
        raise SecurityError(f"an indentation of {num_chars} is more than {_MAX_INDENT}")
    return num_chars


def _replaced_chars(text: str, old: str, new: str) -> int:
    return len(text) + text.count(old) * len(new)
