"""Byte-pair encoding of one word: its characters merge, and the pieces become token ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from webllm.errors import CheckpointError
from webllm.text.bpe_merge import Rank, merge
from webllm.text.steps import Steps, collect


@dataclass(frozen=True, slots=True)
class UnknownChars:
    """What becomes of characters without a token of their own.

    They become the tokens of their bytes if `byte_ids` has these, else `token_id`, else nothing.
    A run of them becomes one token if `is_fused`.
    """

    byte_ids: Mapping[int, int] = field(default_factory=dict)
    token_id: int | None = None
    is_fused: bool = True


class BpeModel:
    """Encodes words with a vocabulary and the ranks of its merges.

    `ids` has every token that text may become. With `ignore_merges` a word that is in the
    vocabulary becomes that token without merging.
    """

    def __init__(
        self,
        ids: Mapping[str, int],
        rank: Rank,
        unknown: UnknownChars | None = None,
        *,
        ignore_merges: bool = False,
    ) -> None:
        self._ids = ids
        self._rank = rank
        self._unknown = unknown or UnknownChars()
        self._ignore_merges = ignore_merges

    def encode(self, word: str) -> Steps[list[int]]:
        """Raises CheckpointError if a merge makes a piece that is not a token."""
        if self._ignore_merges and word in self._ids:
            return [self._ids[word]]
        pieces = yield from merge(list(word), self._rank)
        return (yield from collect(self._token_ids(pieces)))

    def _token_ids(self, pieces: Iterable[str]) -> Iterator[int]:
        unknown = self._unknown
        was_unknown = False
        for piece in pieces:
            token_id = self._ids.get(piece)
            if token_id is not None:
                yield token_id
            elif len(piece) > 1:
                raise CheckpointError(
                    f"the tokenizer data is malformed: {piece!r} is merged but is not a token"
                )
            elif unknown.byte_ids:
                yield from (unknown.byte_ids[byte] for byte in piece.encode())
            elif unknown.token_id is not None and not (was_unknown and unknown.is_fused):
                yield unknown.token_id
            was_unknown = token_id is None


class MergeRanks:
    """The rank of each merge, whose two pieces are written with a space between them."""

    def __init__(self, merges: Iterable[str]) -> None:
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}

    def __call__(self, left: str, right: str) -> int | None:
        return self._ranks.get(f"{left} {right}")
