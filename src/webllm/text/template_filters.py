"""The filters and tests of chat templates: Jinja's own, paid for from the rendering's budget.

Filters that do more work than one step pay for it before they begin, also if `map`, `select` and
the like call them for every item.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from jinja2 import Undefined, pass_context
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.filters import make_attrgetter
from jinja2.runtime import Context
from jinja2.tests import TESTS as JINJA_TESTS

from webllm.text.template_budget import CONTAINERS, ITEM_CHARS, OBJECT_CHARS, SIZED, Budget
from webllm.text.template_operations import (
    compare,
    replaced_chars,
    spend_on_comparison,
    spend_on_operator,
    spend_on_search,
)

_MAX_INDENT = 16
_MAX_DIGITS = 1000
_MAX_PRECISION = 300
# Costs in characters.
_SORTED_CHARS = 32  # an item that is sorted, whose key is computed
_GROWING_CHARS = 16  # a character that becomes several, or a string of its own
_LONG_NAME = 256
_KEYS = (str, int, float, Undefined, type(None))

# Pays for a filter or test; returns its value, an iterator perhaps as a list.
Payment = Callable[..., Any]


def budget_of(context: Context) -> Budget:
    budget: Budget = context.environment.budget  # type: ignore[attr-defined]
    return budget


def plain_key(budget: Budget, key: Any) -> Any:
    """Pays for a key or the name of an attribute, filter or test, and returns it.

    Raises SecurityError for other objects: Jinja would hash them and quote them in errors.
    """
    if not isinstance(key, _KEYS):
        raise SecurityError(f"a {type(key).__name__} cannot be a key or a name")
    length = len(key) if isinstance(key, str) else 0
    budget.spend(_GROWING_CHARS * length if length > _LONG_NAME else 0)
    return key


# Payments


def _object(budget: Budget, value: Any, *_: Any, **__: Any) -> Any:
    budget.spend(OBJECT_CHARS)
    return value


def _name(budget: Budget, value: Any, *_: Any, **__: Any) -> Any:
    return plain_key(budget, value)


def _text(budget: Budget, value: Any, *args: Any, **kwargs: Any) -> Any:
    text = budget.text(value)
    for given in (*args, *kwargs.values()):  # trim searches them for each character
        budget.spend(len(text) * len(given) if isinstance(given, str) else 0)
    return text


def _growing_text(budget: Budget, value: Any, *_: Any, **__: Any) -> Any:
    text = budget.text(value)
    budget.spend(_GROWING_CHARS * len(text))
    return text


def _number(budget: Budget, value: Any, *_: Any, **__: Any) -> Any:
    if isinstance(value, str) and len(value) > _MAX_DIGITS:
        raise SecurityError(f"a number of {len(value)} characters is too large")
    budget.spend()
    return value


def _items(budget: Budget, value: Any, *_: Any, **__: Any) -> Any:
    value = budget.sized(value)
    each = ITEM_CHARS
    if isinstance(value, str) and not value.isascii():
        each = _GROWING_CHARS + ITEM_CHARS
    budget.spend(OBJECT_CHARS + each * len(value))
    return value


def _sorted(budget: Budget, value: Any, *args: Any, **kwargs: Any) -> Any:
    value = _compared(budget, value, *args, **kwargs)
    budget.spend_value(value, times=len(value).bit_length())
    return value


def _compared(budget: Budget, value: Any, *args: Any, **kwargs: Any) -> Any:
    for name in (*args, kwargs.get("attribute")):
        plain_key(budget, name)
    value = budget.sized(value)
    budget.spend_value(value, plain=True)
    budget.spend(OBJECT_CHARS + _SORTED_CHARS * len(value))
    return value


def _one_by_one(budget: Budget, value: Any, *names: Any, **kwargs: Any) -> Any:
    """Pays for the items one by one, when they are read."""
    plain_key(budget, names[0] if names else kwargs.get("attribute"))
    budget.spend(8 * OBJECT_CHARS)
    return budget.items(value) if value else value


def _one_by_one_by_attribute(budget: Budget, value: Any, *names: Any, **kwargs: Any) -> Any:
    plain_key(budget, names[1] if len(names) > 1 else None)  # names: an attribute, then a test
    return _one_by_one(budget, value, *names, **kwargs)


def _only_number(budget: Budget, value: Any, *_: Any) -> Any:
    if not isinstance(value, int | float | Undefined):
        raise SecurityError(f"a {type(value).__name__} is not a number")  # text % is a format
    budget.spend()
    return value


def _comparison(budget: Budget, value: Any, other: Any) -> Any:
    spend_on_comparison(budget, value, other)
    return value


def _paying(function: Any, pay: Payment) -> Callable[..., Any]:
    """Makes a filter or test of Jinja pay first; it may expect a context or the environment."""
    wanted = getattr(getattr(function, "jinja_pass_arg", None), "name", None)

    @pass_context
    def paid(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        value = pay(budget_of(context), value, *args, **kwargs)
        if wanted == "context":
            return function(context, value, *args, **kwargs)
        if wanted == "eval_context":
            return function(context.eval_ctx, value, *args, **kwargs)
        if wanted == "environment":
            return function(context.environment, value, *args, **kwargs)
        return function(value, *args, **kwargs)

    return paid


# Filters and tests whose other arguments cost as well


@pass_context
def _join(
    context: Context, value: Iterable[Any], d: str = "", attribute: str | int | None = None
) -> Any:
    budget = budget_of(context)
    parts = _compared(budget, value, attribute)
    budget.spend(len(parts) * len(budget.text(d)))
    nested = [part for part in budget.items(parts) if isinstance(part, CONTAINERS)]
    budget.spend_value(nested, times=ITEM_CHARS)
    return JINJA_FILTERS["join"](context.eval_ctx, parts, d, attribute)


@pass_context
def _replace(context: Context, s: Any, old: Any, new: Any, count: int | None = None) -> Any:
    budget = budget_of(context)
    s, old, new = budget.text(s), budget.text(old), budget.text(new)
    budget.spend(replaced_chars(s, old, new))
    return JINJA_FILTERS["replace"](context.eval_ctx, s, old, new, count)


@pass_context
def _indent(
    context: Context, s: Any, width: int | str = 4, first: bool = False, blank: bool = False
) -> Any:
    budget = budget_of(context)
    s = budget.text(s)
    num_lines = s.count("\n") + 1
    budget.spend(len(s) + num_lines * (_indent_chars(width) + _GROWING_CHARS))
    return JINJA_FILTERS["indent"](s, width, first, blank)


@pass_context
def _tojson(
    context: Context,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Encodes as JSON without HTML escapes, as `transformers` does; Jinja's own has them."""
    budget = budget_of(context)
    budget.spend_value(value)
    _indent_chars(indent)
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    chunks = []
    for chunk in encoder.iterencode(value):
        budget.spend(len(chunk) + ITEM_CHARS)
        chunks.append(chunk)
    return "".join(chunks)


