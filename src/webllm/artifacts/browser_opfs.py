"""Blobs in the origin private file system (OPFS): a file for each."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import js
from pyodide.ffi import JsException, to_js

from webllm.artifacts.browser_blobs import NAME, done, no_store, settled
from webllm.errors import ArtifactError


class OpfsBlobs:
    """See `BlobStore`. A file that is being written is seen when it is closed."""

    def __init__(self) -> None:
        if not hasattr(js.navigator, "storage"):
            raise no_store("opfs", "file system")

    async def get(self, key: str) -> Any | None:
        folder = await _folder()
        try:
            return await settled((await settled(folder.getFileHandle(key))).getFile())
        except JsException as error:
            if error.name == "NotFoundError":
                return None
            raise

    async def put(self, key: str, blob: Any) -> None:
        handle = await done(await _folder(), "getFileHandle", key, _creating())
        writable = await done(handle, "createWritable")
        try:
            await done(writable, "write", blob)
            await done(writable, "close")
        except BaseException:
            with suppress(ArtifactError):
                await done(writable, "abort")  # may have failed already
            if not (await done(handle, "getFile")).size:
                await self.delete(key)
            raise

    async def delete(self, key: str) -> None:
        folder = await _folder()
        try:
            await settled(folder.removeEntry(key))
        except JsException as error:
            if error.name != "NotFoundError":
                raise

    async def keys(self, prefix: str) -> set[str]:
        names = (await _folder()).keys()
        return {name async for name in names if name.startswith(prefix)}


async def _folder() -> Any:
    root = await done(js.navigator.storage, "getDirectory")
    return await done(root, "getDirectoryHandle", NAME, _creating())


def _creating() -> Any:
    return to_js({"create": True}, dict_converter=js.Object.fromEntries)
