"""The BPE of SentencePiece ("llama" in GGUF): merges ordered by the score of what they make.

Neighbours merge whenever the vocabulary holds their concatenation; the best score goes first, and
of equal scores the leftmost. That is SentencePiece's `bpe_model.cc` (and llama.cpp's SPM
tokenizer), so the ids agree by construction. A merge table for the `tokenizers` library would
have to be derived from 262k spellings at every start, and cannot express equal scores.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from webllm.text.bpe_merge import WordEncoder, merge
from webllm.text.steps import Steps, collect
from webllm.text.vocabulary import SPACE_MARK


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
    """Where text may be cut without changing the result: before a space, unless some token goes
    on over a space after that same character (Gemma's `>▁</`)."""
    spanning = [token for token in tokens if SPACE_MARK in token.lstrip(SPACE_MARK)]
    glued = {
        token[i - 1] for token in spanning for i in range(1, len(token)) if token[i] == SPACE_MARK
    }
    glue = "".join(re.escape(char) for char in sorted(glued - {SPACE_MARK}))
    inside = f"[^{SPACE_MARK}]" + (f"|(?<=[{glue}]){SPACE_MARK}+" if glue else "")
    return re.compile(f"{SPACE_MARK}*(?:{inside})+|{SPACE_MARK}+")
