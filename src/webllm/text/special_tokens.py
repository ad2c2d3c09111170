"""Finding the tokens that are matched in the text before any tokenization.

Leftmost match first, the longest of those that start there, as Aho-Corasick matchers do. A
vocabulary may have thousands of such tokens (Gemma's 6,000 unused ones), too many for one regular
expression: here a match is tried only where a token's first character stands, and only for the
lengths that tokens with that character have.
"""

import re
from collections.abc import Iterator, Mapping


class SpecialTokens:
    """Splits text at the tokens of `ids`, a map from spelling to token id."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        self._ids = {text: token_id for text, token_id in ids.items() if text}
        lengths: dict[str, set[int]] = {}
        for text in self._ids:
            lengths.setdefault(text[0], set()).add(len(text))
        self._lengths = {char: sorted(found, reverse=True) for char, found in lengths.items()}
        starts = "".join(re.escape(char) for char in self._lengths)
        self._start = re.compile(f"[{starts}]") if starts else None

    def split(self, text: str) -> Iterator[str | int]:
        """The stretches of plain text (never empty) and the token ids, in order."""
        plain_from = position = 0
        while self._start and (found := self._start.search(text, position)):
            position = found.start()
            token = self._match(text, position)
            if token is None:
                position += 1
                continue
            if plain_from < position:
                yield text[plain_from:position]
            yield self._ids[token]
            plain_from = position = position + len(token)
        if plain_from < len(text):
            yield text[plain_from:]

    def _match(self, text: str, position: int) -> str | None:
        for length in self._lengths[text[position]]:
            token = text[position : position + length]
            if token in self._ids:
                return token
        return None
