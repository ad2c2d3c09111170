"""The protocol of a browser's stores, Blobs by key, and their errors as errors of ours.

Each kind of store has a file of its own. Stores know nothing of models: `store` makes a
model file of Blobs.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

import js
from pyodide.ffi import JsException, to_js

from webllm.artifacts.browser.promises import settled
from webllm.errors import ArtifactError, ConfigError, StorageFullError

NAME = "webllm"  # name of our cache, database or folder in the site's storage


class BlobStore(Protocol):
    """Blobs by key; a key has letters, digits, "-" and ".". `put` replaces atomically.

    Raises StorageFullError where the site's quota is used up or the site may store nothing,
    ArtifactError for any other failure of the browser's store.
    """

    async def get(self, key: str) -> Any | None:
        """Returns the Blob, whose bytes are read lazily; None if it is absent."""

    async def put(self, key: str, blob: Any) -> None: ...

    async def delete(self, key: str) -> None:
        """Deletes a Blob; does nothing if it is absent."""

    async def keys(self, prefix: str) -> set[str]: ...


class SessionBlobs:
    """A store in memory, for `cache_backend="none"`: it lives as long as this object."""

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
    """Makes the error for a store that this browser does not have."""
    if js.isSecureContext:
        where = "in this browser; give 'cache', 'indexeddb' or 'none'"
    else:
        where = (
            "here: browsers have it on https and localhost only; serve the site so, or give "
            "'indexeddb' or 'none'"
        )
    return ConfigError(f"cache_backend is {backend!r}, but there is no {missing} {where}")


async def done(target: Any, method: str, *arguments: Any) -> Any:
    """Awaits `target.method(*arguments)` of a store; raises `store_error` of its failure."""
    value, failure = await _outcome(target, method, arguments)
    if failure is not None:
        raise store_error(failure)
    return value


async def found(target: Any, method: str, *arguments: Any) -> Any | None:
    """Does as `done`, but returns None for a NotFoundError."""
    value, failure = await _outcome(target, method, arguments)
    if failure not in (None, "NotFoundError"):
        raise store_error(failure)
    return value


async def _outcome(target: Any, method: str, arguments: tuple[Any, ...]) -> tuple[Any, str | None]:
    """Returns the value of a call, or the name of its error.

    The promise stays in JavaScript, in an array. Pyodide cannot raise Chromium's
    QuotaExceededError: a future of a promise that ends in it would never be done.
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
    """The name of a DOMException, which Pyodide may wrap in an error that quotes it (Chromium)."""
    quoted = re.search(r'"""(\w+Error): ', str(error))
    return quoted[1] if quoted else str(error.name)


def store_error(name: str) -> ArtifactError:
    """Makes our error for the DOMException called `name`."""
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
