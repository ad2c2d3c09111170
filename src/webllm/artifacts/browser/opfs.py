"""Blobs in the origin private file system (OPFS): one file per Blob."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import js
from pyodide.ffi import to_js

from webllm.artifacts.browser.blobs import NAME, done, found, no_store
from webllm.errors import ArtifactError


class OpfsBlobs:
    """A `BlobStore` in OPFS. A file becomes visible when its writer is closed."""

    def __init__(self) -> None:
        handle = getattr(js, "FileSystemFileHandle", None)  # Safari before 26 cannot write
        if handle is None or not hasattr(handle.prototype, "createWritable"):
            raise no_store("opfs", "file system for sites")

    async def get(self, key: str) -> Any | None:
        handle = await found(await _folder(), "getFileHandle", key)
        return await found(handle, "getFile") if handle else None

    async def put(self, key: str, blob: Any) -> None:
        handle = await done(await _folder(), "getFileHandle", key, _creating())
        writable = await done(handle, "createWritable")
        try:
            await done(writable, "write", blob)
            await done(writable, "close")
        except BaseException:
            with suppress(ArtifactError):
                await done(writable, "abort")  # fails if the write has failed
            with suppress(ArtifactError):  # the first error is the one to report
                if not (await done(handle, "getFile")).size:
                    await self.delete(key)
            raise

    async def delete(self, key: str) -> None:
        await found(await _folder(), "removeEntry", key)

    async def keys(self, prefix: str) -> set[str]:
        names = await done(js.Array, "fromAsync", await done(await _folder(), "keys"))
        return {name for name in names if name.startswith(prefix)}


async def _folder() -> Any:
    root = await done(js.navigator.storage, "getDirectory")
    return await done(root, "getDirectoryHandle", NAME, _creating())


def _creating() -> Any:
    return to_js({"create": True}, dict_converter=js.Object.fromEntries)
