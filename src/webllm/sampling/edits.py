"""What is changed about a sequence's logits before a token is drawn: biases and penalties."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from struct import Struct

from webllm.ops.step import EDIT_WORDS, IN_PROMPT

_BIAS = Struct("=f")


class LogitEdits:
    """The edits of one sequence as the words of its steps, kept up to date token by token.

    biases: by token id; prompt_ids: tokens that count for the repetition penalty from the start;
    counts: whether what is generated counts, for any penalty.
    """

    def __init__(
        self,
        biases: Mapping[int, float] | None = None,
        prompt_ids: Iterable[int] = (),
        *,
        counts: bool = False,
    ) -> None:
        self.words = array("I")  # [entries, EDIT_WORDS]: token id, bias, count
        self.counts = counts
        self._at: dict[int, int] = {}  # word of a token's count
        for token_id, bias in (biases or {}).items():
            self._add(token_id, bias, 0)
        for token_id in prompt_ids:
            if token_id in self._at:
                self.words[self._at[token_id]] |= IN_PROMPT
            else:
                self._add(token_id, 0.0, IN_PROMPT)

    def __len__(self) -> int:
        return len(self.words) // EDIT_WORDS

    def count(self, token_id: int) -> None:
        """A token was generated."""
        if not self.counts:
            return
        if token_id in self._at:
            self.words[self._at[token_id]] += 1
        else:
            self._add(token_id, 0.0, 1)

    def _add(self, token_id: int, bias: float, count: int) -> None:
        self._at[token_id] = len(self.words) + EDIT_WORDS - 1
        self.words.append(token_id)
        self.words.frombytes(_BIAS.pack(bias))
        self.words.append(count)
