"""What every tokenizer offers, and the one class that offers it.

A tokenizer is a `Vocabulary` (ids to bytes, needs no library) joined to an `Encoder` (text to ids,
which differs by model family and host). It knows nothing of chat templates or of models.
"""

from collections.abc import Iterable
from typing import Protocol

from webllm.text.special_tokens import GUARD
from webllm.text.vocabulary import Vocabulary


class Tokenizer(Protocol):
    """Text to token ids and back."""

    @property
    def vocab_size(self) -> int:
        """Number of token ids; the model's logits may have more rows (padding)."""

    @property
    def bos_id(self) -> int | None: ...

    @property
    def eos_ids(self) -> frozenset[int]:
        """Every token that ends a generation: end of text, of turn, of message."""

    @property
    def special_ids(self) -> frozenset[int]:
        """Control tokens: they stand for no text."""

    @property
    def add_space_prefix(self) -> bool:
        """Whether `encode` puts a space before the text, which `decode` takes away again."""

    def encode(
        self, text: str, *, parse_special: bool = False, add_special: bool = True
    ) -> list[int]:
        """Token ids of `text`.

        `parse_special` lets control tokens written in `text` become those tokens: only for text
        that a caller vouches for, never for text a user typed. `add_special` adds BOS and EOS as
        the model wants. Unpaired surrogates are read as U+FFFD.
        """

    def guard(self, text: str) -> str:
        """`text`, marked where it spells a control token, so that it stays text in a prompt.

        What spells none comes back as it is.
        """

    def encode_prompt(self, prompt: str) -> list[int]:
        """Token ids of a rendered chat template, which writes BOS and control tokens itself; what
        was put in through `guard` becomes the tokens of ordinary text.
        """

    def decode(self, token_ids: Iterable[int], *, skip_special: bool = True) -> str:
        """Text of `token_ids`; invalid UTF-8 becomes U+FFFD, unknown ids become nothing."""

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes one token stands for; b"" for control tokens and ids out of range."""

    def token_id(self, text: str) -> int | None:
        """The id of the token spelled `text` in the vocabulary (`"Ġthe"`, `"<|im_end|>"`)."""


class Encoder(Protocol):
    """The half of a tokenizer that needs a library or an algorithm: text to ids."""

    def encode(self, text: str, *, parse_special: bool, add_special: bool) -> list[int]:
        """With `parse_special`, heeds guards and takes them out."""

    def guard(self, text: str) -> str: ...


class ModelTokenizer:
    """The `Tokenizer` of a model file."""

    def __init__(self, vocabulary: Vocabulary, encoder: Encoder) -> None:
        self._vocabulary = vocabulary
        self._encoder = encoder
        self.vocab_size = len(vocabulary.tokens)
        self.bos_id = vocabulary.bos_id
        self.eos_ids = vocabulary.eos_ids
        self.special_ids = vocabulary.special_ids
        self.add_space_prefix = vocabulary.add_space_prefix
        self.token_bytes = vocabulary.token_bytes
        self.token_id = vocabulary.token_id
        self.decode = vocabulary.decode

    def encode(
        self, text: str, *, parse_special: bool = False, add_special: bool = True
    ) -> list[int]:
        return self._encoder.encode(
            _well_formed(text), parse_special=parse_special, add_special=add_special
        )

    def guard(self, text: str) -> str:
        return self._encoder.guard(_well_formed(text))

    def encode_prompt(self, prompt: str) -> list[int]:
        text = GUARD.join(map(_well_formed, prompt.split(GUARD)))
        return self._encoder.encode(text, parse_special=True, add_special=False)


def _well_formed(text: str) -> str:
    """`text` with unpaired surrogates, which JSON can carry and UTF-8 cannot, as U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
