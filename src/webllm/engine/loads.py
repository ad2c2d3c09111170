"""The turns of the loads of one engine, and the way `unload` stops them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from webllm.engine.background import TurnLock
from webllm.errors import ModelNotLoadedError


class Loads:
    """Runs loads one at a time, first come, first served, until `stopped` stops them.

    May be used on one event loop after another.
    """

    def __init__(self) -> None:
        self._turn = TurnLock()
        self._begun: list[_Load] = []  # running or waiting for their turn

    async def run(self, load: Callable[[], Awaitable[None]], model_ids: Iterable[str]) -> None:
        """Runs a load in its turn.

        Raises ModelNotLoadedError if `stopped` has stopped it, once it has cleaned up.
        """
        begun = _Load()
        self._begun.append(begun)
        try:
            async with self._turn:
                await load()
        except BaseException as error:
            if not (begun.end() and isinstance(error, asyncio.CancelledError)):
                raise
        else:
            if not begun.end():
                return
        finally:
            self._begun.remove(begun)
        # Outside of `except`: the error would refer to the frames of the load, and so to its file.
        raise load_stopped(model_ids)

    @asynccontextmanager
    async def stopped(self) -> AsyncIterator[None]:
        """Stops every load that has begun, waits until all have cleaned up, and takes the turn.

        Loads that begin later wait for the end of the block.
        """
        for load in self._begun:
            load.stop()
        async with self._turn:
            yield


def load_stopped(model_ids: Iterable[str]) -> ModelNotLoadedError:
    return ModelNotLoadedError(
        f"the load of {', '.join(model_ids)} was stopped by unload(); the bytes fetched so far "
        "are kept: call reload again to continue"
    )


class _Load:
    """A load of the current task. It is stopped as `asyncio.timeout` stops its block."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._num_cancelled = task.cancelling()
        self._is_stopped = False

    def stop(self) -> None:
        """Cancels the load, once: a second cancellation would interrupt its cleaning up."""
        if not self._is_stopped:
            self._is_stopped = True
            self._task.cancel()

    def end(self) -> bool:
        """Takes the cancellation back; returns whether `stop`, and nobody else, cancelled."""
        return self._is_stopped and self._task.uncancel() <= self._num_cancelled
