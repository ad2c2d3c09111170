"""Folders of Hugging Face are described in the common terms; malformed ones are refused."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Mapping
from typing import Any

import pytest
from memory_files import TOKENIZER, opened

from webllm.artifacts.checkpoint import Checkpoint, GGUFTokenizer, StorageType
from webllm.errors import CheckpointError, UnsupportedModelError

CONFIG = {"model_type": "llama", "tie_word_embeddings": True, "eos_token_id": [2, 7]}
ENTRY = "model.safetensors"
SIZES = {"F32": 4, "F16": 2, "BF16": 2, "U32": 4, "I32": 4, "I64": 8, "F8_E4M3": 1}


def file_of(tensors: Mapping[str, tuple[str, list[int]]]) -> bytes:
    """Returns a safetensors file whose bytes count up."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start = end
        count = 1
        for size in shape:
            count *= size
        end += count * SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    return with_header(header, bytes(i % 251 for i in range(end)))


def with_header(header: object, data: bytes) -> bytes:
    written = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(written)) + written + data


def load(weights: bytes, config: Mapping[str, object] = CONFIG, **others: object) -> Checkpoint:
    names = {name.replace("__", "."): value for name, value in others.items()}
    return opened(
        ENTRY, {"config.json": config, "tokenizer.json": TOKENIZER, ENTRY: weights, **names}
    )


PLAIN = {
    "model.embed_tokens.weight": ("F16", [5, 4]),
    "model.norm.weight": ("BF16", [4]),
    "model.layers.0.mlp.up_proj.weight": ("F32", [3, 4]),
}


def rows_of(checkpoint: Checkpoint, name: str, first: int, count: int) -> list[bytes]:
    planes = asyncio.run(checkpoint.read(name, first, count))
    return [bytes(plane) for plane in planes if isinstance(plane, memoryview)]


def test_plain_tensors() -> None:
    checkpoint = load(file_of(PLAIN))
    found = {name: (t.dtype, t.shape) for name, t in checkpoint.tensors.items()}
    assert found == {
        "model.embed_tokens.weight": (StorageType.F16, (3, 4)),  # the tokenizer has three tokens
        "model.norm.weight": (StorageType.BF16, (4,)),
        "model.layers.0.mlp.up_proj.weight": (StorageType.F32, (3, 4)),
    }
    assert checkpoint.config["vocab_size"] == 3
    assert bytes(checkpoint.data("model.norm.weight")) == bytes(range(40, 48))
    [data] = rows_of(checkpoint, "model.layers.0.mlp.up_proj.weight", 1, 2)
    assert data == bytes(range(48 + 16, 48 + 48))
    assert not isinstance(checkpoint.tokenizer, GGUFTokenizer)
    assert checkpoint.tokenizer.eos_ids == (2, 7)


def test_norms_of_gemma_are_one_more() -> None:
    names = ("input_layernorm", "self_attn.q_norm")
    tensors = {f"model.layers.0.{name}.weight": ("F32", [4]) for name in names}
    tensors |= {"model.norm.weight": ("F32", [4]), "model.embed_tokens.weight": ("F32", [3, 4])}
    for model_type, plus in (("gemma3_text", 1.0), ("qwen3", 0.0)):
        checkpoint = load(file_of(tensors), CONFIG | {"model_type": model_type})
        vectors = [each for each in checkpoint.tensors.values() if len(each.shape) == 1]
        assert [each.plus for each in vectors] == [plus] * 3


