"""The writers of test models, checked by numpy, the `gguf` package and the `tokenizers` library."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tokenizers

from model_files.forms import write_form
from model_files.gguf_reader import read_gguf
from model_files.gguf_writer import split_gguf
from model_files.made_up import CONFIGS, draws, made_up
from model_files.model import Array
from model_files.names import mlc_parts
from model_files.tokenizer_json import tokenizer_files
from webllm.text.gguf_tokenizer import tokenizer_from_gguf
from webllm.text.json_tokenizer import tokenizer_from_json

TEXTS = ["", " ", "Hi the  and\n\n\tthe 123", "über 日本 🙂", "a<|im_end|>the<end_of_turn> x", "  "]
MLP = "model.layers.0.mlp"


def test_generator() -> None:
    """The numbers are the same on every machine and in every version of numpy."""
    assert draws("a", 2).tolist() == [12137942361386574506, 4504528965725572720]


def test_mlc_names_in_the_order_of_a_real_folder() -> None:
    """As in the tensor-cache.json of ReaderLM-v2-q4f16_1-MLC, a qwen2 of mlc-llm's."""
    tensors = list(made_up("tiny-qwen2").tensors)
    tensors += [name.replace("layers.1.", "layers.10.") for name in tensors if "layers.1." in name]
    block = [
        "input_layernorm.weight",
        "mlp.down_proj.weight",
        "mlp.gate_up_proj.weight",
        "post_attention_layernorm.weight",
        "self_attn.c_attn.bias",
        "self_attn.c_attn.weight",
        "self_attn.o_proj.weight",
    ]
    layers = [f"model.layers.{i}.{name}" for i in (0, 1, 10) for name in block]
    names = mlc_parts("qwen2", tensors)
    assert list(names) == [
        "lm_head.weight",
        "model.embed_tokens.weight",
        *layers,
        "model.norm.weight",
    ]
    joined = names["model.layers.0.self_attn.c_attn.weight"]
    assert joined == [f"model.layers.0.self_attn.{part}_proj.weight" for part in "qkv"]


