"""The BPE of SentencePiece ("llama" in GGUF): merges ordered by the score of what they make.

Neighbours merge whenever the vocabulary holds their concatenation; the best score goes first, and
of equal scores the leftmost. That is SentencePiece's `bpe_model.cc` (and llama.cpp's SPM
tokenizer), so the ids agree by construction. A merge table for the `tokenizers` library would
have to be derived from 262k spellings at every start, and cannot express equal scores.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from heapq import heapify, heappop, heappush

from webllm.text.vocabulary import SPACE_MARK

# Words up to this many characters are remembered, and so many of them.
_WORD_CHARS = 40
_NUM_WORDS = 20_000


class SentencePieceBpe:
    """Merges text, in which U+2581 already stands for spaces, into token ids.

    `scores` has the tokens that merging may make, and `ids` at least those. Characters without a
    token become bytes by `byte_ids` or, if that is empty, `unknown_id` (if there is one).
    """

    def __init__(
        self,
        scores: Mapping[str, float],
        ids: Mapping[str, int],
        byte_ids: Mapping[int, int],
        unknown_id: int | None,
    ) -> None:
        self._ids = ids
        self._scores = scores
        self._byte_ids = byte_ids
        self._unknown_id = unknown_id
        self._words = _word_pattern(scores)
        self._encode_word = lru_cache(_NUM_WORDS)(self._merge_word)

    def encode(self, text: str) -> list[int]:
        token_ids: list[int] = []
        for word in self._words.findall(text):
            if len(word) <= _WORD_CHARS:
                token_ids += self._encode_word(word)
            else:
                token_ids += self._merge_word(word)
        return token_ids

    def _merge_word(self, word: str) -> tuple[int, ...]:
        return tuple(self._token_ids(_merge(word, self._scores)))

    def _token_ids(self, pieces: Iterable[str]) -> Iterator[int]:
        was_unknown = False
        for piece in pieces:
            token_id = self._ids.get(piece)
            if token_id is not None:
                yield token_id
            elif self._byte_ids:
                yield from (self._byte_ids[byte] for byte in piece.encode())
            elif self._unknown_id is not None and not was_unknown:
                yield self._unknown_id
            was_unknown = token_id is None


def _merge(word: str, scores: Mapping[str, float]) -> list[str]:
    """The pieces `word` merges into."""
    pieces = list(word)
    before = list(range(-1, len(word) - 1))
    after = list(range(1, len(word) + 1))
    candidates: list[tuple[float, int, int, str]] = []
    for left in range(len(word) - 1):
        merged = word[left : left + 2]
        if merged in scores:
            candidates.append((-scores[merged], left, left + 1, merged))
    heapify(candidates)
    while candidates:
        _, left, right, merged = heappop(candidates)
        if after[left] != right or len(pieces[left]) + len(pieces[right]) != len(merged):
            continue  # one of the two has merged with another meanwhile
        pieces[left], pieces[right] = merged, ""
        following = after[left] = after[right]
        after[right] = -1
        if following < len(word):
            before[following] = left
            longer = merged + pieces[following]
            if longer in scores:
                heappush(candidates, (-scores[longer], left, following, longer))
        if (previous := before[left]) >= 0:
            longer = pieces[previous] + merged
            if longer in scores:
                heappush(candidates, (-scores[longer], previous, left, longer))
    return [piece for piece in pieces if piece]


def _word_pattern(tokens: Iterable[str]) -> re.Pattern[str]:
    """Where text may be cut without changing the result: before a space, unless some token goes
    on over a space after that same character (Gemma's `>▁</`)."""
    spanning = [token for token in tokens if SPACE_MARK in token.lstrip(SPACE_MARK)]
    glued = {
        token[i - 1] for token in spanning for i in range(1, len(token)) if token[i] == SPACE_MARK
    }
    glue = "".join(re.escape(char) for char in sorted(glued - {SPACE_MARK}))
    inside = f"[^{SPACE_MARK}]" + (f"|(?<=[{glue}]){SPACE_MARK}+" if glue else "")
    return re.compile(f"{SPACE_MARK}*(?:{inside})+|{SPACE_MARK}+")
