"""Awaits JavaScript's promises."""

from __future__ import annotations

import asyncio
from typing import Any


async def settled(promise: Any) -> Any:
    """Awaits a promise in a way that may be cancelled.

    Pyodide fails if a promise settles after its await was cancelled, and `asyncio.shield` would
    report an error of it to the console.
    """
    future = asyncio.ensure_future(promise)
    future.add_done_callback(lambda _: future.cancelled() or future.exception())
    await asyncio.wait([future])
    return future.result()
