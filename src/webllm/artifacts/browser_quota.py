"""What the browser lets this site keep."""

from __future__ import annotations

from typing import Any

import js
from pyodide.ffi import to_js

from webllm.artifacts.browser_blobs import done
from webllm.errors import ArtifactError, StorageFullError

_NOTE_BYTES = 1 << 20  # for what stores add: keys, tables


async def require_space(num_bytes: int, url: str) -> None:
    """Raises StorageFullError if the browser says that so many more do not fit.

    Where it says nothing (Safari before 17) or fails, the store itself will tell.
    """
    storage = _storage()
    if storage is None or not hasattr(storage, "estimate"):
        return
    try:
        estimate = await done(storage, "estimate")
    except ArtifactError:
        return
    quota, usage = int(estimate.quota), int(estimate.usage)
    if num_bytes + _NOTE_BYTES > quota - usage:
        raise StorageFullError(
            f"{url} needs {num_bytes / 1e6:.0f} MB more, but the browser lets this site store "
            f"{quota / 1e6:.0f} MB, of which {usage / 1e6:.0f} MB are used; delete a model "
            "(delete_model_all_info_in_cache), choose a smaller one, or do not store it: "
            "AppConfig(cache_backend='none')"
        )


def ask_to_keep() -> None:
    """Asks the browser not to clear this site's storage by itself. It may refuse.

    Only a page can ask, not a worker. Nothing waits for the answer: it may be a person's.
    """
    storage = _storage()
    if storage is not None and hasattr(storage, "persist"):
        js.Promise.allSettled(to_js([storage.persist()]))


def _storage() -> Any | None:
    """None on a page without https."""
    return getattr(js.navigator, "storage", None) or None
