"""Service Workers in Chromium: their consoles, and stops through the DevTools protocol."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import BrowserContext, ConsoleMessage, Page

from browser.chromium import HARMLESS, TIMEOUT_S, new_context


@asynccontextmanager
async def quiet_context() -> AsyncIterator[BrowserContext]:
    """Opens a new browser; fails if a console of its pages or workers has warnings or errors."""
    problems: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(HARMLESS):
            problems.append(f"{message.type}: {message.text}")

    async with new_context() as context:
        context.on("console", on_console)
        context.on("weberror", lambda error: problems.append(f"uncaught: {error.error}"))
        context.on("serviceworker", lambda worker: worker.on("console", on_console))
        yield context
        assert not problems, problems


class WorkerVersions:
    """The Service Workers of a page's browser, as its DevTools protocol tells."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._versions: dict[str, dict[str, Any]] = {}
        self._num_stops: Counter[str] = Counter()  # by version
        self._changed = asyncio.Condition()
        self.stopped_at: list[float] = []  # s, as time.time

    @classmethod
    async def of(cls, page: Page) -> WorkerVersions:
        session = await page.context.new_cdp_session(page)
        versions = cls(session)
        session.on("ServiceWorker.workerVersionUpdated", versions._update)
        await session.send("ServiceWorker.enable")
        return versions

    async def stop(self) -> None:
        """Stops the active worker, as a browser does that is short of memory."""
        await self._stop(await self._wait("running"))

    async def stop_if_running(self) -> bool:
        """As `stop`, but returns False at once if the active worker does not run."""
        version = self._find("running")
        if version is not None:
            await self._stop(version)
        return version is not None

    async def _stop(self, version: str) -> None:
        self.stopped_at.append(time.time())
        num_stops = self._num_stops[version]
        await self._session.send("ServiceWorker.stopWorker", {"versionId": version})
        async with asyncio.timeout(TIMEOUT_S), self._changed:
            # Another page may have started it again already.
            await self._changed.wait_for(lambda: self._num_stops[version] > num_stops)

    def _update(self, event: dict[str, Any]) -> None:
        for version in event["versions"]:
            key = version["versionId"]
            self._versions[key] = version
            self._num_stops[key] += version["runningStatus"] == "stopped"
        asyncio.ensure_future(self._tell())  # noqa: RUF006

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _find(self, status: str) -> str | None:
        for key, each in self._versions.items():
            if each["status"] == "activated" and each["runningStatus"] == status:
                return key
        return None

    async def _wait(self, status: str) -> str:
        async with asyncio.timeout(TIMEOUT_S), self._changed:
            version = await self._changed.wait_for(lambda: self._find(status))
            assert version is not None
            return version
