"""Where a browser keeps bytes: Blobs by key, behind one protocol. The kinds have a file each.

Knows nothing of models: see `browser_store` for how a file is made of Blobs.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, Protocol

import js
from pyodide.ffi import JsException, to_js

from webllm.errors import ArtifactError, ConfigError, StorageFullError

NAME = "webllm"  # of our cache, database or folder in the site's storage


class BlobStore(Protocol):
    """Blobs by key: letters, digits, "-" and ".". `put` replaces, whole or not at all.

    Raises StorageFullError where the quota of the site is used up, or it may keep nothing;
    ArtifactError for whatever else the browser's store fails with.
    """

    async def get(self, key: str) -> Any | None:
        """The Blob, whose bytes are read when they are asked for; None if it is not here."""

    async def put(self, key: str, blob: Any) -> None: ...

    async def delete(self, key: str) -> None:
        """Harmless if it is not here."""

    async def keys(self, prefix: str) -> set[str]: ...


class SessionBlobs:
    """Keeps nothing beyond this object: the choice to run without storing."""

    def __init__(self) -> None:
        self._blobs: dict[str, Any] = {}

    async def get(self, key: str) -> Any | None:
        return self._blobs.get(key)

    async def put(self, key: str, blob: Any) -> None:
        self._blobs[key] = blob

    async def delete(self, key: str) -> None:
        self._blobs.pop(key, None)

    async def keys(self, prefix: str) -> set[str]:
        return {key for key in self._blobs if key.startswith(prefix)}


def no_store(backend: str, missing: str) -> ConfigError:
    """The error where a browser has no such store."""
    if js.isSecureContext:
        where = "in this browser; give 'cache', 'indexeddb' or 'none'"
    else:
        where = (
            "here: browsers have it on https and localhost only; serve the site so, or give "
            "'indexeddb' or 'none'"
        )
    return ConfigError(f"cache_backend is {backend!r}, but there is no {missing} {where}")


async def settled(promise: Any) -> Any:
    """`await promise`, which may be cancelled: Pyodide fails when it settles after that, and
    asyncio.shield reports how it ended to the console.
    """
    future = asyncio.ensure_future(promise)
    future.add_done_callback(lambda _: future.cancelled() or future.exception())
    await asyncio.wait([future])
    return future.result()


async def done(target: Any, method: str, *arguments: Any) -> Any:
    """`await target.method(*arguments)` of a store. Raises what the store's error stands for."""
    value, failure = await _outcome(target, method, arguments)
    if failure is not None:
        raise store_error(failure)
    return value


async def found(target: Any, method: str, *arguments: Any) -> Any | None:
    """As `done`; None for a NotFoundError."""
    value, failure = await _outcome(target, method, arguments)
    if failure not in (None, "NotFoundError"):
        raise store_error(failure)
    return value


async def _outcome(target: Any, method: str, arguments: tuple[Any, ...]) -> tuple[Any, str | None]:
    """The value, or the name of the error.

    The promise stays in JavaScript, in an array: as a future, Pyodide would wait forever for one
    that ends in Chromium's QuotaExceededError, which it cannot raise.
    """
    apply = js.Reflect.apply  # ignores what Array.from adds to its arguments
    call = [None, getattr(target, method), target, to_js(arguments)]
    try:
        bound = apply(js.Function.prototype.bind, apply, to_js(call, depth=1))
        promises = getattr(js.Array, "from")(to_js([None]), bound)
    except JsException as error:
        return None, thrown_name(error)
    outcome = (await settled(js.Promise.allSettled(promises)))[0]
    if outcome.status == "rejected":
        return None, outcome.reason.name or "Error"
    return outcome.value, None


def thrown_name(error: JsException) -> str:
    """Pyodide takes Chromium's DOMExceptions for no errors, and raises one that quotes them."""
    quoted = re.search(r'"""(\w+Error): ', str(error))
    return quoted[1] if quoted else str(error.name)


def store_error(name: str) -> ArtifactError:
    """Of a DOMException's name."""
    if name == "QuotaExceededError":
        return StorageFullError(
            "the browser's storage for this site is full; delete a model, choose a smaller "
            "one, or load it without storing it: AppConfig(cache_backend='none')"
        )
    if name == "SecurityError":
        return StorageFullError(
            "the browser lets this site store nothing; allow it to store data, or load the model "
            "without storing it: AppConfig(cache_backend='none')"
        )
    return ArtifactError(
        f"the browser's store failed ({name}); try again, or load the model without storing it: "
        "AppConfig(cache_backend='none')"
    )
