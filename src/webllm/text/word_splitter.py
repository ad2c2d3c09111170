r"""Splits text into words by patterns of the Oniguruma library, with Python's `re`.

`re` has no classes by Unicode category (`\p{L}`), and its `\s` has four more characters: both are
rewritten as ranges of characters. What the two libraries read differently is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from functools import cache
from itertools import groupby
from unicodedata import category

from webllm.errors import CheckpointError, UnsupportedModelError

_MAX_PATTERN = 4096  # characters
_SPACES = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_ASSIGNED = (range(0x40000), range(0xE0000, 0xE0200))  # others are unassigned or private
_TOKEN = re.compile(r"\\p\{(\w+)\}|\\.|[\[\]]|[^\\\[\]]+", re.DOTALL)
_CATEGORY = re.compile("C[cfos]?|L[lmotu]?|M[cen]?|N[dlo]?|P[cdefios]?|S[ckmo]?|Z[lps]?")
_ESCAPED_LETTERS = frozenset("sSdDrntfv")  # the same in both libraries, but for \s
# A repeated group may take endless time; anchors, possessive {n}+ and set operations differ.
_REFUSED_OUTSIDE = re.compile(r"\)[*+{]|[\^$]|\}\+|\(\?(?!:|i:|=|!|<=|<!)")
_REFUSED_INSIDE = re.compile(r"&&|--|\|\||~~")


class Behavior(StrEnum):
    """What becomes of the matches of a pattern; the `tokenizers` library's names."""

    REMOVED = "Removed"
    ISOLATED = "Isolated"
    MERGED_WITH_PREVIOUS = "MergedWithPrevious"
    MERGED_WITH_NEXT = "MergedWithNext"
    CONTIGUOUS = "Contiguous"


class WordSplitter:
    """Applies patterns in order, each to the pieces that the previous one made.

    The matches of a pattern and the text between them are its pieces.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [compile_pattern(pattern) for pattern in patterns]

    def split(self, text: str) -> Iterable[str]:
        pieces: Iterable[str] = (text,)
        for pattern in self._patterns:
            pieces = split_each(pattern, pieces)
        return pieces


def split_each(
    pattern: re.Pattern[str],
    pieces: Iterable[str],
    behavior: Behavior = Behavior.ISOLATED,
    invert: bool = False,
) -> Iterator[str]:
    """Splits each of `pieces` at the matches of `pattern`, with `invert` at what is between."""
    for piece in pieces:
        spans = _spans(pattern, piece)
        if behavior is Behavior.ISOLATED:
            yield from (text for text, _ in spans)
        else:
            yield from _arranged(((text, found != invert) for text, found in spans), behavior)


def _spans(pattern: re.Pattern[str], text: str) -> Iterator[tuple[str, bool]]:
    """Yields the parts of `text` that are not empty, and whether they match."""
    end = 0
    for match in pattern.finditer(text):
        if match.start() > end:
            yield text[end : match.start()], False
        if match[0]:
            yield match[0], True
        end = match.end()
    if end < len(text):
        yield text[end:], False


def _arranged(spans: Iterable[tuple[str, bool]], behavior: Behavior) -> Iterator[str]:
    if behavior is Behavior.REMOVED:
        yield from (text for text, is_match in spans if not is_match)
    elif behavior is Behavior.CONTIGUOUS:
        for _, run in groupby(spans, lambda span: span[1]):
            yield "".join(text for text, _ in run)
    else:
        # Joins each pair of a match and its neighbour on the wanted side.
        first_is_match = behavior is Behavior.MERGED_WITH_NEXT
        held = ""
        for text, is_match in spans:
            if is_match == first_is_match:
                if held:
                    yield held
                held = text
            else:
                yield held + text
                held = ""
        if held:
            yield held


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Raises UnsupportedModelError as `to_python`, CheckpointError for what is no pattern."""
    if len(pattern) > _MAX_PATTERN:
        raise UnsupportedModelError(
            f"a pattern of {len(pattern)} characters in the tokenizer is not supported; "
            f"{_MAX_PATTERN} are"
        )
    try:
        return re.compile(to_python(pattern))
    except (re.error, OverflowError, RecursionError) as error:
        raise CheckpointError(
            f"the tokenizer's pattern {pattern[:80]!r} is malformed: {error}"
        ) from error


def to_python(pattern: str) -> str:
    """Translates a pattern for `re`; raises UnsupportedModelError for what cannot be translated."""
    out: list[str] = []
    in_class = False
    for token in _TOKEN.finditer(pattern):
        text = token[0]
        if text in "[]":
            if in_class == (text == "["):
                raise _refused(pattern, text)
            in_class = not in_class
        elif token[1]:
            if not _CATEGORY.fullmatch(token[1]):
                raise _refused(pattern, text)
            text = _ranges(token[1]) if in_class else f"[{_ranges(token[1])}]"
        elif text == r"\s":
            text = _SPACES if in_class else f"[{_SPACES}]"
        elif text == r"\S" and not in_class:
            text = f"[^{_SPACES}]"
        elif text.startswith("\\"):
            if text[1:].isalnum() and (text[1] not in _ESCAPED_LETTERS or text == r"\S"):
                raise _refused(pattern, text)
        elif found := (_REFUSED_INSIDE if in_class else _REFUSED_OUTSIDE).search(text):
            raise _refused(pattern, found[0])
        out.append(text)
    return "".join(out)


def _refused(pattern: str, part: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{part!r} in the tokenizer's pattern {pattern[:80]!r} is not supported here; install the "
        "`tokenizers` package (pip install 'webllm[native]'), which runs it"
    )


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
