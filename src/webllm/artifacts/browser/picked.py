"""Model files that the user picked from disk, read in place: never copied, never stored.

The page that offers files keeps them for as long as it is open. So the source "picked:<id>/<name>"
works in every worker of the site. Several files that were picked together are one model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyodide.ffi import to_js

from webllm.artifacts.browser.files import SourceFile
from webllm.artifacts.browser.store import answered, stores_module
from webllm.artifacts.files import FileSpec
from webllm.errors import ConfigError


def is_picked(source: str) -> bool:
    return source.startswith("picked:")


async def offer_files(picked: Any) -> str:
    """Returns a source for JavaScript Files or FileSystemFileHandles, one or a sequence of them.

    It is valid while the page is open. Raises ConfigError for anything else.
    """
    each = list(picked) if isinstance(picked, list | tuple) else [picked]
    for file in each:
        is_file = isinstance(getattr(file, "name", None), str) and hasattr(file, "arrayBuffer")
        if not is_file and not hasattr(file, "getFile"):
            raise ConfigError(f"{file!r} is neither a File nor a FileSystemFileHandle")
    source: str = await answered((await stores_module()).offerFiles(to_js(each)))
    return source


async def open_picked(source: str) -> dict[str, SourceFile]:
    """Returns the files of a source; raises ModelNotFoundError if its page was closed."""
    found = await answered((await stores_module()).openPicked(source))
    return {str(name): SourceFile(windows) for name, windows in found}


class PickedFolder:
    """Files that the user picked together; see `Folder` for its members."""

    def __init__(self, source: str, files: Mapping[str, SourceFile]) -> None:
        self._source, self._files = source, files

    def __str__(self) -> str:
        return self._source

    async def load(self, name: str) -> bytes | None:
        file = self._files.get(name)
        if file is None:
            return None
        data: bytes = (await file.read(0, file.num_bytes)).to_bytes()
        return data

    async def find(self, name: str) -> FileSpec | None:
        return FileSpec(name, self._files[name].num_bytes) if name in self._files else None

    async def names(self) -> Sequence[str]:
        return sorted(self._files)
