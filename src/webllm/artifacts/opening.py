"""From a model source to an open checkpoint, and what is kept: the fork to browser or native."""

from __future__ import annotations

import sys
from contextlib import suppress

from webllm.artifacts.checkpoint import Checkpoint
from webllm.artifacts.progress import ProgressCallback
from webllm.errors import ConfigError, ModelNotFoundError


async def open_model(
    source: str, store: str | None, on_progress: ProgressCallback | None
) -> Checkpoint:
    """Fetches what is not in the store yet.

    store: the kind a browser keeps files in, see `browser_backends.open_blobs`; natively it is a
    directory. Raises what finding, fetching and opening raise.
    """
    if sys.platform == "emscripten":
        from webllm.artifacts import browser

        return await browser.open_model(source, store, on_progress)

    from webllm.artifacts.gguf import open_gguf
    from webllm.artifacts.resolve import ensure_artifact
    from webllm.artifacts.store import DirectoryStore

    if store == "none":
        raise ConfigError(
            "cache_backend='none' is for browsers; here set WEBLLM_HOME to a folder that may be "
            "deleted, or give the path of a file"
        )
    return open_gguf(await ensure_artifact(source, DirectoryStore(), on_progress))


async def has_model(source: str, store: str | None) -> bool:
    """Whether the store has the file, whole. A file that is not fetched is in no store."""
    if sys.platform == "emscripten":
        from webllm.artifacts import browser

        return await browser.has_model(source, store)

    from webllm.artifacts.source import LocalSource, parse_source
    from webllm.artifacts.store import DirectoryStore

    remote = parse_source(source)
    return not isinstance(remote, LocalSource) and DirectoryStore().has(remote)


async def delete_model(source: str, store: str | None) -> None:
    """Deletes the file from the store, and what was left of a download; harmless if it is absent.

    Raises ArtifactError if it is in use.
    """
    if sys.platform == "emscripten":
        from webllm.artifacts import browser

        await browser.delete_model(source, store)
        return

    from webllm.artifacts.source import LocalSource, parse_source
    from webllm.artifacts.store import DirectoryStore

    remote = parse_source(source)
    if not isinstance(remote, LocalSource):
        with suppress(ModelNotFoundError):
            DirectoryStore().delete(remote)


async def offer_file(file: object) -> str:
    """A source for a File that the user picked; only a page has such."""
    if sys.platform == "emscripten":
        from webllm.artifacts import browser_picked

        return await browser_picked.offer_file(file)
    raise ConfigError(
        f"{file!r} is not a file of a page; outside of a browser give ModelRecord a path"
    )
