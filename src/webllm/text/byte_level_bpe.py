"""Byte-level BPE ("gpt2" in GGUF) for hosts without the `tokenizers` library.

It gives the library's ids. On usual text, whose words repeat, it is about as fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from unicodedata import normalize

from webllm.errors import CheckpointError
from webllm.text.bpe_merge import WordEncoder, merge
from webllm.text.pre_tokenizers import PreTokenizer
from webllm.text.steps import Steps, collect
from webllm.text.vocabulary import byte_level_alphabet
from webllm.text.word_splitter import WordSplitter


class ByteLevelBpe:
    """Encodes text with a vocabulary and its merges.

    `ids` has every token that text may become. `merges` are pairs with a space between, in order of
    rank.
    """

    def __init__(self, ids: Mapping[str, int], merges: Iterable[str], pre: PreTokenizer) -> None:
        self._ids = ids
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._pre = pre
        self._split = WordSplitter(pre.patterns).split
        self._alphabet = {byte: char for char, byte in byte_level_alphabet().items()}
        self._words = WordEncoder(self._merge)

    def encode(self, text: str) -> Steps[list[int]]:
        return self._words.encode(self._split(normalize("NFC", text) if self._pre.nfc else text))

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
                    f"the tokenizer data is malformed: {piece!r} is merged but is not a token"
                )
