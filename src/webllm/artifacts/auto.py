"""Opens, finds and deletes model files: in a browser by `browser`, natively by `resolve`.

The one fork between the two hosts for everything that is stored.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from webllm.artifacts.checkpoint import Checkpoint
from webllm.artifacts.hub_access import HubAccess
from webllm.artifacts.integrity import Integrity
from webllm.artifacts.progress import ProgressCallback
from webllm.errors import ConfigError, ModelNotFoundError
from webllm.host import THIS_HOST


async def open_model(
    source: str,
    store: str | None,
    on_progress: ProgressCallback | None,
    hub: HubAccess | None = None,
    integrity: Integrity | None = None,
) -> Checkpoint:
    """Opens the checkpoint of `source`, fetching the files that the store does not have.

    `store` names a browser's store, see `openBlobs` in browser/blobs.js; natively the store is a
    directory. `hub` is for browsers; natively `huggingface_hub` has its own settings. `integrity`
    has hashes of files. Raises ConfigError for a source or store that is not understood, an
    ArtifactError or ModelNotFoundError where a file cannot be had, UnsupportedModelError for a
    model that webllm does not read.
    """
    if THIS_HOST.is_browser:
        from webllm.artifacts.browser import models as browser

        return await browser.open_model(source, store, on_progress, hub or HubAccess(), integrity)

    from webllm.artifacts.local_files import open_paths
    from webllm.artifacts.resolve import ensure_model
    from webllm.artifacts.store import DirectoryStore

    if store == "none":
        raise ConfigError(
            "cache_backend='none' is for browsers; here set WEBLLM_HOME to a folder that may be "
            "deleted, or give the path of a file"
        )
    if hub is not None and hub != HubAccess():
        raise ConfigError(
            "hub_url and hub_token are for browsers; here set HF_ENDPOINT, and log in by "
            "`hf auth login` or HF_TOKEN"
        )
    return open_paths(await ensure_model(source, DirectoryStore(), on_progress), integrity)


async def local_sha256(source: str, sizes: Collection[int]) -> str | None:
    """Returns the SHA-256 of a file of this disk, if its size is one of `sizes` (bytes)."""
    if THIS_HOST.is_browser:
        return None

    import asyncio
    import hashlib

    from webllm.artifacts.source import LocalSource, parse_source

    def hashed(path: Path) -> str | None:
        if not path.is_file() or path.stat().st_size not in sizes:
            return None
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    local = parse_source(source)
    return await asyncio.to_thread(hashed, local.path) if isinstance(local, LocalSource) else None


async def has_model(source: str, store: str | None) -> bool:
    """Returns whether the store has all files; False for local ones, which are not stored."""
    if THIS_HOST.is_browser:
        from webllm.artifacts.browser import models as browser

        return await browser.has_model(source, store)

    from webllm.artifacts.source import LocalSource, parse_source
    from webllm.artifacts.store import DirectoryStore

    remote = parse_source(source)
    return not isinstance(remote, LocalSource) and DirectoryStore().has(remote)


async def delete_model(source: str, store: str | None) -> None:
    """Deletes the files and any partial download from the store; does nothing if absent.

    Raises ArtifactError if one is in use or being fetched.
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


async def offer_files(files: object) -> str:
    """Returns a source for a File, or several, that the user picked.

    Raises ConfigError outside a browser.
    """
    if THIS_HOST.is_browser:
        from webllm.artifacts.browser import picked

        return await picked.offer_files(files)
    raise ConfigError(
        f"{files!r} is not a file of a page; outside of a browser give ModelRecord a path"
    )
