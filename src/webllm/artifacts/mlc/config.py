"""Translates `mlc-chat-config.json` to a configuration in Hugging Face's names.

Fields: mlc-llm's `interface/gen_config.py`, and each model's `ConfigBase`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from webllm.errors import CheckpointError, UnsupportedModelError

_NAMES = {"position_embedding_base": "rope_theta", "sliding_window_size": "sliding_window"}
# Choices of the compiled library and of its memory, which is not used here.
_NO_EFFECT = (
    "attention_sink_size",
    "context_window_size",
    "disaggregation",
    "max_batch_size",
    "pipeline_parallel_stages",
    "prefill_chunk_size",
    "tensor_parallel_shards",
)
# Settings that MLC leaves out because its library knows them: those of Gemma 3 1B.
_IMPLIED = {"gemma3_text": {"sliding_window": 512}}
_MODEL_TYPES = {"gemma3": "gemma3_text"}
_SAMPLING = (
    "temperature",
    "top_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
)
QUANTIZATIONS = ("q4f16_1", "q4f32_1", "q0f16", "q0f32", "q0bf16", "q4f16_2")


def config_from_chat_config(chat: Mapping[str, Any]) -> dict[str, object]:
    """Returns the configuration. Raises CheckpointError for a malformed one.

    Raises UnsupportedModelError for a quantization that is not read.
    """
    quantization = chat.get("quantization")
    if quantization not in QUANTIZATIONS:
        raise UnsupportedModelError(
            f"the quantization {quantization!r} is not one of those that webllm reads: "
            + ", ".join(QUANTIZATIONS)
        )
    outer = chat.get("model_config")
    if not isinstance(outer, dict):
        raise CheckpointError(f"model_config of mlc-chat-config.json is {outer!r}, not an object")
    inner = outer.get("text_config", {})
    if not isinstance(inner, dict):
        raise CheckpointError(f"text_config of mlc-chat-config.json is {inner!r}, not an object")
    others = inner.get("kwargs")  # fields that mlc-llm's class for the inner ones does not know
    values = {**outer, **(others if isinstance(others, dict) else {}), **inner}
    for name in ("text_config", "is_text_model", "kwargs", "model_type"):
        values.pop(name, None)
    if not values.get("rope_scaling"):  # Gemma 3's class has 0 for none
        values.pop("rope_scaling", None)
    model_type = chat.get("model_type")
    model_type = _MODEL_TYPES.get(str(model_type), model_type)
    config: dict[str, object] = {"model_type": model_type, **_IMPLIED.get(str(model_type), {})}
    for key, value in values.items():
        if key in _NO_EFFECT or value == -1:
            continue
        config[_NAMES.get(key, key)] = value
    windows = [outer.get("context_window_size"), inner.get("context_window_size")]
    windows += [chat.get("context_window_size"), config.get("sliding_window")]
    known = [size for size in windows if isinstance(size, int) and size > 0]
    if known:
        config.setdefault("max_position_embeddings", max(known))
    return config


def defaults_from_chat_config(chat: Mapping[str, Any]) -> dict[str, object]:
    """Returns the sampling defaults in WebLLM's names."""
    return {name: chat[name] for name in _SAMPLING if chat.get(name) is not None}
