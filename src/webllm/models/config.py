"""Reads a model's configuration with types, and refuses by name what was not read."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from webllm.errors import CheckpointError, UnsupportedModelError

MAX_HEAD_DIM = 1024  # more than any device supports; bounds the work before shapes are checked
_SMALLEST, _LARGEST = 1e-37, 1e37  # kernels compute in f32

# Settings of training, of other programs, and of tokens and sampling, which `text/` and `engine/`
# read elsewhere. None changes what a model computes.
_NO_EFFECT = frozenset(
    {
        "_name_or_path",
        "architectures",
        "attention_dropout",
        "bos_token_id",
        "cache_implementation",
        "dtype",
        "eos_token_id",
        "initializer_range",
        "is_llama_config",
        "max_window_layers",  # of `use_sliding_window`, which is read
        "model_type",
        "pad_token_id",
        "pretraining_tp",
        "torch_dtype",
        "transformers.js_config",
        "transformers_version",
        "unsloth_fixed",
        "use_cache",
    }
)


class Config:
    """The configuration of a model in the names of Hugging Face's config.json.

    A value of None is as good as none. Every read raises CheckpointError if the value is missing
    without a default, or not of its type and range.
    """

    def __init__(self, values: Mapping[str, object], name: str = "") -> None:
        self._values, self._name = values, name
        self._unread = {key for key, value in values.items() if value} - _NO_EFFECT
        self._sections: list[Config] = []

    def integer(
        self, key: str, default: int | None = None, *, low: int = 1, high: int = (1 << 31) - 1
    ) -> int:
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise CheckpointError(
                f"{self._name}{key} must be a whole number from {low} to {high}, it is {value!r}"
            )
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._value(key, default)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not _SMALLEST <= value <= _LARGEST
        ):
            raise CheckpointError(f"{self._name}{key} must be a positive number, it is {value!r}")
        return float(value)

    def text(self, key: str, default: str) -> str:
        value = self._value(key, default)
        if not isinstance(value, str):
            raise CheckpointError(f"{self._name}{key} must be a string, it is {value!r}")
        return value

    def flag(self, key: str, *, default: bool = False) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise CheckpointError(f"{self._name}{key} must be true or false, it is {value!r}")
        return value

    def expect(self, key: str, *values: object) -> None:
        """Raises UnsupportedModelError unless the setting is absent or one of `values`."""
        found = self._value(key, values[0])
        if found not in values:
            known = " or ".join(map(repr, values))
            raise UnsupportedModelError(
                f"{self._name}{key} is {found!r}; webllm computes this architecture with {known}"
            )

    def skip(self, *keys: str) -> None:
        """Leaves settings unread that have no effect beside those that are read."""
        self._unread.difference_update(keys)

    def has(self, key: str) -> bool:
        return self._values.get(key) is not None

    def expect_layers(self, attention: Callable[[int], str]) -> None:
        """Checks `layer_types`, if there: `attention` says if a layer's is "full" or "sliding"."""
        kinds = self._value("layer_types", [])
        if not isinstance(kinds, list):
            raise CheckpointError(f"{self._name}layer_types must be a list, it is {kinds!r}")
        for layer, kind in enumerate(kinds):
            if kind != f"{attention(layer)}_attention":
                raise UnsupportedModelError(
                    f"layer {layer} is of type {kind!r} (layer_types); webllm computes it with "
                    f"{attention(layer)}_attention"
                )

    def section(self, key: str) -> Config:
        """Returns a configuration inside this one; an empty one if there is none."""
        value = self._value(key, {})
        if not isinstance(value, Mapping):
            raise CheckpointError(f"{self._name}{key} must be an object, it is {value!r}")
        section = Config(value, f"{self._name}{key}.")
        self._sections.append(section)
        return section

    def refuse_unread(self) -> None:
        """Raises UnsupportedModelError if a setting that is not off was not read."""
        for section in self._sections:
            section.refuse_unread()
        if self._unread:
            key = min(self._unread)
            experts = " (a mixture of experts)" if "expert" in key else ""
            raise UnsupportedModelError(
                f"the model sets {self._name}{key} to {str(self._values[key])[:80]}{experts}, "
                "which webllm does not compute for this architecture"
            )

    def _value(self, key: str, default: object) -> object:
        self._unread.discard(key)
        value = self._values.get(key)
        if value is None:
            value = default
        if value is None:
            raise CheckpointError(f"the model file lacks {self._name}{key}")
        return value
