"""What every tokenizer offers, and the one class that offers it.

A tokenizer is a `Vocabulary` (ids to bytes, needs no library) joined to an `Encoder` (text to ids,
which differs by model family and host). It knows nothing of chat templates or of models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from webllm.text.special_tokens import GUARD
from webllm.text.steps import Steps, finish
from webllm.text.vocabulary import Vocabulary

_REPAIRED_CHARS = 1 << 14  # at once


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

    def encode_steps(
        self, text: str, *, parse_special: bool = False, add_special: bool = True
    ) -> Steps[list[int]]:
        """As `encode`, and so are `guard_steps` and `encode_prompt_steps` to theirs."""

    def guard_steps(self, text: str) -> Steps[str]: ...

    def encode_prompt_steps(self, prompt: str) -> Steps[list[int]]: ...

    @property
    def chars_per_token(self) -> int | None:
        """Characters of text that become one token at most; None: text may become nothing."""

    def least_tokens(self, text: str) -> int:
        """`text`, a prompt or not, becomes this many tokens or more; found at no cost."""

    def decode(self, token_ids: Iterable[int], *, skip_special: bool = True) -> str:
        """Text of `token_ids`; invalid UTF-8 becomes U+FFFD, unknown ids become nothing."""

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes one token stands for; b"" for control tokens and ids out of range."""

    def token_id(self, text: str) -> int | None:
        """The id of the token spelled `text` in the vocabulary (`"Ġthe"`, `"<|im_end|>"`)."""


class Encoder(Protocol):
    """The half of a tokenizer that needs a library or an algorithm: text to ids."""

    def encode(self, text: str, *, parse_special: bool, add_special: bool) -> Steps[list[int]]:
        """With `parse_special`, heeds guards and takes them out."""

    def guard(self, text: str) -> Steps[str]: ...


@dataclass(frozen=True, slots=True)
class Coverage:
    """What an encoder makes tokens of: all characters but those `dropped`, after a normalization
    that makes one of `num_composed` at most."""

    num_composed: int = 1
    dropped: str = ""


class ModelTokenizer:
    """The `Tokenizer` of a model file; `coverage` is None where text may become nothing."""

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

    def least_tokens(self, text: str) -> int:
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
    """`text` with unpaired surrogates, which JSON can carry and UTF-8 cannot, as U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join(map(_repaired, _slices(text)))
    return text


def _repaired(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _slices(text: str) -> Iterator[str]:
    """Of a size that keeps other threads waiting for a moment only; no pair is cut."""
    start = 0
    while start < len(text):
        end = start + _REPAIRED_CHARS
        if "\ud800" <= text[end - 1 : end] < "\udc00" <= text[end : end + 1] < "\ue000":
            end += 1
        yield text[start:end]
        start = end
