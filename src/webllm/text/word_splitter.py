r"""Splits text into words by patterns of the Oniguruma library, with Python's `re`.

`re` has no classes by Unicode category (`\p{L}`), and its `\s` has four more characters: both are
rewritten as ranges of characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import groupby
from unicodedata import category

_SPACES = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_ASSIGNED = (range(0x40000), range(0xE0000, 0xE0200))  # others are unassigned or private
_TOKEN = re.compile(r"\\p\{(\w+)\}|\\[sS]|\\.|[\[\]]|[^\\\[\]]+", re.DOTALL)


class WordSplitter:
    """Applies patterns in order, each to the pieces that the previous one made.

    The matches of a pattern and the text between them are its pieces.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [re.compile(to_python(pattern)) for pattern in patterns]

    def split(self, text: str) -> Iterable[str]:
        pieces: Iterable[str] = (text,)
        for pattern in self._patterns:
            pieces = _isolate_each(pattern, pieces)
        return pieces


def _isolate_each(pattern: re.Pattern[str], pieces: Iterable[str]) -> Iterator[str]:
    for piece in pieces:
        yield from _isolate(pattern, piece)


def _isolate(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    end = 0
    for match in pattern.finditer(text):
        if match.start() > end:
            yield text[end : match.start()]
        if match[0]:
            yield match[0]
        end = match.end()
    if end < len(text):
        yield text[end:]


def to_python(pattern: str) -> str:
    """Translates a pattern for `re`."""
    out: list[str] = []
    in_class = False
    for token in _TOKEN.finditer(pattern):
        text = token[0]
        if text in "[]":
            in_class = text == "["
        elif token[1]:
            ranges = _ranges(token[1])
            text = ranges if in_class else f"[{ranges}]"
        elif text == r"\s":
            text = _SPACES if in_class else f"[{_SPACES}]"
        elif text == r"\S":
            assert not in_class, pattern
            text = f"[^{_SPACES}]"
        out.append(text)
    return "".join(out)


def _ranges(name: str) -> str:
    """The characters of a Unicode category ("Lu") or group ("L"), as ranges for a class."""
    found = [
        f"\\U{first:08x}-\\U{last:08x}"
        for kind, first, last in _categories()
        if kind.startswith(name)
    ]
    return "".join(found)


@cache
def _categories() -> list[tuple[str, int, int]]:
    """Runs of characters of one category: (category, first, last)."""
    runs = []
    for codes in _ASSIGNED:
        for kind, group in groupby(codes, lambda code: category(chr(code))):
            first, *rest = group
            runs.append((kind, first, rest[-1] if rest else first))
    return runs
