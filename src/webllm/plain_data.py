"""Explains why plain data does not fit its struct: the path, the value, and what would fit.

It knows no configuration and no request.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

_PATH = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>[^`]*)`")
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]*)`")


def path_and_problem(error: msgspec.ValidationError) -> tuple[str, str]:
    """The path in the data, like "messages[0].role" ("": the whole), and msgspec's message."""
    text = str(error)
    at = _PATH.search(text)
    if at is None:
        return "", text
    return at["path"].removesuffix("[...]"), text[
        : at.start()
    ]  # "[...]" stands for a dict's values


def unknown_name(problem: str) -> str | None:
    match = _UNKNOWN.match(problem)
    return match and match["name"]


def missing_name(problem: str) -> str | None:
    match = _MISSING.match(problem)
    return match and match["name"]


def value_at(plain: object, path: str) -> str:
    """Returns ", received ..." with the value at `path`; "" if there is none."""
    value: Any = plain
    try:
        for step in _steps(path):
            value = value[int(step[1:-1])] if step[0] == "[" else value[step]
    except (KeyError, IndexError, TypeError):
        return ""
    return f", received {short(value)}"


def short(value: object) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # thousands of digits, or deep nesting
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Suggests the nearest name, whatever its case and underscores, or lists all of them."""
    by_letters = {_letters(each): each for each in known}
    if near := difflib.get_close_matches(_letters(name), by_letters, n=1):
        return f"did you mean {by_letters[near[0]]}?"
    return f"known are {', '.join(sorted(by_letters.values()))}"


def explained(error: msgspec.ValidationError, plain: object, kind: Any) -> str:
    """Explains why `plain` is no `kind`: the path, the problem, the value received."""
    path, problem = path_and_problem(error)
    where = f"{path}: " if path else ""
    if name := unknown_name(problem):
        return f"{where}unknown field {name!r}; {did_you_mean(name, _names_at(kind, path))}"
    if name := missing_name(problem):
        return f"{path}.{name} is missing" if path else f"{name} is missing"
    if problem.startswith("Invalid enum value"):
        choices = ", ".join(sorted(_choices_at(kind, path), key=str))
        return f"{path} has to be one of {choices}{value_at(plain, path)}"
    problem = problem[0].lower() + problem[1:].replace(" | null", "").replace("`", "")
    return f"{where}{problem}{value_at(plain, path) or f', received {short(plain)}'}"


def _steps(path: str) -> list[str]:
    return re.findall(r"\w+|\[\d+\]", path)


def _letters(name: str) -> str:
    return name.replace("_", "").lower()


def _names_at(kind: Any, path: str) -> list[str]:
    """The names of the fields of the struct at `path`."""
    structs = [each for each in _types_at(kind, path) if hasattr(each, "fields")]
    return [field.encode_name for each in structs for field in each.fields]


def _choices_at(kind: Any, path: str) -> list[str]:
    literals = [each for each in _types_at(kind, path) if hasattr(each, "values")]
    return [repr(value) for each in literals for value in each.values]


def _types_at(kind: Any, path: str) -> Iterator[Any]:
    """Yields msgspec's descriptions of the types allowed at `path`."""
    from msgspec.inspect import type_info  # here, because it is rarely needed

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
