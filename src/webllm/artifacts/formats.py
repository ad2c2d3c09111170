"""The file formats of models: how each is opened from the file at which a model begins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

from webllm.artifacts.checkpoint import Checkpoint, Description, Files
from webllm.artifacts.gguf.reader import describe as describe_gguf
from webllm.artifacts.integrity import Integrity
from webllm.artifacts.mlc.reader import describe as describe_mlc
from webllm.artifacts.needed import MLC_CONFIG, SAFETENSORS_INDEX
from webllm.artifacts.safetensors.reader import describe as describe_safetensors

Describe = Callable[[list[str], Files], Awaitable[Description]]

# The ends of the names of entries, and what reads the model's files.
FORMATS: dict[str, Describe] = {
    ".gguf": describe_gguf,
    MLC_CONFIG: describe_mlc,
    ".safetensors": describe_safetensors,
    SAFETENSORS_INDEX: describe_safetensors,
}


async def open_checkpoint(
    entry: str, names: Collection[str], files: Files, integrity: Integrity | None = None
) -> Checkpoint:
    """Opens a model: checks all headers and reads all vectors. Closes the files if that fails.

    `entry` is the file at which it begins, and `names` are those of all files, as `needed` has
    them. Raises what `Integrity.verify` raises, CheckpointError if a file is malformed or
    truncated, UnsupportedModelError for a valid model that webllm does not read.
    """
    try:
        if integrity is not None:
            await integrity.verify(list(names), files)
        checkpoint = Checkpoint(await _describe(entry, list(names), files), files)
        await checkpoint.read_vectors()
    except BaseException:
        files.close()
        raise
    return checkpoint


async def _describe(entry: str, names: list[str], files: Files) -> Description:
    return await next(read for end, read in FORMATS.items() if entry.endswith(end))(names, files)
