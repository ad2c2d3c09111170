"""Writes a `Model` as a folder that mlc-llm's `convert_weight` and `gen_config` would write.

The container is that of TVM's `contrib/tvmjs.py`: shards of at most 32 MiB, in the order of a
safetensors index, listed in tensor-cache.json with an MD5 for each.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from model_files.model import (
    Array,
    Model,
    Plain,
    Stored,
    Symmetric4,
    bf16_bytes,
    is_norm,
    joined,
    stack_words,
)
from model_files.names import mlc_parts
from model_files.tokenizer_json import tokenizer_files

SHARD_BYTES = 32 << 20
QUANTIZATIONS = ("q4f16_1", "q4f32_1", "q0f16", "q0f32")
GROUP = 32
CHATML: dict[str, Any] = {
    "system_template": "<|im_start|>system\n{system_message}<|im_end|>\n",
    "roles": {"user": "<|im_start|>user", "assistant": "<|im_start|>assistant"},
    "seps": ["<|im_end|>\n"],
    "role_content_sep": "\n",
    "role_empty_sep": "\n",
}
QWEN = CHATML | {
    "system_message": "You are a helpful assistant.",
    "stop_str": ["<|endoftext|>", "<|im_end|>"],
    "stop_token_ids": [151643, 151645],
}
CONV_TEMPLATES: dict[str, dict[str, Any]] = {
    "llama": CHATML | {"name": "chatml", "stop_str": ["<|im_end|>"], "stop_token_ids": [2]},
    "qwen2": QWEN | {"name": "qwen2"},
    "qwen3": QWEN | {"name": "qwen3", "strip_reasoning_in_history": True},
    "gemma3_text": {
        "name": "gemma3_instruction",
        "system_prefix_token_ids": [2],
        "roles": {"user": "<start_of_turn>user", "assistant": "<start_of_turn>model"},
        "seps": ["<end_of_turn>\n"],
        "role_content_sep": "\n",
        "role_empty_sep": "\n",
        "stop_str": ["<end_of_turn>"],
        "stop_token_ids": [1, 106],
    },
}


def write_mlc(
    model: Model,
    folder: Path,
    quantization: str,
    shard_bytes: int = SHARD_BYTES,
    index: str = "tensor-cache.json",
) -> None:
    """Writes the folder; the matrices of `model` are quantized already if `quantization` says so.

    index: "ndarray-cache.json" is the name that older releases used. Raises ValueError for settings
    that mlc-llm does not store.
    """
    if quantization not in QUANTIZATIONS:
        raise ValueError(f"quantization {quantization!r} is not one of {QUANTIZATIONS}")
    config = model_config(model)
    folder.mkdir(parents=True, exist_ok=True)
    shards = _Shards(folder, shard_bytes, is_float32=quantization in ("q4f32_1", "q0f32"))
    num_parameters = 0
    for name, parts in mlc_parts(model.model_type, list(model.tensors)).items():
        stored = joined([_as_mlc(model, part) for part in parts])
        num_parameters += stored.dequantized().size
        if isinstance(stored, Symmetric4):
            stem = name.removesuffix("weight")
            scales = np.repeat(stored.scales, stored.group // GROUP, axis=1)
            shards.add(f"{stem}q_weight", stack_words(stored.codes))
            shards.add(f"{stem}q_scale", scales)
        else:
            shards.add(name, stored.dequantized())
    shards.close()
    document = {
        "metadata": {
            "ParamSize": sum(len(shard["records"]) for shard in shards.written),
            "ParamBytes": float(sum(shard["nbytes"] for shard in shards.written)),
            "BitsPerParam": sum(shard["nbytes"] for shard in shards.written) * 8 / num_parameters,
        },
        "records": shards.written,
    }
    (folder / index).write_text(json.dumps(document, indent=4))
    files = tokenizer_files(model)
    for file_name, data in files.items():
        (folder / file_name).write_bytes(data)
    chat = chat_config(model, config, quantization, list(files))
    (folder / "mlc-chat-config.json").write_text(json.dumps(chat, indent=2))


def _as_mlc(model: Model, name: str) -> Stored:
    stored = model.tensors[name]()
    if model.norms_lack_one and is_norm(name):
        return Plain(stored.dequantized() + np.float32(1))
    return stored


class _Shards:
    """Collects records in files; `written` lists those as tensor-cache.json does.

    is_float32: floats are float32, which is bfloat16 on disk; otherwise they are float16.
    """

    def __init__(self, folder: Path, max_bytes: int, is_float32: bool) -> None:
        self.written: list[dict[str, Any]] = []
        self._folder, self._max_bytes, self._is_float32 = folder, max_bytes, is_float32
        self._pending: list[dict[str, Any]] = []
        self._data = bytearray()

    def add(self, name: str, array: Array) -> None:
        data, dtype = self._encoded(array)
        record = {
            "name": name,
            "shape": list(array.shape),
            "dtype": dtype,
            "format": "f32-to-bf16",
            "nbytes": len(data),
            "byteOffset": len(self._data),
        }
        if len(self._data) + len(data) >= self._max_bytes:
            if len(data) * 2 >= self._max_bytes:  # a file of its own; the others go on
                self._write(data, [record | {"byteOffset": 0}])
                return
            self.close()
            record["byteOffset"] = 0
        self._pending.append(record)
        self._data += data

    def close(self) -> None:
        """Writes the records that wait."""
        if self._pending:
            self._write(bytes(self._data), self._pending)
        self._pending, self._data = [], bytearray()

    def _encoded(self, array: Array) -> tuple[bytes, str]:
        if array.dtype == np.uint32:
            return array.astype("<u4").tobytes(), "uint32"
        if self._is_float32:
            return bf16_bytes(array).tobytes(), "float32"
        return array.astype("<f2").tobytes(), "float16"

    def _write(self, data: bytes, records: list[dict[str, Any]]) -> None:
        name = f"params_shard_{len(self.written)}.bin"
        (self._folder / name).write_bytes(data)
        self.written.append(
            {
                "dataPath": name,
                "format": "raw-shard",
                "nbytes": len(data),
                "records": records,
                "md5sum": hashlib.md5(data, usedforsecurity=False).hexdigest(),
            }
        )


def is_stored_by_mlc(model: Model) -> bool:
    """Whether mlc-llm has all settings: of scaled rotary frequencies it knows Llama 3.1's alone."""
    scaling = model.config.get("rope_scaling")
    return not scaling or (model.model_type == "llama" and scaling["rope_type"] == "llama3")


