"""Blobs in the Cache API: one Response per Blob."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import js
from pyodide.ffi import to_js

from webllm.artifacts.browser.blobs import NAME, done, no_store

_FOLDER = "/webllm-models/"  # the keys are URLs; these are never fetched


class CacheApiBlobs:
    """A `BlobStore` in the Cache API."""

    def __init__(self) -> None:
        if not hasattr(js, "caches"):
            raise no_store("cache", "Cache API")

    async def get(self, key: str) -> Any | None:
        response = await done(await self._cache(), "match", _FOLDER + key)
        return await done(response, "blob") if response else None

    async def put(self, key: str, blob: Any) -> None:
        # Without the header, the size would be known only by reading.
        headers = {"headers": {"Content-Length": str(blob.size)}}
        options = to_js(headers, dict_converter=js.Object.fromEntries)
        await done(await self._cache(), "put", _FOLDER + key, js.Response.new(blob, options))

    async def delete(self, key: str) -> None:
        await done(await self._cache(), "delete", _FOLDER + key)

    async def keys(self, prefix: str) -> set[str]:
        requests = await done(await self._cache(), "keys")
        keys = {urlsplit(request.url).path.removeprefix(_FOLDER) for request in requests}
        return {key for key in keys if key.startswith(prefix)}

    async def _cache(self) -> Any:
        return await done(js.caches, "open", NAME)
