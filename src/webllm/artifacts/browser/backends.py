"""Chooses a browser's store by its name in `AppConfig.cache_backend`."""

from __future__ import annotations

from webllm.artifacts.browser.blobs import BlobStore, SessionBlobs
from webllm.artifacts.browser.cache_api import CacheApiBlobs
from webllm.artifacts.browser.indexeddb import IndexedDbBlobs
from webllm.artifacts.browser.opfs import OpfsBlobs
from webllm.errors import ConfigError


def open_blobs(backend: str | None) -> BlobStore:
    """Opens a store; None means the Cache API. Raises ConfigError if this browser has none such."""
    match backend:
        case None | "cache":
            return CacheApiBlobs()
        case "indexeddb":
            return IndexedDbBlobs()
        case "opfs":
            return OpfsBlobs()
        case "none":
            return SessionBlobs()
    raise ConfigError(
        f"cache_backend is {backend!r}; in a browser give 'cache', 'indexeddb', 'opfs' or 'none'"
    )
