"""Byte-level BPE ("gpt2" in GGUF) without a library, for hosts that have none.

The ids are those of the `tokenizers` library. On usual text, whose words repeat, it is about as
fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from unicodedata import normalize

from webllm.errors import CheckpointError
from webllm.text.bpe_merge import merge
from webllm.text.pre_tokenizers import PreTokenizer
from webllm.text.steps import Steps, collect, finish
from webllm.text.vocabulary import byte_level_alphabet
from webllm.text.word_splitter import WordSplitter

# Words up to this many characters are remembered, and so many of them.
_WORD_CHARS = 40
_NUM_WORDS = 20_000
_STEP_CHARS = 256


class ByteLevelBpe:
    """`ids` has every token that text may become; `merges` are pairs with a space between, the
    first of which goes first.
    """

    def __init__(self, ids: Mapping[str, int], merges: Iterable[str], pre: PreTokenizer) -> None:
        self._ids = ids
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._pre = pre
        self._split = WordSplitter(pre.patterns).split
        self._alphabet = {byte: char for char, byte in byte_level_alphabet().items()}
        self._encode_word = lru_cache(_NUM_WORDS)(self._merge_word)

    def encode(self, text: str) -> Steps[list[int]]:
        token_ids: list[int] = []
        num_chars = 0
        for word in self._split(normalize("NFC", text) if self._pre.nfc else text):
            if len(word) <= _WORD_CHARS:
                token_ids += self._encode_word(word)
            else:
                token_ids += yield from self._merge(word)
            num_chars += len(word)
            if num_chars > _STEP_CHARS:
                num_chars = 0
                yield
        return token_ids

    def _merge_word(self, word: str) -> tuple[int, ...]:
        return tuple(finish(self._merge(word)))

    def _merge(self, word: str) -> Steps[list[int]]:
        chars = word.encode().decode("latin-1").translate(self._alphabet)
        if self._pre.ignore_merges and chars in self._ids:
            return [self._ids[chars]]
        pieces = yield from merge(list(chars), self._rank)
        return (yield from collect(self._token_ids(pieces)))

    def _rank(self, left: str, right: str) -> int | None:
        return self._ranks.get(f"{left} {right}")

    def _token_ids(self, pieces: Iterable[str]) -> Iterator[int]:
        for piece in pieces:
            if piece in self._ids:
                yield self._ids[piece]
            elif len(piece) > 1:
                raise CheckpointError(
                    f"the tokenizer data is malformed: {piece!r} is merged but is no token"
                )
