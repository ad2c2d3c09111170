"""Brings Hugging Face's `config.json` to one spelling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from webllm.errors import CheckpointError, UnsupportedModelError

# Architectures whose norms multiply by 1 + weight.
_PLUS_ONE = ("gemma", "gemma2", "gemma3_text")
_SAMPLING = ("temperature", "top_p", "repetition_penalty")


def config_from_json(document: Mapping[str, Any]) -> dict[str, object]:
    """Returns the configuration with `rope_theta` and `rope_scaling`, as before transformers 5.

    Raises CheckpointError for rotations of another type, UnsupportedModelError for some scalings.
    """
    config = dict(document)
    rope = config.pop("rope_parameters", None)
    return config if rope is None else config | _rope_settings(_object(rope, "rope_parameters"))


def _rope_settings(rope: Mapping[str, Any]) -> dict[str, object]:
    """Returns the settings of before transformers 5; of models with two kinds of layers too."""
    found: dict[str, object] = {}
    if "full_attention" in rope or "sliding_attention" in rope:
        sliding = _object(rope.get("sliding_attention", {}), "rope_parameters.sliding_attention")
        if "rope_theta" in sliding:
            found["rope_local_base_freq"] = sliding["rope_theta"]
        if sliding.get("rope_type", "default") != "default":
            raise UnsupportedModelError(
                f"rope_parameters.sliding_attention is {dict(sliding)}; webllm computes sliding "
                "layers without a scaling of their frequencies"
            )
        rope = _object(rope.get("full_attention", {}), "rope_parameters.full_attention")
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    if "rope_theta" in rope:
        found["rope_theta"] = rope["rope_theta"]
    if scaling and scaling != {"rope_type": "default"}:
        found["rope_scaling"] = scaling
    return found


def _object(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise CheckpointError(f"{name} of config.json is {str(value)[:80]}, not an object")
    return value


def adds_one(config: Mapping[str, object], name: str) -> bool:
    """Returns whether the vector `name` is a norm's weight that is stored without the 1."""
    return config.get("model_type") in _PLUS_ONE and "norm" in name.rpartition(".")[0]


def defaults_from_json(document: Mapping[str, Any]) -> dict[str, object]:
    """Returns the sampling defaults of `generation_config.json` in WebLLM's names."""
    if document.get("do_sample") is False:
        return {"temperature": 0}
    return {name: document[name] for name in _SAMPLING if document.get(name) is not None}
