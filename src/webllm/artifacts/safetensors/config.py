"""Brings Hugging Face's `config.json` to one spelling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Architectures whose norms multiply by 1 + weight.
_PLUS_ONE = ("gemma", "gemma2", "gemma3_text")
_SAMPLING = ("temperature", "top_p", "repetition_penalty")


def config_from_json(document: Mapping[str, Any]) -> dict[str, object]:
    """Returns the configuration with `rope_theta` and `rope_scaling`, as before transformers 5."""
    config = dict(document)
    rope = config.pop("rope_parameters", None)
    if isinstance(rope, dict):
        sliding = rope.get("sliding_attention")
        if isinstance(sliding, dict):  # of models with two kinds of layers
            config.setdefault("rope_local_base_freq", sliding.get("rope_theta"))
            rope = rope.get("full_attention", {})
        scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
        if "rope_theta" in rope:
            config["rope_theta"] = rope["rope_theta"]
        if scaling.get("rope_type", "default") != "default":
            config["rope_scaling"] = scaling
    return config


def adds_one(config: Mapping[str, object], name: str) -> bool:
    """Returns whether the vector `name` is a norm's weight that is stored without the 1."""
    return config.get("model_type") in _PLUS_ONE and "norm" in name.rpartition(".")[0]


def defaults_from_json(document: Mapping[str, Any]) -> dict[str, object]:
    """Returns the sampling defaults of `generation_config.json` in WebLLM's names."""
    if document.get("do_sample") is False:
        return {"temperature": 0}
    return {name: document[name] for name in _SAMPLING if document.get(name) is not None}
