"""Translates GGUF's metadata to a configuration in Hugging Face's names.

Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and llama.cpp's llama-arch.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping

from webllm.artifacts.gguf.packed_arrays import NumberArray
from webllm.errors import CheckpointError

_MODEL_TYPES = {"gemma3": "gemma3_text"}  # others have Hugging Face's name
_NAMES = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.sliding_window": "sliding_window",
    "attention.sliding_window_pattern": "sliding_window_pattern",
    "rope.freq_base": "rope_theta",
    "rope.freq_base_swa": "rope_local_base_freq",
    "vocab_size": "vocab_size",
}
_SCALING_NAMES = {
    "type": "rope_type",
    "factor": "factor",
    "original_context_length": "original_max_position_embeddings",
    "attn_factor": "attn_factor",
    "yarn_attn_factor": "attn_factor",
    "yarn_beta_fast": "beta_fast",
    "yarn_beta_slow": "beta_slow",
    "yarn_log_multiplier": "yarn_log_multiplier",
    "yarn_ext_factor": "yarn_ext_factor",
}
_SCALING = "rope.scaling."
# Notes of converters, or values that other keys repeat.
_NO_EFFECT = ("tensor_data_layout", "rope.scaling.finetuned")
_LAYERS_OF_GEMMA3_27B = 62
# WebLLM's names of the sampling defaults that a file may give.
_SAMPLING = {
    "temp": "temperature",
    "top_p": "top_p",
    "penalty_repeat": "repetition_penalty",
}


def config_from_metadata(metadata: Mapping[str, object]) -> dict[str, object]:
    """Returns the configuration; a key of the architecture without a translation keeps its name.

    Raises CheckpointError for a file that is no model, such as an adapter.
    """
    kind = metadata.get("general.type", "model")
    if kind != "model":
        raise CheckpointError(f"general.type is {kind!r}; name the file of a model")
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str):
        return {"model_type": architecture}
    values = {
        key.removeprefix(f"{architecture}."): _single(value)
        for key, value in metadata.items()
        if key.startswith(f"{architecture}.")
    }
    config: dict[str, object] = {"model_type": _MODEL_TYPES.get(architecture, architecture)}
    scaling: dict[str, object] = {}
    for key, value in values.items():
        if key in _NAMES:
            config[_NAMES[key]] = value
        elif (name := key.removeprefix(_SCALING)) != key and name in _SCALING_NAMES:
            scaling[_SCALING_NAMES[name]] = value
        elif key not in _NO_EFFECT and not _repeats(key, value, values):
            config[f"{architecture}.{key}"] = value
    if "rope.scale_linear" in values:  # an older spelling
        config.pop(f"{architecture}.rope.scale_linear", None)
        scaling.setdefault("factor", values["rope.scale_linear"])
    if "factor" in scaling:
        scaling.setdefault("rope_type", "linear")  # as in llama.cpp
    if scaling:
        config["rope_scaling"] = scaling
    if architecture == "gemma3" and config.get("num_hidden_layers") == _LAYERS_OF_GEMMA3_27B:
        hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
        if isinstance(hidden, int) and isinstance(heads, int) and heads > 0:
            config["query_pre_attn_scalar"] = hidden // heads
    return config


def defaults_from_metadata(metadata: Mapping[str, object]) -> dict[str, object]:
    """Returns the sampling defaults (`general.sampling.*`) in WebLLM's names."""
    found = {name: metadata.get(f"general.sampling.{key}") for key, name in _SAMPLING.items()}
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def _single(value: object) -> object:
    """Returns the number that a list repeats for each layer; other values as they are."""
    if isinstance(value, NumberArray) and len(value) and all(each == value[0] for each in value):
        return value[0]
    return value


def _repeats(key: str, value: object, values: Mapping[str, object]) -> bool:
    """Returns whether a key says what others say, or that something is off."""
    heads, hidden = values.get("attention.head_count"), values.get("embedding_length")
    head_dim = values.get("attention.key_length")
    if head_dim is None and isinstance(heads, int) and isinstance(hidden, int) and heads > 0:
        head_dim = hidden // heads
    if key in ("attention.value_length", "rope.dimension_count"):
        return value == head_dim
    if key == "attention.causal":
        return value is True
    return value in (0, False, "none") or value is None
