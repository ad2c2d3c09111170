"""What is changed about a sequence's logits before a token is drawn: biases and penalties."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from copy import copy

from webllm.ops.step import EDIT_WORDS, IN_PROMPT


class LogitEdits:
    """The edits of one sequence as the words of its steps, kept up to date token by token.

    biases: by token id; prompt_ids: tokens that count for the repetition penalty from the start;
    counts: whether what is generated counts, for any penalty. Copies share memory until one counts.
    """

    def __init__(
        self,
        biases: Mapping[int, float] | None = None,
        prompt_ids: Iterable[int] = (),
        *,
        counts: bool = False,
    ) -> None:
        biases = biases or {}
        self.words = array("I", bytes(4 * EDIT_WORDS * len(biases)))  # token id, bias, count
        self.words[0::EDIT_WORDS] = array("I", biases)
        self.words[1::EDIT_WORDS] = array("I", array("f", biases.values()).tobytes())
        self.counts = counts
        self._at = dict(
            zip(biases, range(EDIT_WORDS - 1, len(self.words), EDIT_WORDS), strict=True)
        )
        for token_id in prompt_ids:
            if token_id in self._at:
                self.words[self._at[token_id]] |= IN_PROMPT
            else:
                self._at[token_id] = self._append(token_id, IN_PROMPT)
        self._generated: dict[int, int] = {}  # as `_at`, which copies share: word of the count
        self._is_shared = False

    def __len__(self) -> int:
        return len(self.words) // EDIT_WORDS

    def copy(self) -> LogitEdits:
        """The same for another choice of the request."""
        other = copy(self)
        other._generated = dict(self._generated)
        self._is_shared = other._is_shared = True
        return other

    def count(self, token_id: int) -> None:
        """A token was generated."""
        if not self.counts:
            return
        if self._is_shared:
            self.words, self._is_shared = self.words[:], False
        at = self._at.get(token_id) or self._generated.get(token_id)
        if at is not None:
            self.words[at] += 1
        else:
            self._generated[token_id] = self._append(token_id, 1)

    def _append(self, token_id: int, count: int) -> int:
        """An entry without a bias; returns the word of its count."""
        self.words.extend((token_id, 0, count))
        return len(self.words) - 1
