"""`SharedLoad`: one load of models, for all clients that ask for the same ones meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from webllm.artifacts.progress import InitProgressReport
from webllm.engine.loads import load_stopped
from webllm.workers.connection import Connection, Models

Report = Callable[[InitProgressReport], None]


class SharedLoad:
    """A load in a task of its own, which is cancelled when nobody waits for it any more.

    load: loads the models. on_end: called with this when the task has ended.
    """

    def __init__(
        self,
        models: Models,
        load: Callable[[SharedLoad], Coroutine[Any, Any, None]],
        on_end: Callable[[SharedLoad], None],
    ) -> None:
        self.models = models
        self._waiting: list[tuple[Connection, Report]] = []
        self._last: InitProgressReport | None = None
        self._task = asyncio.create_task(load(self))
        self._task.add_done_callback(_retrieve_error)
        self._task.add_done_callback(lambda _: on_end(self))

    @property
    def clients(self) -> list[Connection]:
        """Those that wait for the load."""
        return [client for client, _ in self._waiting]

    def can_serve(self, models: Models) -> bool:
        """Whether a client that asks for these models may wait for this load."""
        is_wanted = not self._task.done() and self._task.cancelling() == 0
        return is_wanted and models.is_same(self.models)

    def stop(self) -> None:
        """Cancels the load; those who wait for it get ModelNotLoadedError."""
        self._task.cancel()

    def report(self, progress: InitProgressReport) -> None:
        """Reports to all who wait; those who come later begin with the last report."""
        self._last = progress
        for _, report in list(self._waiting):
            report(progress)

    async def wait(self, client: Connection, report: Report) -> None:
        """Waits for the end of the load.

        Raises its error, and ModelNotLoadedError if it was stopped.
        """
        waiter = (client, report)
        self._waiting.append(waiter)
        try:
            if self._last is not None:
                report(self._last)
            await asyncio.wait([self._task])
        finally:
            self._waiting.remove(waiter)
            if not self._waiting:
                self._task.cancel()
        if self._task.cancelled():
            raise load_stopped(self.models.ids)
        self._task.result()


def _retrieve_error(load: asyncio.Task[None]) -> None:
    """Keeps asyncio from reporting the error of a load for which nobody waits."""
    if not load.cancelled():
        load.exception()
