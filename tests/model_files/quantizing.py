"""Quantizes a `Model` to 4 bits, once: every file form then stores the same values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from model_files.model import (
    Affine4,
    Array,
    Load,
    Model,
    Plain,
    Stored,
    Symmetric4,
    round_bf16,
    round_f16,
)

Round = Callable[[Array], Array]


def symmetric4(values: Array, group: int = 32, rounded: Round = round_f16) -> Symmetric4:
    """Quantizes as mlc-llm does: the largest value of a group gets the code 0 or 14."""
    rows, cols = values.shape
    groups = rounded(values).reshape(rows, cols // group, group)
    scales = rounded(np.abs(groups).max(axis=2) / 7)
    divisors = np.where(scales == 0, 1, scales)[..., None]
    codes = np.clip(np.round(groups / divisors + 7), 0, 14).astype(np.uint8)
    return Symmetric4(codes.reshape(rows, cols), scales)


def affine4(values: Array, group: int = 64, rounded: Round = round_f16) -> Affine4:
    """Quantizes the range of each group, as MLX does."""
    rows, cols = values.shape
    groups = values.reshape(rows, cols // group, group)
    low, high = groups.min(axis=2), groups.max(axis=2)
    scales, minimums = rounded((high - low) / 15), rounded(low)
    divisors = np.where(scales == 0, 1, scales)[..., None]
    codes = np.clip(np.round((groups - minimums[..., None]) / divisors), 0, 15).astype(np.uint8)
    return Affine4(codes.reshape(rows, cols), scales, minimums)


def quantized(
    model: Model,
    quantize: Callable[[Array], Stored],
    rounded: Round = round_f16,
    keep: tuple[str, ...] = (),
) -> Model:
    """Returns `model` with its matrices quantized and its vectors rounded.

    keep: the beginnings of names of matrices that stay plain. Gemma's norms are rounded with their
    one, which is how GGUF and MLC store them.
    """

    def stored(name: str, load: Load) -> Load:
        def make() -> Stored:
            values = load().dequantized()
            if values.ndim == 1:
                one = float(model.norms_lack_one)
                return Plain(rounded(values + np.float32(one)) - np.float32(one))
            return Plain(rounded(values)) if name.startswith(keep) else quantize(values)

        return make

    return replace(model, tensors={n: stored(n, load) for n, load in model.tensors.items()})


def q4f16(model: Model) -> Model:
    """The values of MLC's q4f16_1, and of a Q4_0."""
    return quantized(model, symmetric4)


def q4f32(model: Model) -> Model:
    """The values of MLC's q4f32_1, whose scales and vectors are bfloat16 on disk."""
    return quantized(model, lambda values: symmetric4(values, rounded=round_bf16), round_bf16)


def mlx4(model: Model, group: int = 64, rounded: Round = round_f16) -> Model:
    """The values of MLX's affine 4 bits, and of a Q4_1."""
    return quantized(model, lambda values: affine4(values, group, rounded), rounded)


def w4a16(model: Model, group: int = 32, rounded: Round = round_f16) -> Model:
    """The values of compressed-tensors' symmetric W4A16, which keeps embedding and head."""
    return quantized(
        model,
        lambda values: symmetric4(values, group, rounded),
        rounded,
        keep=("model.embed_tokens", "lm_head"),
    )


def rounded_to(model: Model, rounded: Round) -> Model:
    """Returns `model` with every value rounded."""
    return quantized(model, lambda values: Plain(rounded(values)), rounded)
