"""An engine that all pages of a site share: pages that use it, and the end of its worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import BrowserContext, CDPSession, Page

from browser.chromium import watched_page
from browser.site_server import SiteServer

MAX_TOKENS = 32
_TEXT = "The sea is deep and the sky is high, and the ships sail far away. " * 8
_PENALTIES = {"frequency_penalty": 0.5, "presence_penalty": 0.3, "repetition_penalty": 1.1}
REQUESTS: list[dict[str, Any]] = [
    {"prompt": _TEXT, "temperature": 0, "max_tokens": MAX_TOKENS},
    {"prompt": "Once upon a time", "seed": 7, "n": 2, "max_tokens": MAX_TOKENS},
    {"prompt": "one two three " * 9, "seed": 8, "max_tokens": MAX_TOKENS, **_PENALTIES},
]


@asynccontextmanager
async def shared_page(context: BrowserContext, site: SiteServer) -> AsyncIterator[Page]:
    """Opens a page with the functions of shared_engine.js, whose Service Worker is registered."""
    async with watched_page(context) as page:
        await open_shared(page, site)
        yield page


async def open_shared(page: Page, site: SiteServer) -> None:
    await page.goto(f"{site.url}/tests/shared_engine.html")
    await page.wait_for_function("'register' in window")
    await page.evaluate("register()")


class Workers:
    """The site's Service Worker, as the DevTools protocol of one of its pages shows it."""

    def __init__(self, session: CDPSession) -> None:
        self._session = session
        self._versions: dict[str, str] = {}  # running statuses by id
        self._changed = asyncio.Event()
        self.stopped_at: list[float] = []  # s, as time.time
        session.on("ServiceWorker.workerVersionUpdated", self._take)

    @classmethod
    async def of(cls, page: Page) -> Workers:
        workers = cls(await page.context.new_cdp_session(page))
        await workers._session.send("ServiceWorker.enable")
        return workers

    async def stop(self) -> bool:
        """Stops what runs, as the browser may at any time; returns whether anything ran."""
        running = [each for each, status in self._versions.items() if status == "running"]
        for each in running:
            self.stopped_at.append(time.time())
            await self._session.send("ServiceWorker.stopWorker", {"versionId": each})
            while self._versions.get(each) != "stopped":
                await self._changed.wait()
                self._changed.clear()
        return bool(running)

    def _take(self, event: dict[str, Any]) -> None:
        for version in event["versions"]:
            self._versions[version["versionId"]] = version["runningStatus"]
        self._changed.set()
