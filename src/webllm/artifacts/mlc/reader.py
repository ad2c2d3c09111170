"""Reads the documents of an MLC folder."""

from __future__ import annotations

from collections.abc import Collection
from zlib import crc32

from webllm.artifacts.checkpoint import Description, Files
from webllm.artifacts.json_files import (
    json_object,
    num_rows,
    parsed,
    tokenizer_of,
    whole,
    without_padding,
)
from webllm.artifacts.mlc.config import config_from_chat_config, defaults_from_chat_config
from webllm.artifacts.mlc.tensors import tensors_from_cache
from webllm.artifacts.needed import MLC_CONFIG, TENSOR_CACHES
from webllm.errors import CheckpointError


async def describe(names: Collection[str], files: Files) -> Description:
    """Describes the model in an MLC folder.

    Raises CheckpointError for a malformed or incomplete one, UnsupportedModelError for a
    quantization or tokenizer that webllm does not read.
    """
    chat = await json_object(MLC_CONFIG, files)
    cache_name = next(name for name in TENSOR_CACHES if name in names)
    cache = await whole(cache_name, files)
    config = config_from_chat_config(chat)
    tensors = tensors_from_cache(parsed(cache, cache_name), config)
    for tensor in tensors.values():
        for plane in tensor.planes:
            if plane.file not in names:
                raise CheckpointError(f"{cache_name} places {tensor.name} in no known shard")
    config["tie_word_embeddings"] = "lm_head.weight" not in tensors
    tokenizer = await tokenizer_of(names, files)
    tensors = without_padding(tensors, tokenizer)
    config["vocab_size"] = num_rows(tensors)
    return Description(
        config,
        tensors,
        tokenizer,
        f"{crc32(cache, crc32(repr(sorted(config.items(), key=str)).encode())):08x}",
        conv_template=chat.get("conv_template"),
        defaults=defaults_from_chat_config(chat),
    )
