"""Keeps control tokens in users' text apart from those of a template, for `tokenizer.json`."""

from __future__ import annotations

from typing import Protocol

from webllm.text.special_tokens import GUARD, SpecialTokens, with_guards
from webllm.text.steps import Steps


class PlainEncoder(Protocol):
    """Encodes text without guards."""

    def encode(
        self, text: str, *, parse_special: bool, add_special: bool, is_start: bool = True
    ) -> Steps[list[int]]:
        """`is_start`: nothing comes before `text`, so that a space may be put before it."""


class GuardedEncoder:
    """An `Encoder` made of a `PlainEncoder` and the control tokens, `special`, that it knows."""

    def __init__(self, plain: PlainEncoder, special: SpecialTokens) -> None:
        self._plain = plain
        self._special = special

    def guard(self, text: str) -> Steps[str]:
        return with_guards(text, self._special.starts(text))

    def encode(self, text: str, *, parse_special: bool, add_special: bool) -> Steps[list[int]]:
        if parse_special and GUARD in text:
            return self._encode_guarded(text)
        return self._plain.encode(text, parse_special=parse_special, add_special=add_special)

    def _encode_guarded(self, text: str) -> Steps[list[int]]:
        token_ids: list[int] = []
        is_start = True
        for part in self._special.split(text):
            yield
            if isinstance(part, int):
                token_ids.append(part)
            elif part is not None:
                token_ids += yield from self._plain.encode(
                    part.replace(GUARD, ""),
                    parse_special=False,
                    add_special=False,
                    is_start=is_start,
                )
            is_start = is_start and part is None
        return token_ids
