"""SentencePiece's BPE ("llama" in GGUF): merges are ordered by the score of the merged token.

Neighbours merge if the vocabulary has their concatenation, the best score first, the leftmost of
equal scores. This is the algorithm of SentencePiece's `bpe_model.cc` and of llama.cpp's SPM
tokenizer, so the ids agree. The `tokenizers` library would need a table of merges, derived from
262,144 spellings at every start, and such a table cannot express equal scores.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from webllm.text.bpe_merge import WordEncoder, merge
from webllm.text.steps import Steps, collect
from webllm.text.vocabulary import SPACE_MARK


class SentencePieceBpe:
    """Encodes text in which U+2581 already replaces spaces.

    `scores` has the tokens that merging may make; `ids` has at least those. Characters without a
    token become the tokens of their bytes, or `unknown_id` (if there is one) if `byte_ids` is
    empty.
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
        self._pattern = _word_pattern(scores)
        self._words = WordEncoder(self._merge)

    def encode(self, text: str) -> Steps[list[int]]:
        return self._words.encode(match[0] for match in self._pattern.finditer(text))

    def _merge(self, word: str) -> Steps[list[int]]:
        pieces = yield from merge(list(word), self._rank)
        return (yield from collect(self._token_ids(pieces)))

    def _rank(self, left: str, right: str) -> float | None:
        score = self._scores.get(left + right)
        return None if score is None else -score

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


def _word_pattern(tokens: Iterable[str]) -> re.Pattern[str]:
    """Matches words: pieces of text that can be encoded alone without changing the result.

    Text is cut before a space, unless a token has a space after the same character, as Gemma's
    `>▁</` has.
    """
    spanning = [token for token in tokens if SPACE_MARK in token.lstrip(SPACE_MARK)]
    glued = {
        token[i - 1] for token in spanning for i in range(1, len(token)) if token[i] == SPACE_MARK
    }
    glue = "".join(re.escape(char) for char in sorted(glued - {SPACE_MARK}))
    inside = f"[^{SPACE_MARK}]" + (f"|(?<=[{glue}]){SPACE_MARK}+" if glue else "")
    return re.compile(f"{SPACE_MARK}*(?:{inside})+|{SPACE_MARK}+")
