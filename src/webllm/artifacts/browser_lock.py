"""One download of a file at a time, over all tabs and workers of a site: the Web Locks API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import js
from pyodide.ffi import create_proxy, to_js


@asynccontextmanager
async def locked(name: str, on_wait: Callable[[], None]) -> AsyncIterator[None]:
    """Holds the lock; `on_wait` is called first if another has it. Without the API: no lock."""
    if not hasattr(js.navigator, "locks"):  # as on a page without https
        yield
        return
    if not await is_free(name):
        on_wait()
    granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    released = js.Promise.withResolvers()

    def on_granted(_: Any) -> Any:
        if not granted.done():
            granted.set_result(None)
        return released.promise

    callback, abort = create_proxy(on_granted), js.AbortController.new()
    options = to_js({"signal": abort.signal}, dict_converter=js.Object.fromEntries)
    request = js.navigator.locks.request(name, options, callback)
    ended = request.then(lambda _: None, lambda _: None)
    try:
        await granted
        yield
    finally:
        abort.abort()  # of no effect once it is granted
        released.resolve()
        await ended
        callback.destroy()


async def is_free(name: str) -> bool:
    """Whether nobody holds it."""
    if not hasattr(js.navigator, "locks"):
        return True
    held = (await js.navigator.locks.query()).held
    return all(lock.name != name for lock in held)
