"""Byte-level BPE ("gpt2" in GGUF) for hosts without the `tokenizers` library.

It gives the library's ids. On usual text, whose words repeat, it is about as fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from unicodedata import normalize

from webllm.text.bpe_merge import WordEncoder
from webllm.text.bpe_model import BpeModel, MergeRanks
from webllm.text.pre_tokenizers import PreTokenizer
from webllm.text.steps import Steps
from webllm.text.vocabulary import byte_level_alphabet
from webllm.text.word_splitter import WordSplitter


class ByteLevelBpe:
    """Encodes text with a vocabulary and its merges.

    `ids` has every token that text may become. `merges` are pairs with a space between, in order of
    rank.
    """

    def __init__(self, ids: Mapping[str, int], merges: Iterable[str], pre: PreTokenizer) -> None:
        self._model = BpeModel(ids, MergeRanks(merges), ignore_merges=pre.ignore_merges)
        self._nfc = pre.nfc
        self._split = WordSplitter(pre.patterns).split
        self._to_chars = bytes_to_chars()
        self._words = WordEncoder(self._encode_word)

    def encode(self, text: str) -> Steps[list[int]]:
        return self._words.encode(self._split(normalize("NFC", text) if self._nfc else text))

    def _encode_word(self, word: str) -> Steps[list[int]]:
        return self._model.encode(self._to_chars(word))


def bytes_to_chars() -> Callable[[str], str]:
    """Returns the function that writes the UTF-8 bytes of a text as GPT-2's characters."""
    alphabet = {byte: char for char, byte in byte_level_alphabet().items()}
    return lambda text: text.encode().decode("latin-1").translate(alphabet)
