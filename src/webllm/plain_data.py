"""Explains why plain data does not fit its struct: the place, the value, and what would fit.

It knows no configuration and no request.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

_LEAST_LIKENESS = 0.7  # of a suggested name, see difflib
_MIN_START = 4  # letters that are enough to suggest a longer name
_PATH = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>[^`]*)`")
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]*)`")


def short(value: object) -> str:
    """A value's repr, cut to 60 characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # of an integer with thousands of digits, or deep nesting
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Suggests the nearest name, or lists all of them."""
    names = sorted(known)
    if near := nearest(name, names):
        return f"did you mean {near}?"
    return f"known are {', '.join(names) or 'none'}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Returns the name most like another, whatever its case and separators; None if none is."""
    by_letters = {_letters(each): each for each in known}
    letters = _letters(name)
    longer = [each for each in by_letters if each.startswith(letters)]
    if longer and len(letters) >= _MIN_START:
        return by_letters[min(longer, key=len)]
    near = difflib.get_close_matches(letters, by_letters, n=1, cutoff=_LEAST_LIKENESS)
    return by_letters[near[0]] if near else None


def field_of(error: msgspec.ValidationError) -> str:
    """Returns the path of the wrong field, such as "messages[0].role"; "" for the whole."""
    path, problem = _path_and_problem(error)
    missing = _MISSING.match(problem)
    return ".".join(name for name in (path, missing and missing["name"]) if name)


def explained(error: msgspec.ValidationError, plain: object, kind: Any) -> str:
    """Says where `plain` does not fit `kind`, the value there, and what would fit."""
    path, problem = _path_and_problem(error)
    where = f"{path}: " if path else ""
    if unknown := _UNKNOWN.match(problem):
        name = unknown["name"]
        return f"{where}unknown field {name!r}; {did_you_mean(name, _names_at(kind, path))}"
    if _MISSING.match(problem):
        return f"{field_of(error)} is missing"
    if problem.startswith("Invalid enum value"):
        choices = ", ".join(_choices_at(kind, path))
        return f"{path} has to be one of {choices}{_value_at(plain, path)}"
    problem = problem[0].lower() + problem[1:].replace(" | null", "").replace("`", "")
    return f"{where}{problem}{_value_at(plain, path) or f', received {short(plain)}'}"


def _path_and_problem(error: msgspec.ValidationError) -> tuple[str, str]:
    """Splits msgspec's message into the path and the rest."""
    text = str(error)
    at = _PATH.search(text)
    if at is None:
        return "", text
    path = at["path"].removesuffix("[...]")  # which stands for the values of a dict
    return path, text[: at.start()]


def _value_at(plain: object, path: str) -> str:
    """Returns ", received ..." for a path, or "" if there is no value."""
    value: Any = plain
    try:
        for step in _steps(path):
            value = value[int(step[1:-1])] if step[0] == "[" else value[step]
    except (KeyError, IndexError, TypeError):
        return ""
    return f", received {short(value)}"


def _steps(path: str) -> list[str]:
    return re.findall(r"\w+|\[\d+\]", path)


def _letters(name: str) -> str:
    return re.sub("[_-]", "", name).lower()


def _names_at(kind: Any, path: str) -> list[str]:
    """Returns the fields of the struct at a path."""
    structs = [each for each in _types_at(kind, path) if hasattr(each, "fields")]
    return [field.encode_name for each in structs for field in each.fields]


def _choices_at(kind: Any, path: str) -> list[str]:
    """Returns the values that fit at a path, as Python writes them."""
    types = list(_types_at(kind, path))
    literals = [each for each in types if hasattr(each, "values")]
    choices = sorted(repr(value) for each in literals for value in each.values)
    return [*choices, "an object"] if any(hasattr(each, "fields") for each in types) else choices


def _types_at(kind: Any, path: str) -> Iterator[Any]:
    """Returns msgspec's descriptions of the types at a path."""
    from msgspec.inspect import type_info  # imported only for errors

    found = [type_info(kind)]
    for step in _steps(path):
        found = [inner for each in found for inner in _inner(each, step)]
    for each in found:
        yield from getattr(each, "types", [each])


def _inner(description: Any, step: str) -> Iterator[Any]:
    for each in getattr(description, "types", [description]):
        if step[0] == "[" and hasattr(each, "item_type"):
            yield each.item_type
        elif hasattr(each, "fields"):
            yield from (field.type for field in each.fields if field.encode_name == step)
