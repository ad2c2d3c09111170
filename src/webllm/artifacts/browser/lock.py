"""Locks on stored files over all tabs and workers of a site (Web Locks API)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import js
from pyodide.ffi import create_proxy, to_js

from webllm.errors import ArtifactError


@asynccontextmanager
async def locked(name: str, on_wait: Callable[[], None]) -> AsyncIterator[None]:
    """Holds the lock; `on_wait` is called if another holds it. Without the API there is no lock."""
    async with locked_if_free(name) as is_ours:
        if is_ours:
            yield
            return
    on_wait()
    async with _requested(name, if_free=False):
        yield


@asynccontextmanager
async def locked_if_free(name: str) -> AsyncIterator[bool]:
    """Holds the lock and yields True; yields False if it is held already.

    Without the API it yields True and holds nothing.
    """
    if not hasattr(js.navigator, "locks"):  # for example on a page without https
        yield True
        return
    async with _requested(name, if_free=True) as is_ours:
        yield is_ours


@asynccontextmanager
async def _requested(name: str, *, if_free: bool) -> AsyncIterator[bool]:
    answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    released = js.Promise.withResolvers()

    def on_answer(lock: Any) -> Any:
        if not answered.done():
            answered.set_result(bool(lock))
        return released.promise

    def on_failure(error: Any) -> None:
        if not answered.done():
            answered.set_exception(
                ArtifactError(f"the browser refused a lock for the model ({error}); try again")
            )

    callback, abort = create_proxy(on_answer), js.AbortController.new()
    how = {"ifAvailable": True} if if_free else {"signal": abort.signal}
    options = to_js(how, dict_converter=js.Object.fromEntries)
    request = js.navigator.locks.request(name, options, callback)
    ended = request.then(lambda _: None, on_failure)
    try:
        yield await answered
    finally:
        abort.abort()  # no effect once the lock is granted
        released.resolve()
        await ended
        callback.destroy()