def model_config(model: Model) -> dict[str, Any]:
    """Returns `model_config` with the fields of mlc-llm's class for this architecture."""
    config = model.config
    scaling = config.get("rope_scaling")
    if not is_stored_by_mlc(model):
        raise ValueError(f"mlc-llm stores no rope_scaling of {model.model_type}: {scaling}")
    context = config["max_position_embeddings"]
    sizes = {
        name: config[name]
        for name in (
            "hidden_size",
            "intermediate_size",
            "num_attention_heads",
            "num_hidden_layers",
            "num_key_value_heads",
            "head_dim",
            "rms_norm_eps",
        )
    }
    windows = {
        "context_window_size": context,
        "prefill_chunk_size": min(context, 8192),
        "tensor_parallel_shards": 1,
        "max_batch_size": 128,
    }
    if model.model_type == "gemma3_text":
        return {
            "text_config": sizes
            | {
                "attention_bias": False,
                "hidden_activation": config["hidden_activation"],
                "position_embedding_base": config["rope_theta"],
                "rope_scaling": 0,
                "context_window_size": max(config["sliding_window"], 8192),
                "prefill_chunk_size": windows["prefill_chunk_size"],
                "query_pre_attn_scalar": config["query_pre_attn_scalar"],
                "sliding_window_size": config["sliding_window"],
                "kwargs": {
                    "architectures": config["architectures"],
                    "model_type": model.model_type,
                    "rope_local_base_freq": config["rope_local_base_freq"],
                    "sliding_window": config["sliding_window"],
                    "torch_dtype": config["torch_dtype"],
                },
            },
            "vocab_size": config["vocab_size"],
            "tensor_parallel_shards": 1,
            "max_batch_size": 128,
            "context_window_size": max(config["sliding_window"], 8192),
            "sliding_window_size": config["sliding_window"],
            "prefill_chunk_size": windows["prefill_chunk_size"],
            "is_text_model": True,
        }
    common = sizes | windows
    common |= {name: config[name] for name in ("vocab_size", "tie_word_embeddings")}
    if model.model_type == "llama":
        return common | {
            "position_embedding_base": config["rope_theta"],
            "rope_scaling": scaling,
            "pipeline_parallel_stages": 1,
            "disaggregation": False,
        }
    common |= {"hidden_act": "silu", "rope_theta": config["rope_theta"], "dtype": "float32"}
    if model.model_type == "qwen3":
        common |= {"attention_bias": False, "weight_block_size": None}
    return common


def chat_config(
    model: Model, config: dict[str, Any], quantization: str, files: list[str]
) -> dict[str, Any]:
    """Returns mlc-chat-config.json."""
    vocabulary, generation = model.vocabulary, model.generation
    is_spm = vocabulary.scores is not None
    template: dict[str, Any] = {
        "system_template": "{system_message}",
        "system_message": "",
        "system_prefix_token_ids": None,
        "add_role_after_system_message": True,
        "role_templates": {
            "user": "{user_message}",
            "assistant": "{assistant_message}",
            "tool": "{tool_message}",
        },
        "messages": [],
        "strip_reasoning_in_history": False,
        "function_string": "",
        "use_function_calling": False,
    }
    return {
        "version": "0.1.0",
        "model_type": model.model_type,
        "quantization": quantization,
        "model_config": config,
        "vocab_size": model.config["vocab_size"],
        "context_window_size": config["context_window_size"],
        "sliding_window_size": config.get("sliding_window_size", -1),
        "prefill_chunk_size": config["prefill_chunk_size"],
        "attention_sink_size": -1,
        "tensor_parallel_shards": 1,
        "pipeline_parallel_stages": 1,
        "active_vocab_size": vocabulary.num_active,
        "temperature": generation.get("temperature", 1.0),
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": generation.get("repetition_penalty", 1.0),
        "top_p": generation.get("top_p", 1.0),
        "tokenizer_files": files,
        "tokenizer_info": {
            "token_postproc_method": "byte_fallback" if is_spm else "byte_level",
            "prepend_space_in_encode": vocabulary.add_space_prefix,
            "strip_space_in_decode": vocabulary.add_space_prefix,
        },
        "conv_template": template | CONV_TEMPLATES[model.model_type],
        "pad_token_id": vocabulary.ids.get("padding", 0),
        "bos_token_id": vocabulary.ids.get("bos", 1),
        "eos_token_id": vocabulary.ids.get("eos", 2),
        "model_task": "chat",
        "embedding_metadata": None,
    }
