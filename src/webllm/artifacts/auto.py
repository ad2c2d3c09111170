"""Opens, finds and deletes model files: in a browser by `browser`, natively by `resolve`.

The one fork between the two hosts for everything that is stored.
"""

from __future__ import annotations

from contextlib import suppress

from webllm.artifacts.checkpoint import Checkpoint
from webllm.artifacts.progress import ProgressCallback
from webllm.errors import ConfigError, ModelNotFoundError
from webllm.host import THIS_HOST


async def open_model(
    source: str, store: str | None, on_progress: ProgressCallback | None
) -> Checkpoint:
    """Opens the checkpoint of `source`, fetching the file if the store does not have it.

    `store` names a browser's store, see `openBlobs` in browser/blobs.js; natively the store is a
    directory. Raises ConfigError for a source or store that is not understood, an ArtifactError or
    ModelNotFoundError where the file cannot be had, UnsupportedModelError for one we do not read.
    """
    if THIS_HOST.is_browser:
        from webllm.artifacts.browser import models as browser

        return await browser.open_model(source, store, on_progress)

    from webllm.artifacts.local_files import open_local
    from webllm.artifacts.resolve import ensure_artifact
    from webllm.artifacts.store import DirectoryStore

    if store == "none":
        raise ConfigError(
            "cache_backend='none' is for browsers; here set WEBLLM_HOME to a folder that may be "
            "deleted, or give the path of a file"
        )
    return open_local(await ensure_artifact(source, DirectoryStore(), on_progress))


async def has_model(source: str, store: str | None) -> bool:
    """Returns whether the store has the whole file; False for a local file, which is not stored."""
    if THIS_HOST.is_browser:
        from webllm.artifacts.browser import models as browser

        return await browser.has_model(source, store)

    from webllm.artifacts.source import LocalSource, parse_source
    from webllm.artifacts.store import DirectoryStore

    remote = parse_source(source)
    return not isinstance(remote, LocalSource) and DirectoryStore().has(remote)


async def delete_model(source: str, store: str | None) -> None:
    """Deletes the file and any partial download of it from the store; does nothing if absent.

    Raises ArtifactError if the file is in use or being fetched.
    """
    if THIS_HOST.is_browser:
        from webllm.artifacts.browser import models as browser

        await browser.delete_model(source, store)
        return

    from webllm.artifacts.source import LocalSource, parse_source
    from webllm.artifacts.store import DirectoryStore

    remote = parse_source(source)
    if not isinstance(remote, LocalSource):
        with suppress(ModelNotFoundError):
            DirectoryStore().delete(remote)


async def offer_file(file: object) -> str:
    """Returns a source for a File that the user picked; raises ConfigError outside a browser."""
    if THIS_HOST.is_browser:
        from webllm.artifacts.browser import picked

        return await picked.offer_file(file)
    raise ConfigError(
        f"{file!r} is not a file of a page; outside of a browser give ModelRecord a path"
    )
