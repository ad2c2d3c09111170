"""Rotary frequencies (arXiv:2104.09864), scaled as the llama, qwen and gemma families do.

linear: arXiv:2306.15595. yarn: arXiv:2309.00071. llama3: the file stores a factor for each
frequency in the tensor `rope_freqs`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from webllm.errors import CheckpointError, UnsupportedModelError
from webllm.models.metadata import Metadata


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """The scaling of frequencies for a context longer than the pretraining's."""

    kind: str = "none"  # none, linear or yarn
    factor: float = 1.0
    original_positions: int = 0  # context length before scaling (yarn)

    @classmethod
    def of(cls, metadata: Metadata) -> RopeScaling:
        """Reads the scaling. Raises UnsupportedModelError for another kind, CheckpointError."""
        kind = metadata.text("rope.scaling.type", "none")
        factor = metadata.number("rope.scaling.factor", 1.0)
        if kind not in ("none", "linear", "yarn"):
            raise UnsupportedModelError(f"rope scaling {kind!r} is not one of none, linear, yarn")
        original = metadata.integer("rope.scaling.original_context_length", 0, low=0)
        if kind == "yarn" and not original:
            original = max(int(metadata.integer("context_length") / factor), 1)
        return cls(kind, factor, original)


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
    if scaling.kind == "linear":
        return Frequencies(tuple(f / scaling.factor for f in base))
    if scaling.kind == "yarn":
        return _yarn(base, theta, scaling)
    return Frequencies(tuple(base))


def _yarn(base: list[float], theta: float, scaling: RopeScaling) -> Frequencies:
    """Scales by YaRN, with its paper's beta_fast = 32 and beta_slow = 1 turns.

    Pairs that turn faster within the original context keep their frequency, slower ones are
    interpolated, and a linear ramp lies between them.
    """
    dim = 2 * len(base)

    def pair_of(turns: float) -> float:
        """Returns the pair that turns this often within the original context."""
        wavelength = scaling.original_positions / (turns * 2 * math.pi)
        return dim * math.log(wavelength) / (2 * math.log(theta))

    low = max(math.floor(pair_of(32)), 0)
    high = min(math.ceil(pair_of(1)), dim - 1)
    inv_freq = []
    for i, f in enumerate(base):
        interpolated = min(max((i - low) / max(high - low, 0.001), 0.0), 1.0)
        inv_freq.append(f * (1 - interpolated) + f / scaling.factor * interpolated)
    return Frequencies(tuple(inv_freq), 0.1 * math.log(scaling.factor) + 1.0)
