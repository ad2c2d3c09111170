"""The user's consent to web pages that use an extension's engine, which has no model here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.async_api import Page, expect

from browser.chat_page import until
from browser.extensions import PAGES, Extension, decide, running, write_fake_package
from browser.site_server import DIST, serving

CONNECT = """async (extensionId) => {
    const { ExtensionServiceWorkerMLCEngine: Engine } = await import("/client.js");
    globalThis.engine = new Engine({ extensionId });
    return engine.ready.then(() => engine.host, (error) => `${error.name}: ${error.message}`);
}"""
GREET = """(extensionId) => {
    globalThis.replies = [];
    const port = chrome.runtime.connect(extensionId, { name: "web_llm_service_worker" });
    port.onMessage.addListener(({ kind, to }) => replies.push([kind, to]));
    port.postMessage({ kind: "hello", uuid: "1", content: null, from: "me" });
}"""
RELOAD = """(options) => engine.reload("Inside-360M", options).then(() => "loaded", String)"""
NO_WINDOW = "void (chrome.windows.create = () => Promise.reject(new Error(`there is no window`)))"
STALE = (
    """chrome.windows.create({ url: "consent.html?origin=https%3A%2F%2Fa.test", type: "popup" })"""
)
DENIED = "ServiceWorkerInitializationError: the extension {}: the user does not let"


@dataclass(frozen=True)
class Outsider:
    """A web page, and the extension that it may ask."""

    extension: Extension
    page: Page

    @property
    def extension_id(self) -> str:
        return self.extension.origin.removeprefix("chrome-extension://")

    def connect(self) -> asyncio.Future[Any]:
        return asyncio.ensure_future(self.page.evaluate(CONNECT, self.extension_id))

    async def window(self) -> Page:
        """Returns the window that asks the user."""
        window = await self.extension.context.wait_for_event("page")
        await window.wait_for_selector("#allow:has-text('Allow')")
        return window

    async def connected(self, button: str) -> Any:
        reply = self.connect()
        await decide(await self.window(), button)
        return await reply


@asynccontextmanager
async def outsider(folder: Path) -> AsyncIterator[Outsider]:
    matches = {"matches": ["http://127.0.0.1/*"]}
    package = write_fake_package(folder, has_background=True, externally_connectable=matches)
    with serving({"": DIST, "tests": PAGES}) as site:
        async with running(package) as extension:
            page = await extension.context.new_page()
            await page.goto(f"{site.url}/tests/empty.html")
            yield Outsider(extension, page)


async def test_a_denial_is_undone_in_the_settings(tmp_path: Path) -> None:
    async with outsider(tmp_path) as web:
        denied = DENIED.format(web.extension_id)
        assert (await web.connected("#deny")).startswith(denied)
        assert (await web.connect()).startswith(denied), "the user is not asked again"
        async with web.extension.popup() as popup:
            await popup.click("#open-sidebar")
            await popup.click("#open-settings")
            await popup.get_by_label("Let http://127.0.0.1").click()
            await expect(popup.locator(".denied-sites")).to_have_count(0)
            assert await web.connected("#allow") == "offscreen"
            await popup.get_by_label("Remove http://127.0.0.1").click()
            await expect(popup.locator(".denied-sites li")).to_have_count(1)
            await popup.get_by_label("Let http://127.0.0.1").click()
            await expect(popup.locator(".denied-sites")).to_have_count(0)
        assert await web.connected("#allow") == "offscreen"


async def test_a_page_hears_that_the_user_is_asked(tmp_path: Path) -> None:
    async with outsider(tmp_path) as web:
        await web.page.evaluate(GREET, web.extension_id)
        window = await web.window()
        assert await web.page.evaluate("replies") == [["wait", "me"]]
        await window.close()  # a refusal
        await until(web.page, "replies.map(String).join(' ')", "wait,me lost,me")


async def test_a_window_that_cannot_open_is_an_error(tmp_path: Path) -> None:
    async with outsider(tmp_path) as web:
        await (await web.extension.background()).evaluate(NO_WINDOW)
        assert (await web.connect()).endswith(": there is no window")


async def test_a_window_whose_question_is_over_closes(tmp_path: Path) -> None:
    async with outsider(tmp_path) as web:
        worker = await web.extension.background()
        async with web.extension.context.expect_page() as opened:
            await worker.evaluate(STALE)
        window = await opened.value
        if not window.is_closed():
            await window.wait_for_event("close")


async def test_a_worker_that_cannot_begin_is_an_error(tmp_path: Path) -> None:
    async with outsider(tmp_path) as web:
        (tmp_path / "offscreen_worker.js").write_text("throw new Error('it is broken')")
        assert (await web.connected("#allow")).endswith("document: Uncaught Error: it is broken")


async def test_outsiders_set_nothing_about_a_model(tmp_path: Path) -> None:
    async with outsider(tmp_path) as web:
        await web.connected("#allow")
        for options in ({"context_window_size": 128}, [{"temperature": 0.5}]):
            refused = await web.page.evaluate(RELOAD, options)
            assert refused.startswith("RequestError: only pages of this extension may give chat ")
        assert await web.page.evaluate("() => engine.reload('Nothing').catch(String)") == (
            'RequestError: this extension has no model "Nothing"; '
            "it has Quick-135M, Inside-360M, Slow-270M"
        )
