"""The user's consent to those who connect to an extension's engine, which has no model here."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from browser.chat_page import until
from browser.chromium import watched_page
from browser.extensions import (
    PAGES,
    Extension,
    decide,
    extension_id,
    running,
    write_client,
    write_fake_package,
)
from browser.site_server import DIST, SiteServer, serving
from browser.test_page_access import FOCUSED, violations_in_both_themes

pytestmark = pytest.mark.asyncio(loop_scope="module")  # the shared browser's event loop

HOSTS = [f"{name}.localhost" for name in ("denied", "told", "shy", "faulty")]  # one of each test
SITE = "https://example.com"
LONG_SITE = f"https://{'.'.join(['a' * 60] * 4)}.com"
EMPTY = '<!doctype html><title>Site</title><link rel="icon" href="data:,">'
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
    """A web page or another extension's page, and the extension that it may ask."""

    extension: Extension
    page: Page

    @property
    def extension_id(self) -> str:
        return self.extension.origin.removeprefix("chrome-extension://")

    async def origin(self) -> str:
        origin: str = await self.page.evaluate("origin")
        return origin

    def connect(self) -> asyncio.Future[Any]:
        return asyncio.ensure_future(self.page.evaluate(CONNECT, self.extension_id))

    async def window(self) -> Page:
        """Returns the window that asks the user."""
        window = await self.extension.context.wait_for_event("page")
        await window.wait_for_selector("#allow:not(:empty)")
        return window

    async def greeted(self) -> Page:
        """Greets the extension; returns the window that asks about it."""
        greeting = asyncio.ensure_future(self.page.evaluate(GREET, self.extension_id))
        window = await self.window()
        await greeting
        return window

    async def connected(self, button: str) -> Any:
        reply = self.connect()
        await decide(await self.window(), button)
        return await reply


@dataclass(frozen=True)
class Session:
    """A running extension, and a site with the hosts that may ask it."""

    extension: Extension
    site: SiteServer

    @asynccontextmanager
    async def outsider(self, host: str) -> AsyncIterator[Outsider]:
        async with watched_page(self.extension.context) as page:
            await page.goto(f"{self.site.url_at(host)}/tests/empty.html")
            yield Outsider(self.extension, page)


@asynccontextmanager
async def session(folder: Path, expected_faults: Sequence[str] = ()) -> AsyncIterator[Session]:
    matches = {"matches": [f"http://{host}/*" for host in HOSTS]}
    package = write_fake_package(folder, has_background=True, externally_connectable=matches)
    with serving({"": DIST, "tests": PAGES}) as site:
        async with running(package, expected_faults=expected_faults) as extension:
            yield Session(extension, site)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Session]:
    async with session(tmp_path_factory.mktemp("package")) as opened:
        yield opened


@asynccontextmanager
async def hosting(folder: Path, lang: str = "en") -> AsyncIterator[tuple[Extension, str]]:
    """Starts an extension that two sites may ask, and another extension; returns its origin too."""
    package = folder / "package"
    package.mkdir()
    client = extension_id(write_client(folder / "client"))
    may_connect = {"matches": [f"{SITE}/*", f"{LONG_SITE}/*"], "ids": [client]}
    write_fake_package(package, has_background=True, externally_connectable=may_connect)
    options: dict[str, Any] = {"flags": [f"--lang={lang}"], "others": [folder / "client"]}
    async with running(package, lang, **options, bypass_csp=True) as extension:
        await extension.context.route(
            re.compile("^https:"), lambda route: route.fulfill(body=EMPTY, content_type="text/html")
        )
        yield extension, f"chrome-extension://{client}"


@asynccontextmanager
async def asked(extension: Extension, url: str) -> AsyncIterator[Page]:
    """Opens the window that asks about a page of this address."""
    async with watched_page(extension.context) as page:
        await page.goto(url)
        window = await Outsider(extension, page).greeted()
        yield window
        await window.close()