def test_mlc_weights(tmp_path: Path) -> None:
    """By mlc-llm's rule, W(o, i) = (q - 7) * scale, the lowest four bits first."""
    model = made_up("tiny-qwen3")
    write_form(model, tmp_path / "mlc", "q4f16_1", shard_bytes=20_000)
    write_form(model, tmp_path / "same.gguf", "gguf-q4f16_1")
    records = mlc_records(tmp_path / "mlc")
    words, scales = (records[f"{MLP}.gate_up_proj.q_{part}"] for part in ("weight", "scale"))
    i = np.arange(128)
    codes = words[:, i // 8] >> (4 * (i % 8)).astype(np.uint32) & 15
    values = (codes.astype(np.float32) - 7) * scales[:, i // 32].astype(np.float32)
    same = gguf_values(tmp_path / "same.gguf")
    parts = [same[f"blk.0.ffn_{part}.weight"] for part in ("gate", "up")]
    assert codes.max() == 14
    assert np.array_equal(values, np.concatenate(parts))
    exact = model.tensors[f"{MLP}.gate_proj.weight"]().dequantized()
    assert np.abs(parts[0] - exact).max() <= np.abs(exact).max() / 14 * 1.01


def mlc_records(folder: Path) -> dict[str, Array]:
    """Reads a folder, and checks its container."""
    dtypes = {"uint32": "<u4", "float16": "<f2"}
    found: dict[str, Array] = {}
    shards = json.loads((folder / "tensor-cache.json").read_text())["records"]
    assert len(shards) > 10
    for shard in shards:
        data = (folder / shard["dataPath"]).read_bytes()
        assert hashlib.md5(data, usedforsecurity=False).hexdigest() == shard["md5sum"]
        assert shard["nbytes"] == len(data)
        assert len(data) < 20_000 or len(shard["records"]) == 1
        end = 0
        for record in shard["records"]:
            assert record["byteOffset"] == end
            end += record["nbytes"]
            part = np.frombuffer(data[record["byteOffset"] : end], dtypes[record["dtype"]])
            found[record["name"]] = part.reshape(record["shape"])
        assert end == len(data)
    return found


def gguf_values(file: Path) -> dict[str, Array]:
    reader = gguf.GGUFReader(file)
    return {t.name: gguf.dequantize(t.data, t.tensor_type) for t in reader.tensors}


def test_compressed_and_mlx_weights(tmp_path: Path) -> None:
    model = made_up("tiny-qwen3")
    same = {}
    for form in ("w4a16", "mlx4"):
        write_form(model, tmp_path / form, form)
        write_form(model, tmp_path / "same.gguf", f"gguf-{form}")
        same[form] = gguf_values(tmp_path / "same.gguf")["blk.0.ffn_up.weight"]
    name, i = f"{MLP}.up_proj", np.arange(128)
    shifts = (4 * (i % 8)).astype(np.uint32)
    stored = safetensors(tmp_path / "w4a16")
    codes = stored[f"{name}.weight_packed"].view("<u4")[:, i // 8] >> shifts & 15
    scales = stored[f"{name}.weight_scale"].astype(np.float32)
    values = (codes.astype(np.float32) - 8) * scales[:, i // 32]
    assert np.array_equal(values, same["w4a16"])
    assert stored[f"{name}.weight_shape"].tolist() == [320, 128]
    stored = safetensors(tmp_path / "mlx4")
    codes = stored[f"{name}.weight"][:, i // 8] >> shifts & 15
    scales, minimums = (stored[f"{name}.{n}"].astype(np.float32) for n in ("scales", "biases"))
    values = codes.astype(np.float32) * scales[:, i // 64] + minimums[:, i // 64]
    assert np.array_equal(values, same["mlx4"])


def safetensors(folder: Path) -> dict[str, Array]:
    data = (folder / "model.safetensors").read_bytes()
    [length] = struct.unpack_from("<Q", data)
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    header.pop("__metadata__")
    dtypes = {"F16": "<f2", "I32": "<i4", "I64": "<i8", "U32": "<u4"}
    found, start = {}, 8 + length
    for name, tensor in header.items():
        begin, end = (start + offset for offset in tensor["data_offsets"])
        values = np.frombuffer(data[begin:end], dtypes[tensor["dtype"]])
        found[name] = values.reshape(tensor["shape"])
    assert end == len(data)
    return found


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-qwen2", "tiny-qwen3", "tiny-gemma3"])
def test_gguf_and_back(name: str, tmp_path: Path) -> None:
    model = made_up(name)
    write_form(model, tmp_path / "model.gguf", "gguf-f16")
    again = read_gguf(tmp_path / "model.gguf")
    assert again.tensors.keys() == model.tensors.keys()
    for tensor, load in model.tensors.items():
        assert np.array_equal(load().dequantized(), again.tensors[tensor]().dequantized()), tensor
    kept = {"hidden_size", "rope_theta", "rms_norm_eps", "head_dim", "layer_types", "vocab_size"}
    same = {key: value for key, value in model.config.items() if key in kept}
    assert same == {key: again.config[key] for key in same}
    assert again.vocabulary.num_active == len(model.vocabulary.tokens)


def test_parts_of_a_file(tmp_path: Path) -> None:
    whole = tmp_path / "whole.gguf"
    write_form(made_up("tiny-qwen2"), whole, "gguf-q4f16_1")
    files = split_gguf(whole, tmp_path, tensors_each=10)
    assert [file.name for file in files] == [f"whole-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    readers = [gguf.GGUFReader(file) for file in files]
    keys = [{n: f.contents() for n, f in reader.fields.items()} for reader in readers]
    assert [(k["split.no"], k["split.count"]) for k in keys] == [(0, 3), (1, 3), (2, 3)]
    assert {k["split.tensors.count"] for k in keys} == {27}
    assert "general.architecture" in keys[0]
    assert "general.architecture" not in keys[1]
    parts: dict[str, bytes] = {t.name: t.data.tobytes() for r in readers for t in r.tensors}
    assert parts == {t.name: t.data.tobytes() for t in gguf.GGUFReader(whole).tensors}


@pytest.mark.parametrize("name", CONFIGS)
def test_tokenizers_agree(name: str, tmp_path: Path) -> None:
    """GGUF's and Hugging Face's files make the same tokens, and so does Hugging Face's library."""
    model = made_up(name)
    write_form(model, tmp_path / "model.gguf", "gguf-q4f16_1")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    ours = tokenizer_from_gguf({n: field.contents() for n, field in reader.fields.items()})
    files = tokenizer_files(model)
    document, config = files["tokenizer.json"], files["tokenizer_config.json"]
    from_json = tokenizer_from_json(document, config)
    library = tokenizers.Tokenizer.from_str(document.decode())
    for text in TEXTS:
        expected = library.encode(text).ids
        assert from_json.encode(text, parse_special=True) == expected, text
        assert ours.encode(text, parse_special=True) == expected, text
        assert ours.decode(expected) == from_json.decode(expected), text
