"""Reads the headers of a GGUF file, or of the parts of a split one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from zlib import crc32

from webllm.artifacts.checkpoint import Description, Files, GGUFTokenizer, TensorInfo
from webllm.artifacts.gguf.config import config_from_metadata, defaults_from_metadata
from webllm.artifacts.gguf.header import GGUFHeader, MoreBytesNeeded, parse_header
from webllm.artifacts.gguf.names import hugging_face_name, is_paired
from webllm.errors import CheckpointError, UnsupportedModelError, WebLLMError

_HEADER_BYTES = 4 << 20  # first read; enough for a vocabulary of 100,000 tokens


async def describe(names: Sequence[str], files: Files) -> Description:
    """Describes the model in a GGUF file, or in all parts of a split one, in their order.

    Raises CheckpointError for a malformed, truncated or incomplete file, UnsupportedModelError for
    a valid one that webllm does not read (big endian, tensor types).
    """
    headers = [await read_header(name, files) for name in names]
    _check_parts(names, headers)
    fingerprint = headers[0].fingerprint
    if len(headers) > 1:
        fingerprint = f"{crc32(''.join(each.fingerprint for each in headers).encode()):08x}"
    tensors = [tensor for header in headers for tensor in header.tensors.values()]
    return translated(headers[0].metadata, tensors, fingerprint)


def translated(
    metadata: Mapping[str, object], tensors: Iterable[TensorInfo], fingerprint: str
) -> Description:
    """Describes a model by the metadata and tensors of a GGUF file; raises CheckpointError."""
    architecture = str(metadata.get("general.architecture"))
    found: dict[str, TensorInfo] = {}
    for tensor in tensors:
        name = hugging_face_name(tensor.name, architecture)
        if name in found:
            raise CheckpointError(f"tensor {tensor.name!r} occurs twice; the file is damaged")
        found[name] = replace(tensor, name=name, is_paired=is_paired(name, architecture))
    config = config_from_metadata(metadata)
    _check_vocabulary(metadata, found, config)
    config["tie_word_embeddings"] = "lm_head.weight" not in found
    return Description(
        config,
        found,
        GGUFTokenizer(metadata),
        fingerprint,
        defaults=defaults_from_metadata(metadata),
    )


async def read_header(name: str, files: Files) -> GGUFHeader:
    """Reads the header of one file; the errors name it."""
    size, num_bytes = files.size(name), _HEADER_BYTES
    try:
        while True:
            start = await files.load(name, 0, min(num_bytes, size))
            try:
                with memoryview(start) as view:
                    return parse_header(view, size, name)
            except MoreBytesNeeded as more:
                num_bytes = max(more.num_bytes, 2 * num_bytes)
    except (CheckpointError, UnsupportedModelError) as error:
        raise named(error, name) from None


def named(error: WebLLMError, name: str) -> WebLLMError:
    """Returns the error with the name of its file before its text."""
    return type(error)(f"{name}: {error}")


def _check_parts(names: Sequence[str], headers: Sequence[GGUFHeader]) -> None:
    """Checks that these files are all parts of one split file, in their order, or one file."""
    for number, (name, header) in enumerate(zip(names, headers, strict=True)):
        count = header.metadata.get("split.count", 1) or 1
        place = header.metadata.get("split.no", 0)
        if (place, count) != (number, len(names)):
            raise CheckpointError(
                f"{name} says that it is part {place} (from 0) of {count}, but is used as part "
                f"{number} of {len(names)}; put all parts of one model beside each other"
            )


def _check_vocabulary(
    metadata: Mapping[str, object], tensors: Mapping[str, TensorInfo], config: dict[str, object]
) -> None:
    """Checks that the embedding table has a row for each token, and notes their number."""
    embedding = tensors.get("model.embed_tokens.weight")
    if embedding is None:
        return  # `models/` says so, if it knows the architecture
    num_rows, tokens = embedding.shape[0], metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, Sequence) and len(tokens) != num_rows:
        raise CheckpointError(
            f"token_embd.weight has {num_rows} rows for a vocabulary of {len(tokens)} tokens"
        )
    if config.setdefault("vocab_size", num_rows) != num_rows:
        raise CheckpointError(
            f"token_embd.weight has {num_rows} rows; the file's vocab_size is "
            f"{config['vocab_size']}"
        )
