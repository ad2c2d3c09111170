"""The space that the browser gives this site, and the request to keep it."""

from __future__ import annotations

from typing import Any

import js
from pyodide.ffi import to_js

from webllm.artifacts.browser.blobs import done
from webllm.errors import ArtifactError, StorageFullError

_OVERHEAD_BYTES = 1 << 20  # what stores add: keys, tables


async def require_space(num_bytes: int, url: str) -> None:
    """Raises StorageFullError if `num_bytes` more do not fit the browser's estimate.

    Without an estimate (Safari before 17) it passes; writing then fails if the space is used up.
    """
    storage = _storage()
    if storage is None or not hasattr(storage, "estimate"):
        return
    try:
        estimate = await done(storage, "estimate")
    except ArtifactError:
        return
    quota, usage = int(estimate.quota), int(estimate.usage)
    if num_bytes + _OVERHEAD_BYTES > quota - usage:
        raise StorageFullError(
            f"{url} needs {num_bytes / 1e6:.0f} MB more, but the browser lets this site store "
            f"{quota / 1e6:.0f} MB, of which {usage / 1e6:.0f} MB are used; delete a model "
            "(delete_model_all_info_in_cache), choose a smaller one, or do not store it: "
            "AppConfig(cache_backend='none')"
        )


def ask_to_keep() -> None:
    """Asks the browser not to evict this site's storage; it may refuse.

    Only a page can ask, not a worker. The answer is not awaited: the browser may ask the user.
    """
    storage = _storage()
    if storage is not None and hasattr(storage, "persist"):
        js.Promise.allSettled(to_js([storage.persist()]))


def _storage() -> Any | None:
    """Returns navigator.storage; None on a page without https."""
    return getattr(js.navigator, "storage", None) or None
