"""From a model source to an open checkpoint: the one fork between browser and native."""

from __future__ import annotations

import sys

from webllm.artifacts.checkpoint import Checkpoint
from webllm.artifacts.progress import ProgressCallback


async def open_model(
    source: str, store: str | None, on_progress: ProgressCallback | None
) -> Checkpoint:
    """Fetches what is not in the store yet.

    store: the kind a browser keeps files in, see `browser_store.open_store`; natively it is a
    directory. Raises what finding, fetching and opening raise.
    """
    if sys.platform == "emscripten":
        from webllm.artifacts import browser

        return await browser.open_model(source, store, on_progress)

    from webllm.artifacts.gguf import open_gguf
    from webllm.artifacts.resolve import ensure_artifact
    from webllm.artifacts.store import DirectoryStore

    return open_gguf(await ensure_artifact(source, DirectoryStore(), on_progress))
