"""Rotary frequencies (arXiv:2104.09864), scaled as the llama, qwen and gemma families do.

linear: arXiv:2306.15595. yarn: arXiv:2309.00071. llama3: transformers' `modeling_rope_utils`; a
GGUF file stores its factor for each frequency in the tensor `rope_freqs`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from webllm.errors import CheckpointError, UnsupportedModelError
from webllm.models.config import Config


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """The scaling of frequencies for a context longer than the pretraining's."""

    kind: str = "default"  # or linear, llama3, yarn
    factor: float = 1.0
    original_positions: int = 0  # context length before scaling (llama3, yarn)
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0  # llama3
    beta_fast: float = 32.0  # yarn: turns within the original context
    beta_slow: float = 1.0
    attention_factor: float | None = None  # yarn: multiplies q and k; None: its paper's
    attn_factor: float = 1.0  # GGUF: multiplies that, or q and k of another kind

    @classmethod
    def of(cls, config: Config) -> RopeScaling:
        """Reads `rope_scaling`. Raises UnsupportedModelError for another kind, CheckpointError."""
        scaling = config.section("rope_scaling")
        kind = scaling.text("rope_type", scaling.text("type", "default"))
        kind = "default" if kind == "none" else kind
        if kind not in ("default", "linear", "llama3", "yarn"):
            raise UnsupportedModelError(f"rope scaling {kind!r} is not one of linear, llama3, yarn")
        scaling.skip("type")
        factor = scaling.number("factor", 1.0)
        if factor != 1 and not (scaling.has("rope_type") or scaling.has("type")):
            raise UnsupportedModelError(f"rope_scaling has the factor {factor}, but no rope_type")
        original = scaling.integer("original_max_position_embeddings", 0, low=0)
        if kind in ("llama3", "yarn") and not original:
            original = max(int(config.integer("max_position_embeddings") / factor), 1)
        attn_factor = scaling.number("attn_factor", 1.0)
        if kind == "llama3":
            low, high = scaling.number("low_freq_factor"), scaling.number("high_freq_factor")
            return cls(kind, factor, original, low, high, attn_factor=attn_factor)
        if kind == "yarn":
            scaling.expect("truncate", True)
            scaling.expect("yarn_ext_factor", 1.0)
            return cls(
                kind,
                factor,
                original,
                beta_fast=scaling.number("beta_fast", 32.0),
                beta_slow=scaling.number("beta_slow", 1.0),
                attention_factor=_attention_factor(scaling, factor),
                attn_factor=attn_factor,
            )
        return cls(kind, factor, attn_factor=attn_factor)


def _attention_factor(scaling: Config, factor: float) -> float | None:
    """Returns the factor of q and k that the configuration gives, as transformers reads it."""
    if scaling.has("attention_factor"):
        return scaling.number("attention_factor")
    if scaling.has("mscale") and scaling.has("mscale_all_dim"):
        mscale, over = scaling.number("mscale"), scaling.number("mscale_all_dim")
        return _mscale(factor, mscale) / _mscale(factor, over)
    return None


def _mscale(factor: float, mscale: float = 1.0) -> float:
    """Returns YaRN's factor of q and k."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


@dataclass(frozen=True, slots=True)
class Frequencies:
    """The rotation of each pair of a head's dimensions."""

    inv_freq: tuple[float, ...]  # radians per position, [head_dim / 2]
    scale: float = 1.0  # multiplies q and k


def frequencies(
    head_dim: int,
    theta: float,
    scaling: RopeScaling,
    factors: Sequence[float] | None = None,
) -> Frequencies:
    """Returns theta ** (-2 i / head_dim) for each pair i, scaled.

    factors: [head_dim / 2], divide the frequencies (llama3). Raises CheckpointError for a base or
    factors that give no frequencies.
    """
    if theta <= 1:
        raise CheckpointError(f"the rotary base must be above 1, it is {theta}")
    base = [theta ** (-2 * i / head_dim) for i in range(head_dim // 2)]
    if factors is not None:
        if not all(0 < factor < math.inf for factor in factors):
            raise CheckpointError("rope_freqs.weight must hold positive numbers")
        base = [f / factor for f, factor in zip(base, factors, strict=True)]
    scale = scaling.attn_factor
    match scaling.kind:
        case "linear":
            return Frequencies(tuple(f / scaling.factor for f in base), scale)
        case "llama3":
            return Frequencies(tuple(_llama3(f, scaling) for f in base), scale)
        case "yarn":
            attention = scaling.attention_factor
            scale *= _mscale(scaling.factor) if attention is None else attention
            return Frequencies(_yarn(base, theta, scaling), scale)
    return Frequencies(tuple(base), scale)


def _llama3(frequency: float, scaling: RopeScaling) -> float:
    """Interpolates slow frequencies, keeps fast ones, and blends those between."""
    turns = scaling.original_positions * frequency / (2 * math.pi)  # within the original context
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = min(max((turns - low) / max(high - low, 0.001), 0.0), 1.0)
    return frequency * kept + frequency / scaling.factor * (1 - kept)


def _yarn(base: list[float], theta: float, scaling: RopeScaling) -> tuple[float, ...]:
    """Scales by YaRN.

    Pairs that turn faster within the original context keep their frequency, slower ones are
    interpolated, and a linear ramp lies between them.
    """
    dim = 2 * len(base)

    def pair_of(turns: float) -> float:
        """Returns the pair that turns this often within the original context."""
        wavelength = scaling.original_positions / (turns * 2 * math.pi)
        return dim * math.log(wavelength) / (2 * math.log(theta))

    low = max(math.floor(pair_of(scaling.beta_fast)), 0)
    high = min(math.ceil(pair_of(scaling.beta_slow)), dim - 1)
    inv_freq = []
    for i, f in enumerate(base):
        interpolated = min(max((i - low) / max(high - low, 0.001), 0.0), 1.0)
        inv_freq.append(f * (1 - interpolated) + f / scaling.factor * interpolated)
    return tuple(inv_freq)