def test_rotations_have_one_spelling() -> None:
    weights = file_of(PLAIN)
    scaling = {"rope_type": "llama3", "factor": 8.0}
    new = load(weights, CONFIG | {"rope_parameters": {"rope_theta": 5e5, **scaling}}).config
    assert (new["rope_theta"], new["rope_scaling"]) == (5e5, scaling)
    kinds = {
        "full_attention": {"rope_type": "default", "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    both = load(weights, CONFIG | {"rope_parameters": kinds}).config
    assert (both["rope_theta"], both["rope_local_base_freq"]) == (1e6, 1e4)
    assert "rope_scaling" not in both


def test_rotations_that_make_no_sense() -> None:
    weights = file_of(PLAIN)
    for value in ("x", [1], {"full_attention": 5}, {"sliding_attention": {}, "full_attention": 5}):
        with pytest.raises(CheckpointError, match=r"rope_parameters.* not an object"):
            load(weights, CONFIG | {"rope_parameters": value})
    scaled = {"sliding_attention": {"rope_type": "linear", "factor": 2}}
    with pytest.raises(UnsupportedModelError, match="sliding_attention is"):
        load(weights, CONFIG | {"rope_parameters": scaled})
    full = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
    found = load(weights, CONFIG | {"rope_parameters": {"full_attention": full}}).config
    assert found["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}
    legacy = {"type": "linear", "factor": 8.0}
    assert load(weights, CONFIG | {"rope_parameters": legacy}).config["rope_scaling"] == legacy


def test_sampling_defaults() -> None:
    weights = file_of(PLAIN)
    settings = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "eos_token_id": 1}
    checkpoint = load(weights, generation_config__json=settings)
    assert checkpoint.defaults == {"temperature": 0.6, "top_p": 0.9}
    assert not isinstance(checkpoint.tokenizer, GGUFTokenizer)
    assert checkpoint.tokenizer.eos_ids == (2, 7, 1)
    greedy = load(weights, generation_config__json={"do_sample": False, "temperature": 0.6})
    assert greedy.defaults == {"temperature": 0}


def test_fingerprints_tell_models_apart() -> None:
    weights = file_of(PLAIN)
    first = load(weights).fingerprint
    assert first == load(weights).fingerprint
    assert first != load(weights, CONFIG | {"rope_theta": 3.0}).fingerprint
    assert first != load(file_of(PLAIN | {"model.norm.weight": ("F32", [4])})).fingerprint


MLX = {"group_size": 64, "bits": 4}
COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "symmetric": True}}},
}
EMBEDDING = {"model.embed_tokens.weight": ("F16", [3, 128])}


def test_mlx_affine_weights() -> None:
    name = "model.layers.0.mlp.up_proj"
    tensors = EMBEDDING | {
        f"{name}.weight": ("U32", [2, 16]),
        f"{name}.scales": ("BF16", [2, 2]),
        f"{name}.biases": ("BF16", [2, 2]),
    }
    config = CONFIG | {"quantization": MLX, "quantization_config": MLX}
    checkpoint = load(file_of(tensors), config)
    tensor = checkpoint.tensors[f"{name}.weight"]
    assert (tensor.dtype, tensor.shape) == (StorageType.AFFINE4_BF16, (2, 128))
    assert [len(plane) for plane in rows_of(checkpoint, f"{name}.weight", 1, 1)] == [64, 4, 4]
    assert set(checkpoint.tensors) == {*EMBEDDING, f"{name}.weight"}


def test_compressed_tensors() -> None:
    name = "model.layers.0.mlp.up_proj"
    tensors = EMBEDDING | {
        f"{name}.weight_packed": ("I32", [2, 16]),
        f"{name}.weight_scale": ("F16", [2, 1]),
        f"{name}.weight_shape": ("I64", [2]),
    }
    checkpoint = load(file_of(tensors), CONFIG | {"quantization_config": COMPRESSED})
    tensor = checkpoint.tensors[f"{name}.weight"]
    assert (tensor.dtype, tensor.shape) == (StorageType.GROUP4, (2, 128))
    assert set(checkpoint.tensors) == {*EMBEDDING, f"{name}.weight"}


def without(settings: dict[str, Any], **changes: object) -> dict[str, Any]:
    weights = settings["config_groups"]["group_0"]["weights"] | changes
    return settings | {"config_groups": {"group_0": {"weights": weights}}}


