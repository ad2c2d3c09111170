"""Writes a `Model` as the folder that transformers' `save_pretrained` would write.

4-bit matrices are stored as MLX's affine 4 bits, or as compressed-tensors' `pack-quantized`.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, Literal

import numpy as np

from model_files.model import Affine4, Array, Model, Stored, Symmetric4, bf16_bytes, stack_words
from model_files.tokenizer_json import tokenizer_files

Floats = Literal["F32", "F16", "BF16"]
TORCH_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def write_safetensors(
    model: Model, folder: Path, floats: Floats = "F16", shard_bytes: int | None = None
) -> None:
    """Writes config, tokenizer, and one file of tensors, or shards of at most `shard_bytes`.

    floats: the type of vectors, of matrices that are not quantized, and of scales.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kinds: set[type[Stored]] = set()
    shards: list[dict[str, bytes]] = [{}]
    heads: list[dict[str, Any]] = [{}]
    for name, load in model.tensors.items():
        stored = load()
        kinds.add(type(stored))
        for part, (dtype, shape, data) in _parts(name, stored, floats).items():
            size = sum(map(len, shards[-1].values()))
            if shard_bytes is not None and shards[-1] and size + len(data) > shard_bytes:
                shards.append({})
                heads.append({})
                size = 0
            shards[-1][part] = data
            heads[-1][part] = {
                "dtype": dtype,
                "shape": shape,
                "data_offsets": [size, size + len(data)],
            }
    _write_shards(folder, heads, shards)
    config = model.config | {"torch_dtype": TORCH_NAMES[floats]} | _quantization(model, kinds)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "generation_config.json").write_text(json.dumps(model.generation, indent=2))
    for file_name, content in tokenizer_files(model).items():
        (folder / file_name).write_bytes(content)


def _write_shards(
    folder: Path, heads: list[dict[str, Any]], shards: list[dict[str, bytes]]
) -> None:
    weight_map: dict[str, str] = {}
    for number, (head, data) in enumerate(zip(heads, shards, strict=True)):
        name = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        if len(shards) == 1:
            name = "model.safetensors"
        weight_map |= dict.fromkeys(head, name)
        header = json.dumps({"__metadata__": {"format": "pt"}, **head}).encode()
        header += b" " * (-len(header) % 8)
        with (folder / name).open("wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            for part in data.values():
                file.write(part)
    if len(shards) > 1:
        total = sum(len(part) for data in shards for part in data.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


Part = tuple[str, list[int], bytes]


def _parts(name: str, stored: Stored, floats: Floats) -> dict[str, Part]:
    """Returns the tensors that store one of the model: (dtype, shape, bytes) by name."""
    match stored:
        case Symmetric4(codes, scales):
            packed = stack_words(codes + 1).view("<i4")  # the value plus 8
            return {
                f"{name}_packed": ("I32", list(packed.shape), packed.tobytes()),
                f"{name}_scale": _floats(scales, floats),
                f"{name}_shape": ("I64", [2], np.array(codes.shape, "<i8").tobytes()),
            }
        case Affine4(codes, scales, minimums):
            stem = name.removesuffix("weight")
            packed = stack_words(codes)
            return {
                name: ("U32", list(packed.shape), packed.tobytes()),
                f"{stem}scales": _floats(scales, floats),
                f"{stem}biases": _floats(minimums, floats),
            }
        case _:
            return {name: _floats(stored.dequantized(), floats)}


def _floats(values: Array, floats: Floats) -> Part:
    if floats == "BF16":
        encoded = bf16_bytes(values)
    else:
        encoded = values.astype("<f4" if floats == "F32" else "<f2")
    return floats, list(values.shape), encoded.tobytes()


def _quantization(model: Model, kinds: set[type[Stored]]) -> dict[str, Any]:
    """Returns what config.json says of quantized matrices."""
    if Affine4 in kinds:
        group = next(s.group for s in _loaded(model) if isinstance(s, Affine4))
        quantization = {"group_size": group, "bits": 4, "mode": "affine"}
        return {"quantization": quantization, "quantization_config": quantization}
    if Symmetric4 not in kinds:
        return {}
    group = next(s.group for s in _loaded(model) if isinstance(s, Symmetric4))
    weights = {
        "num_bits": 4,
        "type": "int",
        "symmetric": True,
        "group_size": group,
        "strategy": "group",
        "actorder": None,
        "block_structure": None,
        "dynamic": False,
        "observer": "minmax",
        "observer_kwargs": {},
    }
    scheme = {
        "targets": ["Linear"],
        "weights": weights,
        "input_activations": None,
        "output_activations": None,
    }
    return {
        "quantization_config": {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "quantization_status": "compressed",
            "config_groups": {"group_0": scheme},
            "ignore": ["lm_head"],
            "kv_cache_scheme": None,
            "global_compression_ratio": None,
        }
    }


def _loaded(model: Model) -> Any:
    return (load() for load in model.tensors.values())
