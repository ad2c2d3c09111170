"""MLC's folders are described in the common terms; malformed ones are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from math import prod
from typing import Any

import pytest
from memory_files import TOKENIZER, opened

from webllm.artifacts.checkpoint import Checkpoint, StorageType
from webllm.errors import CheckpointError, UnsupportedModelError

ENTRY = "mlc-chat-config.json"
MODEL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 1,
    "rms_norm_eps": 1e-5,
    "vocab_size": 5,
    "position_embedding_base": 500000,
    "context_window_size": 4096,
    "prefill_chunk_size": 2048,
    "tensor_parallel_shards": 1,
    "sliding_window_size": -1,
}
CHAT: dict[str, Any] = {
    "version": "0.1.0",
    "model_type": "llama",
    "quantization": "q4f16_1",
    "model_config": MODEL,
    "context_window_size": 4096,
    "temperature": 0.6,
    "top_p": 0.9,
    "repetition_penalty": None,
    "conv_template": {"name": "x", "roles": {"user": "u", "assistant": "a"}, "seps": ["\n"]},
}
BYTES = {"float16": 2, "float32": 4, "uint32": 4, "bfloat16": 2, "int8": 1}


def matrix(name: str, rows: int, cols: int) -> list[dict[str, Any]]:
    return [
        record(f"{name}.q_weight", [rows, cols // 8], "uint32"),
        record(f"{name}.q_scale", [rows, cols // 32], "float16"),
    ]


def record(
    name: str, shape: list[int], dtype: str = "float16", format: str = "raw"
) -> dict[str, Any]:
    size = 2 if format == "f32-to-bf16" and dtype == "float32" else BYTES[dtype]
    nbytes = prod(shape) * size
    return {"name": name, "shape": shape, "dtype": dtype, "format": format, "nbytes": nbytes}


LAYER = "model.layers.0"
RECORDS = [
    *matrix("model.embed_tokens", 5, 64),
    *matrix(f"{LAYER}.self_attn.qkv_proj", 64 + 32 + 32, 64),
    *matrix(f"{LAYER}.mlp.gate_up_proj", 96 + 96, 64),
    record("model.norm.weight", [64]),
]


def cache_of(records: list[dict[str, Any]], **shard: object) -> tuple[dict[str, Any], bytes]:
    """Returns a cache of one shard, and the shard, whose bytes count up."""
    end, placed = 0, []
    for each in records:
        placed.append({"byteOffset": end} | each)
        end += max(each["nbytes"], 0)
    whole = {"dataPath": "params_shard_0.bin", "format": "raw-shard", "nbytes": end}
    return {"records": [{**whole, "records": placed, **shard}]}, bytes(i % 251 for i in range(end))


def load(
    records: list[dict[str, Any]] = RECORDS,
    chat: Mapping[str, object] = CHAT,
    **shard: object,
) -> Checkpoint:
    cache, data = cache_of(records, **shard)
    return opened(
        ENTRY,
        {
            ENTRY: chat,
            "tensor-cache.json": cache,
            "tokenizer.json": TOKENIZER,
            "params_shard_0.bin": data,
        },
    )


def planes_of(checkpoint: Checkpoint, name: str, first: int, count: int) -> list[bytes]:
    planes = asyncio.run(checkpoint.read(name, first, count))
    return [bytes(plane) for plane in planes if isinstance(plane, memoryview)]


def test_quantized_and_fused_tensors() -> None:
    checkpoint = load()
    found = {name: (t.dtype, t.shape) for name, t in checkpoint.tensors.items()}
    assert found == {
        "model.embed_tokens.weight": (StorageType.MLC_Q4, (3, 64)),  # a row for each token
        f"{LAYER}.self_attn.q_proj.weight": (StorageType.MLC_Q4, (64, 64)),
        f"{LAYER}.self_attn.k_proj.weight": (StorageType.MLC_Q4, (32, 64)),
        f"{LAYER}.self_attn.v_proj.weight": (StorageType.MLC_Q4, (32, 64)),
        f"{LAYER}.mlp.gate_proj.weight": (StorageType.MLC_Q4, (96, 64)),
        f"{LAYER}.mlp.up_proj.weight": (StorageType.MLC_Q4, (96, 64)),
        "model.norm.weight": (StorageType.F16, (64,)),
    }
    _, data = cache_of(RECORDS)
    codes = 5 * 32 + 5 * 4  # where those of qkv_proj begin; a row has 32 bytes, and 4 of scales
    scales = codes + 128 * 32
    assert planes_of(checkpoint, f"{LAYER}.self_attn.v_proj.weight", 1, 2) == [
        data[codes + 97 * 32 : codes + 99 * 32],
        data[scales + 97 * 4 : scales + 99 * 4],
    ]


def test_settings_in_hugging_faces_names() -> None:
    config = load().config
    assert config["rope_theta"] == 500000
    assert config["max_position_embeddings"] == 4096
    assert config["vocab_size"] == 3
    assert config["tie_word_embeddings"] is True
    assert not {"prefill_chunk_size", "context_window_size", "sliding_window"} & set(config)
    sliding = load(chat=CHAT | {"model_config": MODEL | {"sliding_window_size": 1024}}).config
    assert sliding["sliding_window"] == 1024


def test_gemma3_has_its_settings_inside() -> None:
    inner = {name: value for name, value in MODEL.items() if name != "vocab_size"}
    model = {"text_config": inner, "vocab_size": 5, "is_text_model": True}
    records = [{**each, "name": f"language_model.{each['name']}"} for each in RECORDS]
    checkpoint = load(records, CHAT | {"model_type": "gemma3_text", "model_config": model})
    assert checkpoint.config["model_type"] == "gemma3_text"
    assert checkpoint.config["hidden_size"] == 64
    assert checkpoint.config["sliding_window"] == 512
    assert f"{LAYER}.mlp.up_proj.weight" in checkpoint.tensors


def test_chat_template_and_sampling_defaults() -> None:
    checkpoint = load()
    assert checkpoint.defaults == {"temperature": 0.6, "top_p": 0.9}
    assert checkpoint.conv_template == CHAT["conv_template"]
    assert load(chat=CHAT | {"conv_template": "llama-3"}).conv_template == "llama-3"
    with pytest.raises(CheckpointError, match=r"conv_template .* is \[1\], neither an object nor"):
        load(chat=CHAT | {"conv_template": [1]})


def test_halves_of_float32() -> None:
    """q4f32_1 and q0f32 keep the upper half of each number."""
    scale = record("model.embed_tokens.q_scale", [5, 2], "float32", "f32-to-bf16")
    words = record("model.embed_tokens.q_weight", [5, 8], "uint32", "f32-to-bf16")
    norm = record("model.norm.weight", [64], "float32", "f32-to-bf16")
    plain = record("lm_head.weight", [5, 64], "float32")
    checkpoint = load([words, scale, norm, plain], CHAT | {"quantization": "q4f32_1"})
    found = {name: tensor.dtype for name, tensor in checkpoint.tensors.items()}
    assert found == {
        "model.embed_tokens.weight": StorageType.MLC_Q4_BF16,
        "model.norm.weight": StorageType.BF16,
        "lm_head.weight": StorageType.F32,
    }
    assert checkpoint.config["tie_word_embeddings"] is False


@pytest.mark.parametrize("name", ["q3f16_1", "q4f16_0", "q4f16_ft", "e4m3_e4m3_f16", None])
def test_quantizations_that_are_not_read(name: object) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"quantization {name!r} is not .* q4f16_1"):
        load(chat=CHAT | {"quantization": name})


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (matrix("model.embed_tokens", 5, 64)[:1], "has no .q_scale"),
        ([record("x.q_weight", [5], "uint32"), record("x.q_scale", [5, 2])], "are a matrix"),
        ([*matrix("x", 5, 64), record("x.q_scale", [5, 2])], "occurs twice"),
        ([record("x", [4]) | {"nbytes": 9}], "9 bytes for the shape"),
        ([record("x", [-4]) | {"nbytes": -8}], "-8 bytes for the shape"),
        ([record("x", []) | {"nbytes": 2}], "2 bytes for the shape"),
        ([record("x", [4]), record("y", [4]) | {"byteOffset": 4}], "overlaps"),
        ([record("x", [4]) | {"byteOffset": 4}], "ends at byte 12"),
        ([record("x", [4]) | {"byteOffset": -4}], "overlaps"),
        ([{"name": "x"}], "tensor-cache.json is malformed"),
        (matrix(f"{LAYER}.mlp.gate_up_proj", 96, 64), r"has 96 rows; its parts have 96 \+ 96"),
    ],
)
def test_malformed_caches(records: list[dict[str, Any]], message: str) -> None:
    placed = [{"nbytes": 0} | each for each in records]
    with pytest.raises(CheckpointError, match=message):
        load(placed)


def test_other_groups_and_types() -> None:
    with pytest.raises(UnsupportedModelError, match="a scale for 32 columns"):
        load([record("x.q_weight", [5, 8], "uint32"), record("x.q_scale", [5, 1])])
    with pytest.raises(UnsupportedModelError, match="stored as int8"):
        load([record("x", [4], "int8")])


def test_shards_that_are_not_there() -> None:
    with pytest.raises(CheckpointError, match="in no known shard"):
        load(dataPath="params_shard_7.bin")
    cache, data = cache_of(RECORDS)
    files = {ENTRY: CHAT, "tensor-cache.json": cache, "tokenizer.json": TOKENIZER}
    with pytest.raises(CheckpointError, match=r"params_shard_0\.bin has 9 bytes"):
        opened(ENTRY, {**files, "params_shard_0.bin": data[:9]})


def test_sizes_that_are_missing() -> None:
    for name in ("num_attention_heads", "num_key_value_heads", "intermediate_size"):
        model = {key: value for key, value in MODEL.items() if key != name}
        with pytest.raises(CheckpointError, match=f"{name} .* is None"):
            load(chat=CHAT | {"model_config": model})
    with pytest.raises(CheckpointError, match=r"model_config .* is None"):
        load(chat={name: value for name, value in CHAT.items() if name != "model_config"})
