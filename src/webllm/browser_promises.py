"""Awaits JavaScript's promises in a way that may be cancelled."""

from __future__ import annotations

import asyncio
from typing import Any


def handled(promise: Any) -> asyncio.Future[Any]:
    """Returns a promise's future, whose error is not reported if nobody awaits it."""
    future: asyncio.Future[Any] = asyncio.ensure_future(promise)
    future.add_done_callback(lambda _: future.cancelled() or future.exception())
    return future


async def settled(promise: Any) -> Any:
    """Returns a promise's value, or raises its error.

    Pyodide fails if a promise settles after its await was cancelled, and `asyncio.shield` would
    report an error of it to the console.
    """
    future = handled(promise)
    await asyncio.wait([future])
    return future.result()
