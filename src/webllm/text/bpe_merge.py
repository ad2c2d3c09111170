"""Byte-pair merging: the best-ranked pair of neighbours first, the leftmost of equal ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from heapq import heappop, heappush

from webllm.text.steps import Steps, finish

# The rank of merging two neighbours, smallest first; None if they never merge.
Rank = Callable[[str, str], float | None]

_CACHED_CHARS = 40  # longer words are not cached
_CACHED_WORDS = 20_000
_STEP_CHARS = 256  # encoded in one step
_STEP_PAIRS = 512  # tried in one step


class WordEncoder:
    """Encodes words one after the other, caching the results of `encode_word` for short ones."""

    def __init__(self, encode_word: Callable[[str], Steps[list[int]]]) -> None:
        self._encode_word = encode_word
        self._encode_short = lru_cache(_CACHED_WORDS)(self._encode_at_once)

    def encode(self, words: Iterable[str]) -> Steps[list[int]]:
        token_ids: list[int] = []
        num_chars = 0
        for word in words:
            if len(word) <= _CACHED_CHARS:
                token_ids += self._encode_short(word)
            else:
                token_ids += yield from self._encode_word(word)
            num_chars += len(word)
            if num_chars > _STEP_CHARS:
                num_chars = 0
                yield
        return token_ids

    def _encode_at_once(self, word: str) -> tuple[int, ...]:
        return tuple(finish(self._encode_word(word)))


def merge(pieces: list[str], rank: Rank) -> Steps[Iterator[str]]:
    """Merges `pieces`, which it modifies, in O(n log n)."""
    num_pieces = len(pieces)
    before: list[int] = []
    after: list[int] = []

    def pair(left: int, right: int) -> tuple[float, int, int, int] | None:
        """A candidate: rank, left and right index, length after merging."""
        found = rank(pieces[left], pieces[right])
        if found is None:
            return None
        return found, left, right, len(pieces[left]) + len(pieces[right])

    candidates: list[tuple[float, int, int, int]] = []
    for start in range(0, num_pieces, _STEP_PAIRS):
        if start:
            yield
        end = min(start + _STEP_PAIRS, num_pieces)
        before += range(start - 1, end - 1)
        after += range(start + 1, end + 1)
        for left in range(start, min(end, num_pieces - 1)):
            if candidate := pair(left, left + 1):
                heappush(candidates, candidate)
    num_popped = 0
    while candidates:
        num_popped += 1
        if num_popped % _STEP_PAIRS == 0:
            yield
        _, left, right, length = heappop(candidates)
        if after[left] != right or len(pieces[left]) + len(pieces[right]) != length:
            continue  # one of the two has merged otherwise meanwhile
        pieces[left] += pieces[right]
        pieces[right] = ""
        following = after[left] = after[right]
        after[right] = -1
        if following < num_pieces:
            before[following] = left
            if candidate := pair(left, following):
                heappush(candidates, candidate)
        if (previous := before[left]) >= 0 and (candidate := pair(previous, left)):
            heappush(candidates, candidate)
    return filter(None, pieces)
