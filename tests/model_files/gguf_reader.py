"""Reads a GGUF file into a `Model`; the `gguf` package parses and dequantizes it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from model_files.model import Array, Load, Model, Plain, Vocabulary
from model_files.names import ARCHITECTURES, hf_name

CLASSES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
}
SLIDING_PATTERN = 6
UNREAD: dict[str, Any] = {  # what real files have besides
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "transformers_version": "4.57.1",
    "use_cache": True,
}
OF_TYPE: dict[str, dict[str, Any]] = {
    "llama": {
        "attention_bias": False,
        "hidden_act": "silu",
        "is_llama_config": True,  # SmolLM2 has it
        "mlp_bias": False,
        "pretraining_tp": 1,
        "rope_interleaved": False,
    },
    "qwen2": {
        "hidden_act": "silu",
        "max_window_layers": 21,
        "sliding_window": 32768,
        "use_sliding_window": False,
    },
    "qwen3": {
        "attention_bias": False,
        "hidden_act": "silu",
        "max_window_layers": 28,
        "sliding_window": None,
        "use_sliding_window": False,
    },
    "gemma3_text": {
        "_sliding_window_pattern": SLIDING_PATTERN,
        "attention_bias": False,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "hidden_activation": "gelu_pytorch_tanh",
        "rope_local_base_freq": 10000.0,  # GGUF files do not say it
        "use_bidirectional_attention": False,
    },
}


def read_gguf(path: Path) -> Model:
    """Reads a llama, qwen2, qwen3 or gemma3 file. Raises ValueError for what it cannot carry."""
    reader = gguf.GGUFReader(path)
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    arch = metadata["general.architecture"]
    model_type = next((m for m, a in ARCHITECTURES.items() if a == arch), None)
    if model_type is None:
        raise ValueError(f"{path}: architecture {arch!r} is not one of {list(ARCHITECTURES)}")
    names = {tensor.name: tensor for tensor in reader.tensors}
    if "rope_freqs.weight" in names or f"{arch}.rope.scaling.type" in metadata:
        raise ValueError(f"{path}: scaled rotary frequencies are not converted")
    config = _config(model_type, arch, metadata, "output.weight" not in names)
    tensors: dict[str, Load] = {
        hf_name(model_type, tensor.name): partial(_load, config, tensor)
        for tensor in reader.tensors
    }
    return Model(config, tensors, _vocabulary(metadata), _generation(config, metadata))


def _config(model_type: str, arch: str, metadata: dict[str, Any], tied: bool) -> dict[str, Any]:
    def get(key: str, default: object = None) -> Any:
        return metadata.get(f"{arch}.{key}", default)

    heads, hidden = get("attention.head_count"), get("embedding_length")
    config = {
        "architectures": [CLASSES[model_type]],
        "model_type": model_type,
        "hidden_size": hidden,
        "intermediate_size": get("feed_forward_length"),
        "num_hidden_layers": get("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": get("attention.head_count_kv", heads),
        "head_dim": get("attention.key_length", hidden // heads),
        "rms_norm_eps": decimal(get("attention.layer_norm_rms_epsilon")),
        "rope_theta": decimal(get("rope.freq_base", 10000.0)),
        "rope_scaling": None,
        "max_position_embeddings": get("context_length"),
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "tie_word_embeddings": tied,
        "torch_dtype": "float16",
    }
    if model_type == "gemma3_text":
        config |= {
            "layer_types": layer_types(config["num_hidden_layers"]),
            "query_pre_attn_scalar": config["head_dim"],
            "sliding_window": get("attention.sliding_window"),
        }
    return config | UNREAD | OF_TYPE[model_type]


def layer_types(num_layers: int) -> list[str]:
    """Returns Gemma 3's kinds of attention: every sixth layer attends to everything."""
    kinds = ["sliding_attention"] * (SLIDING_PATTERN - 1) + ["full_attention"]
    return [kinds[layer % SLIDING_PATTERN] for layer in range(num_layers)]


def decimal(value: float) -> float:
    """Returns the shortest number with the same float32: 1e-6 for 9.99999997e-7."""
    return float(str(np.float32(value)))


def _load(config: dict[str, Any], tensor: gguf.ReaderTensor) -> Plain:
    values: Array = gguf.dequantize(tensor.data, tensor.tensor_type)
    if config["model_type"] == "gemma3_text" and tensor.name.endswith("norm.weight"):
        values = values - np.float32(1)
    if config["model_type"] == "llama" and ".attn_q." in tensor.name:
        values = to_halves(values, config["num_attention_heads"])
    if config["model_type"] == "llama" and ".attn_k." in tensor.name:
        values = to_halves(values, config["num_key_value_heads"])
    return Plain(values)


def to_halves(rows: Array, num_heads: int) -> Array:
    """Restores Hugging Face's order: pairs half a head apart, where GGUF has them side by side."""
    heads = rows.reshape(num_heads, -1, *rows.shape[1:])  # [heads, head_dim, cols]
    return np.concatenate([heads[:, 0::2], heads[:, 1::2]], axis=1).reshape(rows.shape)


def _vocabulary(metadata: dict[str, Any]) -> Vocabulary:
    def get(key: str, default: object = None) -> Any:
        return metadata.get(f"tokenizer.ggml.{key}", default)

    ids = {name: get(f"{name}_token_id") for name in ("bos", "eos", "unknown", "padding")}
    is_spm = get("model") == "llama"
    return Vocabulary(
        tokens=get("tokens"),
        types=get("token_type"),
        merges=None if is_spm else get("merges"),
        scores=get("scores") if is_spm else None,
        pre=get("pre", "default"),
        ids={name: token_id for name, token_id in ids.items() if token_id is not None},
        add_bos=get("add_bos_token", is_spm),
        add_space_prefix=get("add_space_prefix", is_spm),
        chat_template=metadata.get("tokenizer.chat_template"),
    )


def _generation(config: dict[str, Any], metadata: dict[str, Any]) -> dict[str, Any]:
    """Returns the defaults of `general.sampling.*`, and the ids that begin and end a text."""
    generation: dict[str, Any] = {"do_sample": True}
    for theirs, ours in (("temp", "temperature"), ("top_p", "top_p"), ("top_k", "top_k")):
        if (value := metadata.get(f"general.sampling.{theirs}")) is not None:
            generation[ours] = decimal(value)
    for name in ("bos", "eos"):
        if (token_id := metadata.get(f"tokenizer.ggml.{name}_token_id")) is not None:
            config[f"{name}_token_id"] = generation[f"{name}_token_id"] = token_id
    return generation
