"""A model between two file forms: Hugging Face's names and conventions, values in float32.

Readers (`gguf_reader`, `made_up`) make a `Model`; writers (`gguf_writer`, `mlc_writer`,
`safetensors_writer`) store one. Numpy alone does the arithmetic, nothing of webllm takes part, so
that tests of webllm's readers compare them with something else. Weights are made one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Plain:
    """Values as they are; a writer chooses their type."""

    values: Array  # float32, of any shape

    def dequantized(self) -> Array:
        return self.values


@dataclass(frozen=True)
class Symmetric4:
    """Codes of 4 bits around 7: (code - 7) * scale, as MLC's q4f16_1 has them."""

    codes: Array  # uint8 0..14, [rows, cols]
    scales: Array  # float32 that are float16 too, [rows, cols / group]

    @property
    def group(self) -> int:
        return int(self.codes.shape[1] // self.scales.shape[1])

    def dequantized(self) -> Array:
        scales: Array = np.repeat(self.scales, self.group, axis=1)
        values: Array = (self.codes.astype(np.float32) - 7) * scales
        return values


@dataclass(frozen=True)
class Affine4:
    """Codes of 4 bits above a minimum: code * scale + minimum, as MLX has them."""

    codes: Array  # uint8 0..15, [rows, cols]
    scales: Array  # float32 that are float16 too, [rows, cols / group]
    minimums: Array  # the same

    @property
    def group(self) -> int:
        return int(self.codes.shape[1] // self.scales.shape[1])

    def dequantized(self) -> Array:
        scales, minimums = (np.repeat(x, self.group, axis=1) for x in (self.scales, self.minimums))
        values: Array = self.codes.astype(np.float32) * scales + minimums
        return values


Stored = Plain | Symmetric4 | Affine4
Load = Callable[[], Stored]


def rearranged(stored: Stored, change: Callable[[Array], Array]) -> Stored:
    """Returns `stored` with its rows changed: `change` is applied to each array."""
    return type(stored)(*map(change, vars(stored).values()))


def joined(parts: list[Stored]) -> Stored:
    """Returns the rows of all parts as one tensor; all are of one kind."""
    [kind] = {type(part) for part in parts}
    arrays = zip(*(vars(part).values() for part in parts), strict=True)
    return kind(*map(np.concatenate, arrays))


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as GGUF describes it: its tokens, and either merges or scores."""

    tokens: list[str]
    types: list[int]  # GGUF's: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
    merges: list[str] | None  # "left right", of a byte-level BPE
    scores: list[float] | None  # of SentencePiece
    pre: str  # name of the word pattern
    ids: Mapping[str, int]  # "bos", "eos", "unknown", "padding"
    add_bos: bool = False
    add_space_prefix: bool = False
    chat_template: str | None = None

    @property
    def num_active(self) -> int:
        """The tokens without those that only pad the embedding."""
        count = len(self.tokens)
        while count and self.types[count - 1] == 5 and self.tokens[count - 1].startswith("[PAD"):
            count -= 1
        return count


@dataclass(frozen=True)
class Model:
    """A model in Hugging Face's names; `tensors` make their values when they are called."""

    config: dict[str, Any]  # config.json as transformers 4 writes it
    tensors: Mapping[str, Load]  # in any order
    vocabulary: Vocabulary
    generation: dict[str, Any] = field(default_factory=dict)  # generation_config.json

    @property
    def model_type(self) -> str:
        return str(self.config["model_type"])

    @property
    def norms_lack_one(self) -> bool:
        """Whether transformers multiplies by 1 + weight; GGUF and MLC store the sum."""
        return self.model_type == "gemma3_text"


def is_norm(name: str) -> bool:
    return name.endswith("norm.weight")


def round_bf16(values: Array) -> Array:
    """Returns the nearest bfloat16 values, ties to even, as float32."""
    bits = values.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return rounded.astype(np.uint32).view(np.float32)


def bf16_bytes(values: Array) -> Array:
    """Returns the nearest bfloat16 values as uint16."""
    return (round_bf16(values).view(np.uint32) >> 16).astype("<u2")


def round_f16(values: Array) -> Array:
    return values.astype(np.float16).astype(np.float32)


def stack_words(codes: Array) -> Array:
    """Packs codes of 4 bits into uint32, the first in the lowest bits: [rows, cols / 8]."""
    rows, cols = codes.shape
    nibbles = codes.reshape(rows, cols // 8, 8).astype(np.uint32)
    shifted = nibbles << np.arange(0, 32, 4, dtype=np.uint32)
    words: Array = np.bitwise_or.reduce(shifted, axis=2).astype("<u4")
    return words
