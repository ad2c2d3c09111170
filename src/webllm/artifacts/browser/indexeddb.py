"""Blobs in IndexedDB: one table, one transaction per call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import js
from pyodide.ffi import JsException, create_proxy

from webllm.artifacts.browser.blobs import NAME, store_error, thrown_name

_TABLE = "blobs"
_VERSION = 1


class IndexedDbBlobs:
    """A `BlobStore` in IndexedDB; the database is open only during calls, so it can be deleted."""

    async def get(self, key: str) -> Any | None:
        found = await self._run("readonly", lambda table: table.get(key))
        return found or None

    async def put(self, key: str, blob: Any) -> None:
        await self._run("readwrite", lambda table: table.put(blob, key))

    async def delete(self, key: str) -> None:
        await self._run("readwrite", lambda table: table.delete(key))

    async def keys(self, prefix: str) -> set[str]:
        keys = js.IDBKeyRange.bound(prefix, prefix + "\uffff")
        return set(await self._run("readonly", lambda table: table.getAllKeys(keys)))

    async def _run(self, mode: str, ask: Callable[[Any], Any]) -> Any:
        """Runs one request in a transaction of its own: its write is complete or has no effect."""
        try:
            database = await _opened(js.indexedDB.open(NAME, _VERSION))
            try:
                transaction = database.transaction(_TABLE, mode)
                request = ask(transaction.objectStore(_TABLE))
                await _fired(transaction, good="complete", bad="abort")
                return request.result
            finally:
                database.close()
        except JsException as error:
            raise store_error(thrown_name(error)) from None


async def _opened(opening: Any) -> Any:
    upgrade = create_proxy(lambda _: opening.result.createObjectStore(_TABLE) and None)
    opening.addEventListener("upgradeneeded", upgrade)
    try:
        await _fired(opening, good="success", bad="error")
    finally:
        opening.removeEventListener("upgradeneeded", upgrade)
        upgrade.destroy()
    return opening.result


async def _fired(target: Any, *, good: str, bad: str) -> None:
    """Waits for one of two events; raises the store's error if it is `bad`."""
    fired: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def on_event(event: Any) -> None:
        if not fired.done():
            fired.set_result(event.type)

    listener = create_proxy(on_event)
    for kind in (good, bad):
        target.addEventListener(kind, listener)
    try:
        kind = await fired
    finally:
        for kind_of_event in (good, bad):
            target.removeEventListener(kind_of_event, listener)
        listener.destroy()
    if kind != good:
        raise store_error(target.error.name if target.error else "AbortError")
