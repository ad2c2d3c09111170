"""SentencePiece's BPE ("llama" in GGUF): merges are ordered by the score of the merged token.

Neighbours merge if the vocabulary has their concatenation, the best score first, the leftmost of
equal scores. This is the algorithm of SentencePiece's `bpe_model.cc` and of llama.cpp's SPM
tokenizer, so the ids agree. The `tokenizers` library would need a table of merges, derived from
262,144 spellings at every start, and such a table cannot express equal scores.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from webllm.text.bpe_merge import WordEncoder
from webllm.text.bpe_model import BpeModel
from webllm.text.steps import Steps
from webllm.text.vocabulary import SPACE_MARK


class SentencePieceBpe:
    """Encodes text in which U+2581 already replaces spaces; `tokens` are all that it may become."""

    def __init__(self, tokens: Iterable[str], model: BpeModel) -> None:
        self._pattern = word_pattern(tokens)
        self._words = WordEncoder(model.encode)

    def encode(self, text: str) -> Steps[list[int]]:
        return self._words.encode(match[0] for match in self._pattern.finditer(text))


class ScoreRanks:
    """Ranks a merge by the score of the token that it makes; `scores` has all that may be made."""

    def __init__(self, scores: Mapping[str, float]) -> None:
        self._scores = scores

    def __call__(self, left: str, right: str) -> float | None:
        score = self._scores.get(left + right)
        return None if score is None else -score


def word_pattern(tokens: Iterable[str]) -> re.Pattern[str]:
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