class Group(NamedTuple):
    """A group of `groupby`, with Jinja's names."""

    grouper: Any
    list: Any

    def __repr__(self) -> str:
        return tuple.__repr__(self)


@pass_context
def _groupby(
    context: Context,
    value: Iterable[Any],
    attribute: str | int,
    default: Any = None,
    case_sensitive: bool = False,
) -> list[Group]:
    budget = budget_of(context)
    items = _sorted(budget, value, attribute)
    budget.spend_value(default, times=_GROWING_CHARS * len(items), plain=True)
    budget.spend(2 * OBJECT_CHARS * len(items))
    group = JINJA_FILTERS["groupby"]
    found = group(context.environment, items, attribute, default, case_sensitive)
    return [Group(*each) for each in found]


@pass_context
def _sum(
    context: Context, iterable: Iterable[Any], attribute: str | int | None = None, start: Any = 0
) -> Any:
    budget = budget_of(context)
    values: Iterable[Any] = budget.items(iterable)
    if attribute is not None:
        values = map(make_attrgetter(context.environment, plain_key(budget, attribute)), values)
    total = start
    for value in values:
        spend_on_operator(budget, "+", total, value)
        total = total + value
    return total


@pass_context
def _batch(
    context: Context, value: Iterable[Any], linecount: int, fill_with: Any = None
) -> Iterator[Any]:
    budget = budget_of(context)
    if not isinstance(linecount, int) or linecount < 1:
        raise SecurityError("batch needs a number of items above 0")
    budget.spend(8 * OBJECT_CHARS + (0 if fill_with is None else ITEM_CHARS * linecount))
    lines = JINJA_FILTERS["batch"](budget.items(value), linecount, fill_with)
    return _paid_objects(budget, lines)