@pytest.mark.parametrize(
    ("lang", "name", "site_question", "extension_question"),
    [
        (
            "en",
            "“WebLLM Chat”",
            "Let example.com use your model?",
            "Let another extension use your model?",
        ),
        (
            "de",
            "„WebLLM Chat“",
            "Darf die Website example.com dein Modell benutzen?",
            "Darf eine andere Erweiterung dein Modell benutzen?",
        ),
    ],
)
async def test_it_says_who_asks_for_what(
    tmp_path: Path, lang: str, name: str, site_question: str, extension_question: str
) -> None:
    async with hosting(tmp_path, lang) as (extension, other):
        questions = {SITE: site_question, other: extension_question}
        for origin, question in questions.items():
            async with asked(extension, f"{origin}/page.html") as window:
                await expect(window.locator("#question")).to_have_text(question)
                await expect(window.locator("#origin")).to_have_text(origin)
                await expect(window.locator("#details")).to_contain_text(name)
                await expect(window.locator("html")).to_have_attribute("lang", lang)
                assert await violations_in_both_themes(window) == []
                await window.keyboard.press("Tab")
                assert await window.evaluate(FOCUSED) == "deny"


async def test_it_has_room_in_any_window(tmp_path: Path) -> None:
    """The text is as wide as the window allows, and its end can be scrolled to."""
    async with hosting(tmp_path) as (extension, _):
        for origin, width in ((SITE, 1280), (LONG_SITE, 460)):
            async with asked(extension, f"{origin}/page.html") as window:
                await window.set_viewport_size({"width": width, "height": 360})
                await until(window, "innerWidth", width)
                details = await window.locator("#details").bounding_box()
                assert details is not None
                assert details["width"] > 350
                root = "document.documentElement"
                assert await window.evaluate(f"{root}.scrollWidth === {root}.clientWidth")
                await window.mouse.wheel(0, 5000)
                await expect(window.locator("#allow")).to_be_in_viewport(ratio=1)


async def test_a_denial_is_undone_in_the_settings(shared: Session) -> None:
    async with shared.outsider("denied.localhost") as web, web.extension.popup() as popup:
        origin = await web.origin()
        let, remove = (popup.get_by_label(f"{act} {origin}") for act in ("Let", "Remove"))
        denied = DENIED.format(web.extension_id)
        assert (await web.connected("#deny")).startswith(denied)
        assert (await web.connect()).startswith(denied), "the user is not asked again"
        await popup.click("#open-sidebar")
        await popup.click("#open-settings")
        await let.click()
        await expect(let).to_have_count(0)
        assert await web.connected("#allow") == "offscreen"
        await remove.click()
        await expect(popup.locator(f".denied-sites li:has-text('{origin}')")).to_have_count(1)
        await let.click()
        await expect(let).to_have_count(0)
        assert await web.connected("#allow") == "offscreen"


async def test_a_page_hears_that_the_user_is_asked(shared: Session) -> None:
    async with shared.outsider("told.localhost") as web:
        window = await web.greeted()
        assert await web.page.evaluate("replies") == [["wait", "me"]]
        await window.close()  # a refusal
        await until(web.page, "replies.map(String).join(' ')", "wait,me lost,me")


async def test_a_window_that_cannot_open_is_an_error(tmp_path: Path) -> None:
    async with session(tmp_path) as own, own.outsider("faulty.localhost") as web:
        await (await own.extension.background()).evaluate(NO_WINDOW)
        assert (await web.connect()).endswith(": there is no window")


async def test_a_window_whose_question_is_over_closes(shared: Session) -> None:
    async with shared.extension.popup() as popup:
        async with shared.extension.context.expect_page() as opened:
            await popup.evaluate(STALE)
        window = await opened.value
        if not window.is_closed():
            await window.wait_for_event("close")


async def test_a_worker_that_cannot_begin_is_an_error(tmp_path: Path) -> None:
    async with (
        session(tmp_path, expected_faults=["Uncaught Error: it is broken"]) as own,
        own.outsider("faulty.localhost") as web,
    ):
        (tmp_path / "offscreen_worker.js").write_text("throw new Error('it is broken')")
        assert (await web.connected("#allow")).endswith("document: Uncaught Error: it is broken")


async def test_outsiders_set_nothing_about_a_model(shared: Session) -> None:
    async with shared.outsider("shy.localhost") as web:
        await web.connected("#allow")
        for options in ({"context_window_size": 128}, [{"temperature": 0.5}]):
            refused = await web.page.evaluate(RELOAD, options)
            assert refused.startswith("RequestError: only pages of this extension may give chat ")
        assert await web.page.evaluate("() => engine.reload('Nothing').catch(String)") == (
            'RequestError: this extension has no model "Nothing"; '
            "it has Quick-135M, Inside-360M, Slow-270M"
        )