@pytest.mark.parametrize(
    ("key", "settings", "named"),
    [
        ("quantization_config", {"quant_method": "awq", "bits": 4}, "quantized as awq"),
        ("quantization_config", {"quant_method": "gptq", "desc_act": True}, "quantized as gptq"),
        ("quantization_config", {"quant_method": "fp8"}, "quantized as fp8"),
        ("quantization_config", {"quant_method": "bitsandbytes"}, "quantized as bitsandbytes"),
        ("quantization_config", {"quant_method": "mxfp4"}, "quantized as mxfp4"),
        ("quantization", MLX | {"mode": "mxfp4"}, "quantized as MLX"),
        ("quantization", MLX | {"bits": 8}, "quantized as MLX"),
        ("quantization_config", without(COMPRESSED, symmetric=False), "as compressed-tensors"),
        ("quantization_config", without(COMPRESSED, actorder="group"), "as compressed-tensors"),
        ("quantization_config", COMPRESSED | {"format": "marlin-24"}, "as compressed-tensors"),
    ],
)
def test_quantizations_that_are_not_read(key: str, settings: object, named: str) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"{named} .*MLC's form"):
        load(file_of(PLAIN), CONFIG | {key: settings})


def test_storage_types_that_are_not_read() -> None:
    tensors = PLAIN | {"model.layers.0.mlp.up_proj.weight": ("F8_E4M3", [3, 4])}
    with pytest.raises(UnsupportedModelError, match=r"up_proj\.weight' is stored as F8_E4M3"):
        load(file_of(tensors))


def test_no_tokenizer() -> None:
    with pytest.raises(UnsupportedModelError, match=r"neither tokenizer\.json nor"):
        opened(ENTRY, {"config.json": CONFIG, ENTRY: file_of(PLAIN)})


def tensor(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, Any]:
    return {"t": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


MALFORMED = {
    "empty": (b"", "has 0 bytes"),
    "long header": (struct.pack("<Q", 1 << 60) + b"{}", "announces a header"),
    "no JSON": (with_header(b"{", b""), "is not JSON"),
    "deep JSON": (with_header(b"[" * 100_000, b""), "is not JSON"),
    "a list": (with_header([], b""), "is not a JSON object"),
    "no object": (with_header({"t": 1}, b""), "'t' is malformed"),
    "shape": (with_header(tensor(shape="x"), b""), "'t' is malformed"),
    "negative": (with_header(tensor(shape=[-2, -1]), bytes(8)), "8 bytes for the shape"),
    "offsets": (with_header(tensor(offsets=[8, 0]), bytes(8)), "-8 bytes for the shape"),
    "before": (with_header(tensor(offsets=[-8, 0]), bytes(8)), "8 bytes for the shape"),
    "truncated": (with_header(tensor(), bytes(7)), "it is truncated"),
    "huge": (with_header(tensor(shape=[1 << 60], offsets=[0, 1 << 62]), b""), "it is truncated"),
    "overlap": (
        with_header({**tensor(), "u": tensor(offsets=[4, 12])["t"]}, bytes(12)),
        "'u' overlaps",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_files(name: str) -> None:
    data, message = MALFORMED[name]
    with pytest.raises(CheckpointError, match=message):
        load(data)


def test_malformed_documents() -> None:
    with pytest.raises(CheckpointError, match=r"config\.json is not a JSON object"):
        opened(ENTRY, {"config.json": [], "tokenizer.json": TOKENIZER, ENTRY: file_of(PLAIN)})
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is malformed"):
        opened(ENTRY, {"config.json": CONFIG, "tokenizer.json": [], ENTRY: file_of(PLAIN)})


def test_parts_that_do_not_fit() -> None:
    name = "model.layers.0.mlp.up_proj"
    config = CONFIG | {"quantization": MLX}
    lacking = EMBEDDING | {f"{name}.weight": ("U32", [2, 16]), f"{name}.scales": ("F16", [2, 2])}
    with pytest.raises(CheckpointError, match=rf"{name}\.weight has no {name}\.biases"):
        load(file_of(lacking), config)
    shorter = lacking | {f"{name}.biases": ("F16", [1, 2])}
    with pytest.raises(CheckpointError, match="do not fit together"):
        load(file_of(shorter), config)
    wide = lacking | {f"{name}.scales": ("F16", [2, 1]), f"{name}.biases": ("F16", [2, 1])}
    with pytest.raises(UnsupportedModelError, match=r"reads groups of \[32, 64\]"):
        load(file_of(wide), config)
