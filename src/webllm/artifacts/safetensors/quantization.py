"""Reads the 4-bit kinds of safetensors that webllm's storage types hold exactly.

MLX (`mlx_lm`, mode affine): `name.weight` has codes, `name.scales` and `name.biases` a scale and a
minimum for each group of columns. compressed-tensors (pack-quantized, symmetric):
`name.weight_packed` has the weights plus 8, `name.weight_scale` a scale for each group. Codes are
eight to a 32-bit word, the first one in the lowest bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from webllm.artifacts.checkpoint import Plane, StorageType, TensorInfo
from webllm.errors import CheckpointError, UnsupportedModelError

_CODES_PER_WORD = 8
_WAY_OUT = "take a copy in F16 or BF16, a GGUF file or MLC's form"

_AFFINE = {
    (64, "F16"): StorageType.AFFINE4,
    (64, "BF16"): StorageType.AFFINE4_BF16,
    (32, "F16"): StorageType.AFFINE4_32,
    (32, "BF16"): StorageType.AFFINE4_32_BF16,
}
_SYMMETRIC = {
    (128, "F16"): StorageType.GROUP4,
    (128, "BF16"): StorageType.GROUP4_BF16,
    (64, "F16"): StorageType.GROUP4_64,
    (64, "BF16"): StorageType.GROUP4_64_BF16,
    (32, "F16"): StorageType.GROUP4_32,
    (32, "BF16"): StorageType.GROUP4_32_BF16,
}


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor as a safetensors file describes it."""

    name: str
    dtype: str  # the format's name: F16, U32, …
    shape: tuple[int, ...]
    plane: Plane


@dataclass(frozen=True, slots=True)
class Quantization:
    """The names of the parts of a quantized matrix, and its storage types by group and scale."""

    codes: str  # suffix of a matrix of 32-bit words
    others: tuple[str, ...]  # suffixes of its scales and minimums
    dropped: tuple[str, ...]  # suffixes of what only repeats the shape
    types: Mapping[tuple[int, str], StorageType]

    def combine(self, stored: dict[str, Stored]) -> dict[str, TensorInfo]:
        """Takes the parts of quantized matrices out of `stored`; returns the matrices.

        Raises CheckpointError for parts that do not fit, UnsupportedModelError for another group.
        """
        found = {}
        for name in [each for each in stored if each.endswith(self.codes)]:
            stem = name.removesuffix(self.codes)
            names = [stem + suffix for suffix in self.others]
            if stored[name].dtype not in ("U32", "I32"):
                continue  # not quantized
            missing = [each for each in names if each not in stored]
            if missing:
                raise CheckpointError(f"{name} has no {missing[0]}")
            parts = [stored.pop(each) for each in (name, *names)]
            for suffix in self.dropped:
                stored.pop(stem + suffix, None)
            found[f"{stem}.weight"] = self._matrix(f"{stem}.weight", parts)
        return found

    def _matrix(self, name: str, parts: list[Stored]) -> TensorInfo:
        codes, *others = parts
        if any(len(part.shape) != 2 or part.shape[0] != codes.shape[0] for part in parts):
            shapes = ", ".join(f"{part.name} {list(part.shape)}" for part in parts)
            raise CheckpointError(f"the parts of {name} do not fit together: {shapes}")
        cols, num_groups = codes.shape[1] * _CODES_PER_WORD, others[0].shape[1]
        group = cols // num_groups
        kinds = {part.dtype for part in others}
        storage = self.types.get((group, kinds.pop())) if len(kinds) == 1 else None
        if storage is None or group * num_groups != cols:
            scales = ", ".join(f"{list(part.shape)} of {part.dtype}" for part in others)
            raise UnsupportedModelError(
                f"{name} has {cols} columns and scales {scales}; webllm reads groups of "
                f"{sorted({size for size, _ in self.types})} with F16 or BF16: {_WAY_OUT}"
            )
        planes = tuple(part.plane for part in parts)
        return TensorInfo(name, (codes.shape[0], cols), storage, planes)


_MLX = Quantization(".weight", (".scales", ".biases"), (), _AFFINE)
_COMPRESSED = Quantization(".weight_packed", (".weight_scale",), (".weight_shape",), _SYMMETRIC)


def quantization_of(config: dict[str, Any]) -> Quantization | None:
    """Takes the quantization out of a config.json; None for plain weights.

    Raises UnsupportedModelError, with its name, for one that is not read.
    """
    mlx, other = config.pop("quantization", None), config.pop("quantization_config", None)
    settings = mlx or other
    if not settings:
        return None
    if not isinstance(settings, dict):
        raise CheckpointError(f"quantization_config of config.json is {settings!r}, not an object")
    if settings.get("quant_method") == "compressed-tensors":
        _require(_is_packed_symmetric(settings), settings, "compressed-tensors")
        return _COMPRESSED
    if mlx or ("quant_method" not in settings and "group_size" in settings):
        affine = settings.get("mode", "affine") == "affine" and settings.get("bits") == 4
        _require(affine, settings, "MLX")
        return _MLX
    _require(False, settings, str(settings.get("quant_method")))
    return None


def _is_packed_symmetric(settings: Mapping[str, Any]) -> bool:
    groups = settings.get("config_groups", {})
    if settings.get("format") != "pack-quantized" or not isinstance(groups, dict) or not groups:
        return False
    return all(_is_symmetric4(each) for each in groups.values())


def _is_symmetric4(group: Any) -> bool:
    weights = group.get("weights") if isinstance(group, dict) else None
    if not isinstance(weights, dict) or group.get("input_activations"):
        return False
    is_4_bit = weights.get("num_bits") == 4 and weights.get("type", "int") == "int"
    return is_4_bit and weights.get("symmetric") is True and not weights.get("actorder")


def _require(holds: bool, settings: Mapping[str, Any], kind: str) -> None:
    if not holds:
        raise UnsupportedModelError(
            f"the weights are quantized as {kind} ({str(dict(settings))[:160]}); of quantized "
            "safetensors webllm reads MLX's affine 4 bits and compressed-tensors' symmetric 4 bits "
            f"without act-order: {_WAY_OUT}"
        )
