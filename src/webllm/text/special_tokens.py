"""Finds special tokens, which are matched in text before it is tokenized.

The leftmost match wins, and the longest of those at one place, as in Aho-Corasick matching. A
vocabulary may have thousands of special tokens (Gemma has 6,000 unused ones), too many for one
regular expression. So a match is tried only at the first two characters of a token, and only for
the lengths of tokens with that first character.

A special token that a user spells in a prompt must stay text: `with_guards` puts a GUARD after its
first character. Encoders remove the guards when they tokenize the text between special tokens.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from webllm.text.steps import Steps

GUARD = "\udfff"  # half a surrogate pair, which well-formed text never has
_STEP_TRIES = 1024  # tried matches in one step
_SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_SPACES_HERE = re.compile(f"[{_SPACES}]*")


def with_guards(text: str, starts: Iterable[int | None]) -> Steps[str]:
    """Returns `text` with a guard after each character at `starts`, which ascend."""
    pieces, cut = [], 0
    for start in starts:
        yield
        if start is None:
            continue
        pieces.append(text[cut : start + 1])
        cut = start + 1
    return GUARD.join([*pieces, text[cut:]])


class SpecialTokens:
    """Splits text at the tokens in `ids`, a map from spelling to token id.

    Tokens in `left` and `right` take the white space on that side of them as well. Its iterators
    yield None now and then while they find no token: a step of `steps`.
    """

    def __init__(
        self, ids: Mapping[str, int], left: Collection[str] = (), right: Collection[str] = ()
    ) -> None:
        self._ids = {text: token_id for text, token_id in ids.items() if text}
        self._left, self._right = frozenset(left), frozenset(right)
        lengths: dict[str, set[int]] = {}
        for text in self._ids:
            lengths.setdefault(text[0], set()).add(len(text))
        self._lengths = {char: sorted(found, reverse=True) for char, found in lengths.items()}
        self._start = _start_pattern(self._ids) if self._ids else None

    def __bool__(self) -> bool:
        return bool(self._ids)

    def split(self, text: str, plain: Collection[int] = ()) -> Iterator[str | int | None]:
        """Yields stretches of plain text (never empty) and token ids, in order.

        Tokens whose ids are in `plain` are matched, but stay text.
        """
        plain_from = position = num_tries = 0
        while self._start and (found := self._start.search(text, position)):
            position = found.start()
            token = self._match(text, position)
            if token is None or self._ids[token] in plain:
                position += 1 if token is None else len(token)
                num_tries += 1
                if num_tries % _STEP_TRIES == 0:
                    yield None
                continue
            start, position = position, position + len(token)
            if token in self._left:
                start = plain_from + len(text[plain_from:start].rstrip(_SPACES))
            if plain_from < start:
                yield text[plain_from:start]
            yield self._ids[token]
            plain_from = position
            if token in self._right and (spaces := _SPACES_HERE.match(text, position)):
                plain_from = spaces.end()
        if plain_from < len(text):
            yield text[plain_from:]

    def starts(self, text: str) -> Iterator[int | None]:
        """Yields the position of every token, also of tokens inside another one."""
        position = num_tries = 0
        while self._start and (found := self._start.search(text, position)):
            num_tries += 1
            if self._match(text, found.start()) is not None:
                yield found.start()
            elif num_tries % _STEP_TRIES == 0:
                yield None
            position = found.start() + 1

    def _match(self, text: str, position: int) -> str | None:
        for length in self._lengths[text[position]]:
            token = text[position : position + length]
            if token in self._ids and not text.startswith(GUARD, position + 1):
                return token
        return None


def _start_pattern(tokens: Iterable[str]) -> re.Pattern[str]:
    """Matches the first two characters of any token."""
    seconds: dict[str, set[str]] = {}
    for token in tokens:
        seconds.setdefault(token[0], set()).add(token[1:2])
    return re.compile(
        "|".join(
            re.escape(first)
            + ("" if "" in found else f"(?=[{''.join(map(re.escape, sorted(found)))}])")
            for first, found in seconds.items()
        )
    )
