"""The stores there are in a browser, by the names that AppConfig has for them."""

from __future__ import annotations

from webllm.artifacts.browser_blobs import BlobStore, SessionBlobs
from webllm.artifacts.browser_cache_api import CacheApiBlobs
from webllm.artifacts.browser_indexeddb import IndexedDbBlobs
from webllm.artifacts.browser_opfs import OpfsBlobs
from webllm.errors import ConfigError


def open_blobs(backend: str | None) -> BlobStore:
    """None: the Cache API. Raises ConfigError for what there is not in this browser."""
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
