"""The tokenizer's interface and its one implementation.

A tokenizer joins a `Vocabulary` (ids to bytes) and an `Encoder` (text to ids, which differs by
model family and host). It knows nothing of chat templates or models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from webllm.text.special_tokens import GUARD
from webllm.text.steps import Steps, finish
from webllm.text.vocabulary import Vocabulary, byte_level_alphabet

_REPAIRED_CHARS = 1 << 14  # repaired at once
_NFC_CHARS = 4  # most characters that NFC composes into one
_NEVER_COMPOSED = "".join(map(chr, [*range(0x20), 0x7F]))  # characters that NFC never makes
_UTF8_CONTINUATIONS = range(0x80, 0xC0)  # bytes; every non-ASCII character has one or more


class Tokenizer(Protocol):
    """Text to token ids and back."""

    @property
    def vocab_size(self) -> int:
        """Number of token ids; a model's logits may have more columns (padding)."""

    @property
    def bos_id(self) -> int | None: ...

    @property
    def eos_ids(self) -> frozenset[int]:
        """All tokens that end a generation: end of text, of turn, of message."""

    @property
    def special_ids(self) -> frozenset[int]:
        """Control tokens, which have no text."""

    @property
    def add_space_prefix(self) -> bool:
        """Whether `encode` adds a space before the text, which `decode` removes."""

    def encode(
        self, text: str, *, parse_special: bool = False, add_special: bool = True
    ) -> list[int]:
        """Returns the token ids of `text`.

        With `parse_special`, control tokens spelled in `text` become those tokens: never use it for
        text that a user wrote. `add_special` adds BOS and EOS if the model wants them. Unpaired
        surrogates are read as U+FFFD.
        """

    def guard(self, text: str) -> str:
        """Marks control tokens spelled in `text`, so that they stay text in a prompt.

        Text without any is returned unchanged.
        """

    def encode_prompt(self, prompt: str) -> list[int]:
        """Returns the token ids of a rendered chat template, which spells BOS and control tokens.

        Guarded text becomes the tokens of ordinary text.
        """

    def encode_steps(
        self, text: str, *, parse_special: bool = False, add_special: bool = True
    ) -> Steps[list[int]]:
        """`encode` in steps; likewise `guard_steps` and `encode_prompt_steps`."""

    def guard_steps(self, text: str) -> Steps[str]: ...

    def encode_prompt_steps(self, prompt: str) -> Steps[list[int]]: ...

    @property
    def chars_per_token(self) -> int | None:
        """The most characters that one token stands for; None if text may become no tokens."""

    def min_tokens(self, text: str) -> int:
        """Returns a cheap lower bound of the number of tokens in `text`, guarded or not."""

    def decode(self, token_ids: Iterable[int], *, skip_special: bool = True) -> str:
        """Returns the text of `token_ids`; invalid UTF-8 becomes U+FFFD, unknown ids nothing."""

    def token_bytes(self, token_id: int) -> bytes:
        """Returns the bytes of a token; b"" for control tokens and ids out of range."""

    def token_id(self, text: str) -> int | None:
        """Returns the id of the token that the vocabulary spells so (`"Ġthe"`, `"<|im_end|>"`)."""


class Encoder(Protocol):
    """The half of a tokenizer that turns text into ids."""

    def encode(self, text: str, *, parse_special: bool, add_special: bool) -> Steps[list[int]]:
        """Encodes in steps; with `parse_special` it respects guards and removes them."""

    def guard(self, text: str) -> Steps[str]: ...


@dataclass(frozen=True, slots=True)
class Coverage:
    """The characters that an encoder turns into tokens: all but those in `dropped`.

    Normalization composes at most `num_composed` characters into one.
    """

    num_composed: int = 1
    dropped: str = ""


def byte_level_coverage(tokens: Iterable[str], nfc: bool) -> Coverage | None:
    """Returns the coverage of a byte-level vocabulary; `tokens` has at least those of one byte.

    Bytes without a token are dropped. Often these are a few control characters. None: any text may
    become no token at all.
    """
    alphabet = byte_level_alphabet()
    found = {alphabet[token] for token in tokens if token in alphabet}
    if not found.issuperset(_UTF8_CONTINUATIONS):
        return None
    dropped = "".join(chr(byte) for byte in range(0x80) if byte not in found)
    if nfc and dropped.strip(_NEVER_COMPOSED):
        return None
    return Coverage(_NFC_CHARS if nfc else 1, dropped)


class ModelTokenizer:
    """The `Tokenizer` of a model file; `coverage` is None if any text may become no token."""

    def __init__(
        self, vocabulary: Vocabulary, encoder: Encoder, coverage: Coverage | None = None
    ) -> None:
        self._vocabulary = vocabulary
        self._encoder = encoder
        self._coverage = coverage
        self.vocab_size = len(vocabulary.tokens)
        self.bos_id = vocabulary.bos_id
        self.eos_ids = vocabulary.eos_ids
        self.special_ids = vocabulary.special_ids
        self.add_space_prefix = vocabulary.add_space_prefix
        self.token_bytes = vocabulary.token_bytes
        self.token_id = vocabulary.token_id
        self.decode = vocabulary.decode

    @cached_property
    def chars_per_token(self) -> int | None:
        if self._coverage is None:
            return None
        return self._coverage.num_composed * max(map(len, self._vocabulary.tokens), default=1)

    def min_tokens(self, text: str) -> int:
        if self._coverage is None or self.chars_per_token is None:
            return 0
        text = _well_formed(text.replace(GUARD, ""))
        num_dropped = sum(map(text.count, self._coverage.dropped))
        return (len(text) - num_dropped) // self.chars_per_token

    def encode_steps(
        self, text: str, *, parse_special: bool = False, add_special: bool = True
    ) -> Steps[list[int]]:
        return self._encoder.encode(
            _well_formed(text), parse_special=parse_special, add_special=add_special
        )

    def guard_steps(self, text: str) -> Steps[str]:
        return self._encoder.guard(_well_formed(text))

    def encode_prompt_steps(self, prompt: str) -> Steps[list[int]]:
        text = GUARD.join(map(_well_formed, prompt.split(GUARD)))
        return self._encoder.encode(text, parse_special=True, add_special=False)

    def encode(
        self, text: str, *, parse_special: bool = False, add_special: bool = True
    ) -> list[int]:
        return finish(self.encode_steps(text, parse_special=parse_special, add_special=add_special))

    def guard(self, text: str) -> str:
        return finish(self.guard_steps(text))

    def encode_prompt(self, prompt: str) -> list[int]:
        return finish(self.encode_prompt_steps(prompt))


def _well_formed(text: str) -> str:
    """Replaces unpaired surrogates, which JSON allows and UTF-8 does not, by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join(map(_repaired, _slices(text)))
    return text


def _repaired(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _slices(text: str) -> Iterator[str]:
    """Cuts `text` into slices, so that no thread holds the GIL for long; cuts no surrogate pair."""
    start = 0
    while start < len(text):
        end = start + _REPAIRED_CHARS
        if "\ud800" <= text[end - 1 : end] < "\udc00" <= text[end : end + 1] < "\ue000":
            end += 1
        yield text[start:end]
        start = end
