"""Other extensions, WebLLM's npm client on a web site, and consent that takes its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page

from browser.chat_page import until
from browser.chromium import watched_page
from browser.extensions import (
    CLOCK,
    PAGES,
    Extension,
    decide,
    extension_id,
    running,
    write_client,
    write_real_package,
)
from browser.service_workers import WorkerVersions
from browser.site_server import DIST, SiteServer, serving
from browser.test_extension_engine import COLOURS, FILES, OUTSIDE, REFUSED
from golden import compare

pytestmark = pytest.mark.asyncio(loop_scope="module")  # the shared browser's event loop

HOSTS = ("127.0.0.1", "npm.localhost", "late.localhost", "stopped.localhost", "gone.localhost")
CLIENTS = ("allowed", "denied", "unlisted")  # other extensions
DENIED = "ServiceWorkerInitializationError: the extension {}: the user does not let {} use this "
UNLISTED = "ServiceWorkerInitializationError: the extension {}: Could not establish connection"
NO_ICON = '<link rel="icon" href="data:,">'


@dataclass(frozen=True)
class Outside:
    """A running extension, and those who may ask it. Each test has an origin of its own."""

    extension: Extension
    site: SiteServer
    clients: dict[str, str]  # ids of other extensions

    @property
    def extension_id(self) -> str:
        return self.extension.origin.removeprefix("chrome-extension://")

    def origin(self, host: str) -> str:
        return self.site.url_at(host)

    async def window(self) -> Page:
        """Waits for the window that asks the user."""
        window = await self.extension.context.wait_for_event("page")
        await window.wait_for_selector("#allow:not(:empty)")
        return window

    async def answered(self, asked: Awaitable[Any], button: str) -> Any:
        """Clicks a button of the window that a request opens; returns the reply."""
        reply = asyncio.ensure_future(asked)
        window = await self.window()
        await decide(window, button)
        return await reply


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def outside(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Outside]:
    folder = tmp_path_factory.mktemp("outsiders")
    others = [write_client(folder / name) for name in CLIENTS]
    clients = {other.name: extension_id(other) for other in others}
    may_connect = {
        "ids": [clients["allowed"], clients["denied"]],
        "matches": [f"http://{host}/*" for host in HOSTS],
    }
    model = await compare.model_path("smollm2-135m")
    package = write_real_package(folder / "package", model, externally_connectable=may_connect)
    for name, text in FILES.items():
        (folder / name).write_text(text.replace("<title>", f"{NO_ICON}<title>"))
    with serving({"": DIST, "tests": PAGES, "npm": folder}) as site:
        async with running(package, others=others) as extension:
            yield Outside(extension, site, clients)


async def test_other_extensions_connect_with_the_users_consent(outside: Outside) -> None:
    async with AsyncExitStack() as stack:
        asked = {}
        for name, client in outside.clients.items():
            page = await stack.enter_async_context(watched_page(outside.extension.context))
            await page.goto(f"chrome-extension://{client}/page.html")
            asked[name] = page.evaluate(OUTSIDE, outside.extension_id)
        text, host, *refused = await outside.answered(asked["allowed"], "#allow")
        assert (len(text) > 8, host) == (True, "offscreen")
        assert refused == REFUSED
        denial = await outside.answered(asked["denied"], "#deny")
        client = f"chrome-extension://{outside.clients['denied']}"
        assert denial.startswith(DENIED.format(outside.extension_id, client))
        num_pages = len(outside.extension.context.pages)
        assert (await asked["unlisted"]).startswith(UNLISTED.format(outside.extension_id))
        assert len(outside.extension.context.pages) == num_pages


async def test_the_npm_client_of_a_web_site(outside: Outside) -> None:
    async with watched_page(outside.extension.context) as page:
        await page.goto(f"{outside.origin('npm.localhost')}/npm/npm.html")
        await until(page, "'connect' in globalThis")
        config = {"modelId": "SmolLM2-135M", "extensionId": outside.extension_id}
        await outside.answered(page.evaluate("connect", config), "#allow")
        text = await page.evaluate("streamed", COLOURS)
        assert "Red" in text
        assert await page.evaluate("whole", COLOURS) == text
        part = await page.evaluate("([request]) => streamed(request, 3)", [COLOURS])
        assert text.startswith(part)
        assert await page.evaluate("whole", COLOURS) == text
        refused = await page.evaluate("engine.getMessage().catch(String)")
        assert "only pages of this extension may ask for getMessage" in refused
        async with outside.extension.popup() as popup:
            await (await WorkerVersions.of(popup)).stop()
            await until(page, "disconnects === 1")


async def test_consent_after_a_minute(outside: Outside) -> None:
    async with watched_page(outside.extension.context) as page:
        await page.add_init_script(CLOCK)
        await page.goto(f"{outside.origin('late.localhost')}/tests/empty.html")
        reply = asyncio.ensure_future(page.evaluate(OUTSIDE, outside.extension_id))
        window = await outside.window()
        await page.evaluate("passMinute()")
        await decide(window, "#allow")
        assert (await reply)[1:] == ["offscreen", *REFUSED]


async def test_the_background_worker_is_stopped_before_the_consent(outside: Outside) -> None:
    """The page connects again by itself, and the user is asked again."""
    async with watched_page(outside.extension.context) as page:
        await page.goto(f"{outside.origin('stopped.localhost')}/tests/empty.html")
        reply = asyncio.ensure_future(page.evaluate(OUTSIDE, outside.extension_id))
        window = await outside.window()
        async with outside.extension.popup() as popup:
            workers = await WorkerVersions.of(popup)
            for _ in range(2):
                opened = asyncio.ensure_future(outside.window())
                await workers.stop()
                if not window.is_closed():
                    await window.wait_for_event("close")
                window = await opened
            await decide(window, "#allow")
            assert (await reply)[1:] == ["offscreen", *REFUSED]


async def test_consent_to_a_page_that_is_gone(outside: Outside) -> None:
    """It counts for the next one."""
    async with watched_page(outside.extension.context) as page:
        url = f"{outside.origin('gone.localhost')}/tests/empty.html"
        await page.goto(url)
        lost = asyncio.ensure_future(page.evaluate(OUTSIDE, outside.extension_id))
        window = await outside.window()
        await page.goto("about:blank")
        await asyncio.gather(lost, return_exceptions=True)
        await decide(window, "#allow")
        await page.goto(url)
        assert (await page.evaluate(OUTSIDE, outside.extension_id))[1:] == ["offscreen", *REFUSED]
