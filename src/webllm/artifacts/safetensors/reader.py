"""Reads the documents and headers of a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from zlib import crc32

from webllm.artifacts.checkpoint import Description, Files, StorageType, TensorInfo
from webllm.artifacts.json_files import num_rows, read_object, tokenizer_of, without_padding
from webllm.artifacts.safetensors.config import adds_one, config_from_json, defaults_from_json
from webllm.artifacts.safetensors.header import LENGTH, MAX_HEADER_BYTES, tensors_from_header
from webllm.artifacts.safetensors.quantization import Stored, quantization_of
from webllm.errors import CheckpointError, UnsupportedModelError

_STORAGE = {"F32": StorageType.F32, "F16": StorageType.F16, "BF16": StorageType.BF16}
_GENERATION = "generation_config.json"


async def describe(names: Collection[str], files: Files) -> Description:
    """Describes the model in a folder of Hugging Face.

    Raises CheckpointError for malformed files, UnsupportedModelError for storage types, a
    quantization or a tokenizer that webllm does not read.
    """
    config = config_from_json(await read_object("config.json", files))
    quantization = quantization_of(config)
    stored: dict[str, Stored] = {}
    checksum = crc32(repr(sorted(config.items(), key=str)).encode())
    for name in sorted(each for each in names if each.endswith(".safetensors")):
        header = await _read_header(name, files)
        checksum = crc32(header, checksum)
        for tensor in tensors_from_header(header, name, files.size(name)).values():
            if tensor.name in stored:
                raise CheckpointError(f"tensor {tensor.name!r} is in several files")
            stored[tensor.name] = tensor
    tensors = quantization.combine(stored) if quantization else {}
    tensors |= {name: _plain(tensor, config) for name, tensor in stored.items()}
    generation = await read_object(_GENERATION, files) if _GENERATION in names else {}
    config.setdefault("tie_word_embeddings", "lm_head.weight" not in tensors)
    tokenizer = await tokenizer_of(names, files, config, generation)
    tensors = without_padding(tensors, tokenizer)
    config["vocab_size"] = num_rows(tensors)
    return Description(
        config,
        tensors,
        tokenizer,
        f"{checksum:08x}",
        defaults=defaults_from_json(generation),
    )


def _plain(tensor: Stored, config: Mapping[str, object]) -> TensorInfo:
    """Describes a tensor that is not quantized."""
    dtype = _STORAGE.get(tensor.dtype)
    if dtype is None or not tensor.shape or min(tensor.shape) < 1:
        raise UnsupportedModelError(
            f"tensor {tensor.name!r} is stored as {tensor.dtype} {list(tensor.shape)}; webllm "
            f"reads {', '.join(_STORAGE)}: take a copy in one of these, a GGUF file or MLC's form"
        )
    plus = 1.0 if adds_one(config, tensor.name) else 0.0
    return TensorInfo(tensor.name, tensor.shape, dtype, (tensor.plane,), plus=plus)


async def _read_header(name: str, files: Files) -> bytes:
    size = files.size(name)
    if size < LENGTH.size:
        raise CheckpointError(f"{name} has {size} bytes; it is no safetensors file")
    (num_bytes,) = LENGTH.unpack(bytes(await files.load(name, 0, LENGTH.size)))
    if num_bytes > min(size - LENGTH.size, MAX_HEADER_BYTES):
        raise CheckpointError(
            f"{name} announces a header of {num_bytes} bytes, but has {size}; it is truncated, or "
            "no safetensors file"
        )
    return bytes(await files.load(name, LENGTH.size, LENGTH.size + num_bytes))
