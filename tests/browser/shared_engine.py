"""Pages of a site that share one engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import BrowserContext, Page

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
