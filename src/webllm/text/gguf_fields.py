"""Reads GGUF's `tokenizer.ggml.*` metadata, which comes from an untrusted file, with types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard, cast

from webllm.errors import CheckpointError

_PREFIX = "tokenizer.ggml."
_NO_TOKEN = 2**32 - 1  # written as a token id


class GgufFields:
    """The `tokenizer.ggml.*` fields; every method raises CheckpointError for a wrong type."""

    def __init__(self, metadata: Mapping[str, object]) -> None:
        self._metadata = metadata

    def text(self, name: str, default: str) -> str:
        value = self._value(name, default)
        if not isinstance(value, str):
            raise _wrong(name, "a string", value)
        return value

    def flag(self, name: str, default: bool) -> bool:
        """True or false, which some converters write as 1 or 0."""
        value = self._value(name, default)
        if not isinstance(value, int) or value not in (0, 1):
            raise _wrong(name, "true or false", value)
        return bool(value)

    def token_id(self, name: str, num_tokens: int, default: int | None = None) -> int | None:
        """A token id; None if it is outside the vocabulary, as -1 and 2**32 - 1 are."""
        return next(iter(self.token_ids(name, num_tokens, default)), None)

    def token_ids(self, name: str, num_tokens: int, default: int | None = None) -> list[int]:
        """One token id or an array of them, without those outside the vocabulary."""
        value = self._metadata.get(_PREFIX + name, default)
        values = value if _is_array(value) else [] if value is None else [value]
        token_ids = [each for each in values if isinstance(each, int)]
        if len(token_ids) < len(values):
            raise _wrong(name, "a token id", value)
        return [each for each in token_ids if 0 <= each < num_tokens]

    def is_beyond(self, name: str, num_tokens: int) -> bool:
        """Whether a token id is one that no vocabulary of `num_tokens` has, but is not "none"."""
        value = self._value(name, None)
        return isinstance(value, int) and num_tokens <= value < _NO_TOKEN

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

    def _value(self, name: str, default: object) -> object:
        """A single value, which some converters write as an array of one."""
        value = self._metadata.get(_PREFIX + name, default)
        return value[0] if _is_array(value) and len(value) == 1 else value

    def _array(self, name: str) -> Sequence[object]:
        value = self._metadata.get(_PREFIX + name)
        if not _is_array(value):
            raise _wrong(name, "an array", value)
        return value


def _is_array(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _checked_strings(name: str, values: Sequence[object]) -> Sequence[str]:
    if not set(map(type, values)) <= {str}:
        raise _wrong(name, "an array of strings", values)
    return cast("Sequence[str]", values)


def _wrong(name: str, expected: str, value: object) -> CheckpointError:
    if _is_array(value):
        value = list(value[:8])
    shown = repr(value)[:100]
    return CheckpointError(f"{_PREFIX}{name} must be {expected}; the file has {shown}")
