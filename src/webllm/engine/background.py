"""Work beside the event loop where there are threads, and turns for it where there are none."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


_PAUSE_EVERY_S = 0.03
_PAUSE_S = 0.003  # Pyodide makes no timer of 2 ms or less; messages would come ever more rarely


class Pauses:
    """Turns for what comes in. A browser delivers messages to Python only while a timer runs."""

    def __init__(self) -> None:
        self._last = 0.0

    async def pause(self) -> None:
        """Waits for a timer, now and then and only in a browser."""
        if sys.platform == "emscripten" and time.perf_counter() - self._last > _PAUSE_EVERY_S:
            await asyncio.sleep(_PAUSE_S)
            self._last = time.perf_counter()


async def in_background(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """The function's result; in a browser, which has no threads, the event loop waits for it."""
    if sys.platform == "emscripten":
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)