def _paid_objects(budget: Budget, values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        budget.spend(OBJECT_CHARS)
        yield value


@pass_context
def _format(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
    budget = budget_of(context)
    text = budget.text(value)
    spend_on_operator(budget, "%", text, kwargs or args)
    return JINJA_FILTERS["format"](text, *args, **kwargs)


@pass_context
def _round(context: Context, value: Any, precision: int = 0, method: str = "common") -> Any:
    _only_number(budget_of(context), value)
    if not isinstance(precision, int) or abs(precision) > _MAX_PRECISION:
        raise SecurityError(f"a precision beyond {_MAX_PRECISION} digits is not allowed")
    return JINJA_FILTERS["round"](value, precision, plain_key(budget_of(context), method))


@pass_context
def _in(context: Context, value: Any, seq: Any) -> bool:
    return value in spend_on_search(budget_of(context), value, seq)


def _indent_chars(width: int | str | None) -> int:
    num_chars = width if isinstance(width, int) else len(str(width or ""))
    if num_chars > _MAX_INDENT:
        raise SecurityError(f"an indentation of {num_chars} is more than {_MAX_INDENT}")
    return num_chars


# Filters that `template_rewriter` inserts into templates


@pass_context
def _spend(context: Context, num_chars: Any) -> bool:
    budget_of(context).spend(max(num_chars, 0) if isinstance(num_chars, int) else 0)
    return True


@pass_context
def _flat(context: Context, value: Any) -> Any:
    """Pays for a list, tuple, dict or text that was just built, or will be sliced."""
    each = 1 if isinstance(value, str) else ITEM_CHARS
    num_items = len(value) if isinstance(value, SIZED) else 0
    budget_of(context).spend(OBJECT_CHARS + each * num_items)
    return value


@pass_context
def _key(context: Context, value: Any) -> Any:
    return plain_key(budget_of(context), value)


@pass_context
def _concat(context: Context, parts: list[Any]) -> str:
    return "".join(map(budget_of(context).text, parts))


@pass_context
def _compare(context: Context, left: Any, *operands: Any) -> Any:
    """Compares `left` with the operands: name of a comparison, value, name, value, …"""
    budget, result = budget_of(context), True
    for name, right in zip(operands[::2], operands[1::2], strict=True):
        result = compare(budget, name, left, right)
        if not result:
            break
        left = right
    return result


_PAYMENTS: dict[str, Payment] = {
    "items": _object,
    **dict.fromkeys(["capitalize", "lower", "safe", "string", "trim", "truncate", "upper"], _text),
    **dict.fromkeys(["e", "escape", "title", "wordcount"], _growing_text),
    **dict.fromkeys(["float", "int"], _number),
    **dict.fromkeys(["list", "reverse"], _items),
    **dict.fromkeys(["dictsort", "sort"], _sorted),
    **dict.fromkeys(["max", "min", "unique"], _compared),
    **dict.fromkeys(["map", "reject", "select"], _one_by_one),
    **dict.fromkeys(["rejectattr", "selectattr"], _one_by_one_by_attribute),
}
_FREE = ["abs", "count", "d", "default", "first", "last", "length"]
FILTERS: dict[str, Any] = {
    **{name: JINJA_FILTERS[name] for name in _FREE},
    **{name: _paying(JINJA_FILTERS[name], pay) for name, pay in _PAYMENTS.items()},
    "batch": _batch,
    "format": _format,
    "groupby": _groupby,
    "indent": _indent,
    "join": _join,
    "replace": _replace,
    "round": _round,
    "sum": _sum,
    "tojson": _tojson,
    "_compare": _compare,
    "_concat": _concat,
    "_flat": _flat,
    "_key": _key,
    "_spend": _spend,
}
_COMPARISONS = "== eq equalto != ne < lt lessthan <= le > gt greaterthan >= ge"
_TEST_PAYMENTS: dict[str, Payment] = {
    **dict.fromkeys(_COMPARISONS.split(), _comparison),
    **dict.fromkeys(["lower", "upper"], _text),
    **dict.fromkeys(["divisibleby", "even", "odd"], _only_number),
    **dict.fromkeys(["filter", "test"], _name),
}
TESTS: dict[str, Any] = {
    **JINJA_TESTS,
    **{name: _paying(JINJA_TESTS[name], pay) for name, pay in _TEST_PAYMENTS.items()},
    "in": _in,
}
