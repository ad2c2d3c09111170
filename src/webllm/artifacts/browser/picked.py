"""Model files that the user picked from disk, read in place: never copied, never stored.

The page that offers a file keeps it for as long as it is open. So the source "picked:<id>/<name>"
works in every worker of the site.
"""

from __future__ import annotations

from typing import Any

from webllm.artifacts.browser.store import answered, stores_module
from webllm.errors import ConfigError


def is_picked(source: str) -> bool:
    return source.startswith("picked:")


async def offer_file(file: Any) -> str:
    """Returns a source for a JavaScript File or FileSystemFileHandle, valid while the page is open.

    Raises ConfigError for anything else.
    """
    is_file = isinstance(getattr(file, "name", None), str) and hasattr(file, "arrayBuffer")
    if not is_file and not hasattr(file, "getFile"):
        raise ConfigError(f"{file!r} is neither a File nor a FileSystemFileHandle")
    source: str = await answered((await stores_module()).offerFile(file))
    return source


async def open_picked(source: str) -> Any:
    """Returns the `WindowedFile` of a source; raises ModelNotFoundError if its page was closed."""
    return await answered((await stores_module()).openPicked(source))
