"""The file formats of models: how each is opened from the file at which a model begins."""

from __future__ import annotations

from collections.abc import Collection

from webllm.artifacts.checkpoint import Checkpoint, Description, Files
from webllm.artifacts.gguf.reader import describe as describe_gguf
from webllm.artifacts.integrity import Integrity
from webllm.errors import UnsupportedModelError


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
    if entry.endswith(".gguf"):
        return await describe_gguf(names, files)
    raise UnsupportedModelError(f"{entry} is of a format that is not read")
