"""Rotary frequencies with the scaling kinds of the llama, qwen and gemma families.

linear: arXiv:2306.15595. yarn: arXiv:2309.00071. llama3: factors stored in the file as
`rope_freqs`, one for each frequency.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from webllm.errors import CheckpointError, UnsupportedModelError
from webllm.models.metadata import Metadata


@dataclass(frozen=True, slots=True)
class RopeScaling:
    kind: str = "none"  # none, linear, yarn
    factor: float = 1.0
    original_positions: int = 0  # context length of the training before scaling (yarn)

    @classmethod
    def of(cls, metadata: Metadata) -> RopeScaling:
        kind = metadata.text("rope.scaling.type", "none")
        factor = metadata.number("rope.scaling.factor", 1.0)
        if kind not in ("none", "linear", "yarn"):
            raise UnsupportedModelError(f"rope scaling {kind!r} is not one of none, linear, yarn")
        original = metadata.integer("rope.scaling.original_context_length", 0, least=0)
        if kind == "yarn" and not original:
            original = max(int(metadata.integer("context_length") / factor), 1)
        return cls(kind, factor, original)


@dataclass(frozen=True, slots=True)
class Frequencies:
    """inv_freq: radians a position, [head_dim / 2]; `scale` multiplies q and k."""

    inv_freq: tuple[float, ...]
    scale: float = 1.0


def frequencies(
    head_dim: int,
    theta: float,
    scaling: RopeScaling,
    factors: Sequence[float] | None = None,
) -> Frequencies:
    """`factors` divide the frequencies one by one (llama3). Raises CheckpointError."""
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
    """Fast rotations stay, slow ones are interpolated, a ramp between 32 and 1 turns."""
    dim = 2 * len(base)

    def pair_of(turns: float) -> float:
        """The pair that turns so often within the original context."""
        wavelength = scaling.original_positions / (turns * 2 * math.pi)
        return dim * math.log(wavelength) / (2 * math.log(theta))

    low = max(math.floor(pair_of(32)), 0)
    high = min(math.ceil(pair_of(1)), dim - 1)
    inv_freq = []
    for i, f in enumerate(base):
        interpolated = min(max((i - low) / max(high - low, 0.001), 0.0), 1.0)
        inv_freq.append(f * (1 - interpolated) + f / scaling.factor * interpolated)
    return Frequencies(tuple(inv_freq), 0.1 * math.log(scaling.factor) + 1.0)
