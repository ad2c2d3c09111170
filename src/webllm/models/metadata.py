"""Reads GGUF metadata with a type: every value of a file is checked before it is used."""

from __future__ import annotations

from collections.abc import Mapping

from webllm.errors import CheckpointError

MAX_HEAD_DIM = 1024  # more than any device supports; bounds the work before shapes are checked
_SMALLEST, _LARGEST = 1e-37, 1e37  # kernels compute in f32


class Metadata:
    """The keys of one architecture: `Metadata(m, "llama").integer("block_count")`.

    Every read raises CheckpointError if the value is missing without a default, or not of its type
    and range.
    """

    def __init__(self, values: Mapping[str, object], architecture: str) -> None:
        self.values = values
        self.architecture = architecture

    def integer(
        self, key: str, default: int | None = None, *, low: int = 1, high: int = (1 << 31) - 1
    ) -> int:
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise CheckpointError(
                f"{self._name(key)} must be a whole number from {low} to {high}, it is {value!r}"
            )
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._value(key, default)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not _SMALLEST <= value <= _LARGEST
        ):
            raise CheckpointError(f"{self._name(key)} must be a positive number, it is {value!r}")
        return float(value)

    def text(self, key: str, default: str) -> str:
        value = self._value(key, default)
        if not isinstance(value, str):
            raise CheckpointError(f"{self._name(key)} must be a string, it is {value!r}")
        return value

    def _value(self, key: str, default: object) -> object:
        value = self.values.get(self._name(key), default)
        if value is None:
            raise CheckpointError(f"the model file lacks {self._name(key)}")
        return value

    def _name(self, key: str) -> str:
        return f"{self.architecture}.{key}"
