"""Writes a `Model` as a GGUF file, and divides GGUF files as `llama-gguf-split` does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from model_files.model import (
    Affine4,
    Array,
    Model,
    Plain,
    Stored,
    Symmetric4,
    bf16_bytes,
    is_norm,
    rearranged,
)
from model_files.names import ARCHITECTURES, gguf_name

BLOCK = 32


def write_gguf(
    model: Model,
    file: Path,
    plain: Type = Type.F16,
    types: Mapping[str, Type] = MappingProxyType({}),
) -> None:
    """Writes one file; `plain` is the type of matrices that are not quantized, vectors are F32.

    types: those of some such matrices, by Hugging Face's names. 4-bit matrices become Q4_0 and Q4_1
    of exactly the same values.
    """
    writer = gguf.GGUFWriter(file, ARCHITECTURES[model.model_type])
    _add_config(writer, model.config)
    _add_vocabulary(writer, model)
    for name, load in model.tensors.items():
        stored = _as_gguf(model, name, load())
        _add_tensor(writer, gguf_name(model.model_type, name), stored, types.get(name, plain))
    if factors := llama3_factors(model.config):
        writer.add_tensor("rope_freqs.weight", np.array(factors, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _as_gguf(model: Model, name: str, stored: Stored) -> Stored:
    """Returns a tensor in GGUF's conventions: llama's rotary pairs, norms with their one."""
    config = model.config
    if model.model_type == "llama" and ".q_proj." in name:
        return rearranged(stored, lambda rows: to_pairs(rows, config["num_attention_heads"]))
    if model.model_type == "llama" and ".k_proj." in name:
        return rearranged(stored, lambda rows: to_pairs(rows, config["num_key_value_heads"]))
    if model.norms_lack_one and is_norm(name):
        return Plain(stored.dequantized() + np.float32(1))
    return stored


def to_pairs(rows: Array, num_heads: int) -> Array:
    """Puts rotary pairs side by side; Hugging Face has them half a head apart."""
    heads = rows.reshape(num_heads, 2, -1, *rows.shape[1:])  # [heads, 2, head_dim / 2, cols]
    return heads.swapaxes(1, 2).reshape(rows.shape)


def _add_config(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    if config["model_type"] == "gemma3_text":
        writer.add_sliding_window(config["sliding_window"])
    else:
        writer.add_rope_dimension_count(config["head_dim"])
    scaling = config.get("rope_scaling") or {"rope_type": "llama3"}
    if scaling["rope_type"] != "llama3":  # that one is a tensor
        writer.add_rope_scaling_type(gguf.RopeScalingType(scaling["rope_type"]))
        writer.add_rope_scaling_factor(scaling["factor"])
        if original := scaling.get("original_max_position_embeddings"):
            writer.add_rope_scaling_orig_ctx_len(original)


def llama3_factors(config: dict[str, Any]) -> list[float]:
    """Returns the divisors of Llama 3.1's rotary frequencies, [head_dim / 2], or none.

    Follows transformers' `_compute_llama3_parameters`.
    """
    scaling = config.get("rope_scaling") or {}
    if scaling.get("rope_type") != "llama3":
        return []
    factor, original = scaling["factor"], scaling["original_max_position_embeddings"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    factors = []
    for i in range(0, config["head_dim"], 2):
        turns = original / (2 * math.pi * config["rope_theta"] ** (i / config["head_dim"]))
        smooth = min(max((turns - low) / (high - low), 0.0), 1.0)
        factors.append(1 / ((1 - smooth) / factor + smooth))
    return factors


def _add_vocabulary(writer: gguf.GGUFWriter, model: Model) -> None:
    vocabulary = model.vocabulary
    padding = model.config["vocab_size"] - len(vocabulary.tokens)
    pads = [f"[PAD{len(vocabulary.tokens) + i}]" for i in range(padding)]
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens + pads)
    writer.add_token_types(vocabulary.types + [int(gguf.TokenType.UNUSED)] * padding)
    if vocabulary.scores is not None:
        writer.add_tokenizer_model("llama")
        writer.add_token_scores(vocabulary.scores + [-1000.0] * padding)
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_token_merges(vocabulary.merges or [])
    for name, token_id in vocabulary.ids.items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", token_id)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_space_prefix(vocabulary.add_space_prefix)
    if vocabulary.chat_template is not None:
        writer.add_chat_template(vocabulary.chat_template)
    for ours, theirs in (("temperature", "temp"), ("top_p", "top_p")):
        if ours in model.generation:
            writer.add_float32(f"general.sampling.{theirs}", model.generation[ours])


def _add_tensor(writer: gguf.GGUFWriter, name: str, stored: Stored, plain: Type) -> None:
    match stored:
        case Symmetric4():
            writer.add_tensor(name, q4_0(stored), raw_dtype=Type.Q4_0)
        case Affine4():
            writer.add_tensor(name, q4_1(stored), raw_dtype=Type.Q4_1)
        case Plain(values) if values.ndim == 1 or plain is Type.F32:
            writer.add_tensor(name, values.astype(np.float32))
        case Plain(values) if plain is Type.BF16:
            writer.add_tensor(name, bf16_bytes(values).view(np.uint8), raw_dtype=Type.BF16)
        case Plain(values) if plain is not Type.F16:
            writer.add_tensor(name, gguf.quants.quantize(values, plain), raw_dtype=plain)
        case Plain(values):
            writer.add_tensor(name, values.astype(np.float16))


def q4_0(stored: Symmetric4) -> Array:
    """Returns the blocks of a Q4_0, uint8 [rows, bytes]: its codes are one more."""
    return _blocks(stored.codes + 1, [stored.scales])


def q4_1(stored: Affine4) -> Array:
    return _blocks(stored.codes, [stored.scales, stored.minimums])


def _blocks(codes: Array, halves: list[Array]) -> Array:
    rows, cols = codes.shape
    num_blocks = cols // BLOCK
    heads = [_halves(half, num_blocks) for half in halves]
    grouped = codes.reshape(rows, num_blocks, 2, BLOCK // 2)  # the second half of a block is high
    nibbles = grouped[:, :, 0] | grouped[:, :, 1] << 4
    return np.concatenate([*heads, nibbles], axis=2).reshape(rows, -1)


def _halves(values: Array, num_blocks: int) -> Array:
    """Returns a float16 for each block, as bytes [rows, blocks, 2], without rounding."""
    repeated = np.repeat(values, num_blocks // values.shape[1], axis=1)
    halves = repeated.astype("<f2")
    assert np.array_equal(halves.astype(np.float32), repeated), "a scale is outside float16"
    return halves.view(np.uint8).reshape(*repeated.shape, 2)


def split_gguf(file: Path, folder: Path, tensors_each: int, stem: str | None = None) -> list[Path]:
    """Divides a GGUF file into parts; returns them.

    The first part has all metadata, and each has `split.no`, `split.count` and
    `split.tensors.count`.
    """
    reader = gguf.GGUFReader(file)
    starts = range(0, len(reader.tensors), tensors_each)
    parts = [reader.tensors[start : start + tensors_each] for start in starts]
    files = []
    for number, tensors in enumerate(parts):
        path = folder / f"{stem or file.stem}-{number + 1:05}-of-{len(parts):05}.gguf"
        writer = gguf.GGUFWriter(path, "", endianess=gguf.GGUFEndian.LITTLE)
        writer.kv_data[0].clear()  # the writer adds an architecture
        if number == 0:
            _copy_metadata(writer, reader)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", len(parts))
        writer.add_int32("split.tensors.count", len(reader.tensors))
        for tensor in tensors:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        files.append(path)
    return files


def _copy_metadata(writer: gguf.GGUFWriter, reader: gguf.GGUFReader) -> None:
    for name, field in reader.fields.items():
        if not name.startswith("GGUF."):
            kind, *item_kind = field.types
            writer.add_key_value(name, field.contents(), kind, *item_kind[-1:])
