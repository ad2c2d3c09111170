"""Reads the documents of an MLC folder."""

from __future__ import annotations

from collections.abc import Collection
from zlib import crc32

from webllm.artifacts.checkpoint import Description, Files
from webllm.artifacts.json_files import json_object, parsed, tokenizer_of, whole
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
    template = chat.get("conv_template")
    if isinstance(template, str):  # of 2024: the name of a template that MLC's program knows
        template = None
    return Description(
        config,
        tensors,
        await tokenizer_of(names, files),
        f"{crc32(cache, crc32(repr(sorted(config.items(), key=str)).encode())):08x}",
        conv_template=template,
        defaults=defaults_from_chat_config(chat),
    )
