"""Runs long work beside the event loop: in threads, or in turns where there are none."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from webllm.host import Host
from webllm.text.steps import Steps

_P = ParamSpec("_P")
_T = TypeVar("_T")

_PAUSE_EVERY_S = 0.03
_PAUSE_S = 0.003  # for 2 ms or less Pyodide makes no timer, and messages would wait


class Pauses:
    """Lets incoming messages through: a browser delivers them while Python waits for a timer.

    last: the time of the last pause, in seconds of `time.perf_counter`.
    """

    def __init__(self, host: Host, last: float = 0.0) -> None:
        self._is_browser = host.is_browser
        self._last = last

    async def pause(self) -> None:
        """Waits for a timer in a browser, if the last pause was 30 ms ago; else returns at once."""
        if self._is_browser and time.perf_counter() - self._last > _PAUSE_EVERY_S:
            await asyncio.sleep(_PAUSE_S)
            self._last = time.perf_counter()


async def in_background(
    host: Host, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
) -> _T:
    """Calls a function in a thread; on the event loop if the host has no threads."""
    if host.has_threads:
        return await asyncio.to_thread(function, *args, **kwargs)
    return function(*args, **kwargs)


async def to_its_end(cleanup: Coroutine[Any, Any, None]) -> None:
    """Runs a clean-up to its end, even if the caller is cancelled meanwhile; raises that then."""
    task = asyncio.create_task(cleanup)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        ignore_result(task)
        raise cancelled
    task.result()


def ignore_result(work: asyncio.Future[_T]) -> None:
    """A done callback for abandoned work: asyncio does not report its error."""
    if not work.cancelled():
        work.exception()


class TurnLock:
    """An `asyncio.Lock` that may be used on one event loop after another, as an engine may.

    An `asyncio.Lock` alone belongs to the event loop that first waits for it.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> None:
        if self._loop is not (running := asyncio.get_running_loop()):
            self._loop, self._lock = running, asyncio.Lock()
        await self._lock.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()


class _StoppedError(Exception):
    """The caller was cancelled, so nobody waits for the result."""


class SerialExecutor:
    """Runs long work on text beside the event loop: one task at a time, first come, first served.

    Each task may come from a different event loop.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._turn = asyncio.Lock()  # used without threads, where there is one event loop
        self._thread = ThreadPoolExecutor(1, "webllm-text")  # starts with the first task

    async def run(self, steps: Steps[_T]) -> _T:
        """Runs a task and returns its result.

        If the caller is cancelled, the task ends after its current step.
        """
        if not self._host.has_threads:
            async with self._turn:
                return await _run_steps_with_pauses(steps, Pauses(self._host, time.perf_counter()))
        stopped = threading.Event()
        event_loop = asyncio.get_running_loop()
        try:
            return await event_loop.run_in_executor(self._thread, _run_steps, steps, stopped)
        finally:
            stopped.set()


async def _run_steps_with_pauses(steps: Steps[_T], pauses: Pauses) -> _T:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _T = end.value
            return result
        await pauses.pause()


def _run_steps(steps: Steps[_T], stopped: threading.Event) -> _T:
    while not stopped.is_set():
        try:
            next(steps)
        except StopIteration as end:
            result: _T = end.value
            return result
    raise _StoppedError
