"""Reads GGUF's `tokenizer.ggml.*` metadata, which comes from an untrusted file, with types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from webllm.errors import CheckpointError

_PREFIX = "tokenizer.ggml."


class GgufFields:
    """The `tokenizer.ggml.*` fields; every method raises CheckpointError for a wrong type."""

    def __init__(self, metadata: Mapping[str, object]) -> None:
        self._metadata = metadata

    def text(self, name: str, default: str) -> str:
        value = self._metadata.get(_PREFIX + name, default)
        if not isinstance(value, str):
            raise _wrong(name, "a string", value)
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self._metadata.get(_PREFIX + name, default)
        if not isinstance(value, bool):
            raise _wrong(name, "true or false", value)
        return value

    def token_id(self, name: str, num_tokens: int, default: int | None = None) -> int | None:
        """A token id; None if it is outside the vocabulary, as -1 and 2**32 - 1 are."""
        value = self._metadata.get(_PREFIX + name, default)
        if value is not None and not isinstance(value, int):
            raise _wrong(name, "a token id", value)
        return value if value is not None and 0 <= value < num_tokens else None

    def strings(self, name: str) -> Sequence[str]:
        """A sequence of strings that may decode each one lazily, every time."""
        return _checked_strings(name, self._array(name))

    def string_list(self, name: str) -> list[str]:
        """A plain list of strings; use it when iterating more than once."""
        return cast("list[str]", _checked_strings(name, list(self._array(name))))

    def numbers(self, name: str, num_tokens: int) -> list[float]:
        """One number per token."""
        values = self._array(name)
        numbers = [value for value in values[:num_tokens] if isinstance(value, int | float)]
        if len(numbers) < num_tokens:
            raise _wrong(name, f"an array of {num_tokens} numbers", values)
        return numbers

    def has(self, name: str) -> bool:
        return _PREFIX + name in self._metadata

    def _array(self, name: str) -> Sequence[object]:
        value = self._metadata.get(_PREFIX + name)
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise _wrong(name, "an array", value)
        return value


def _checked_strings(name: str, values: Sequence[object]) -> Sequence[str]:
    if not set(map(type, values)) <= {str}:
        raise _wrong(name, "an array of strings", values)
    return cast("Sequence[str]", values)


def _wrong(name: str, expected: str, value: object) -> CheckpointError:
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        value = list(value[:8])
    shown = repr(value)[:100]
    return CheckpointError(f"{_PREFIX}{name} must be {expected}; the file has {shown}")
