"""Web pages that connect to an extension: the user's consent, and what outsiders may take."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page

from browser.chat_page import until
from browser.extensions import PAGES, Extension, decide, running, write_fake_package
from browser.service_workers import WorkerVersions
from browser.site_server import DIST, serving

MATCHES = {"matches": ["http://127.0.0.1/*", "http://localhost/*"]}
# Opens a port, and keeps what comes from it.
OPEN = """(extensionId) => {
    const name = "web_llm_service_worker";
    const port = chrome.runtime.connect(extensionId, { name });
    const opened = { port, messages: [], isOpen: true };
    port.onMessage.addListener((message) => opened.messages.push(message));
    port.onDisconnect.addListener(() => (opened.isOpen = false));
    (globalThis.ports ??= []).push(opened);
}"""
GREET = "ports.at(-1).port.postMessage({ kind: 'hello', uuid: 'h', content: null, from: 'me' })"
REPLY = "ports.at(-1).messages.at(-1)"
DENIAL = "the user does not let {} use this extension's model"


@dataclass(frozen=True)
class Outside:
    """An extension, and a web page of each of two sites that its manifest lists."""

    extension: Extension
    page: Page
    other: Page

    async def connect(self, page: Page) -> None:
        await page.evaluate(OPEN, self.extension.origin.removeprefix("chrome-extension://"))

    async def greet(self, page: Page) -> None:
        await self.connect(page)
        await page.evaluate(GREET)

    async def window(self) -> Page:
        """Waits for the next window that asks the user."""
        window: Page = await self.extension.context.wait_for_event("page")
        await window.wait_for_selector("#allow:has-text('Allow')")
        return window

    async def greeted(self, page: Page) -> Page:
        """Greets, and returns the window that asks about it."""
        greeting = asyncio.ensure_future(self.greet(page))
        window = await self.window()
        await greeting
        return window


@asynccontextmanager
async def outside(folder: Path) -> AsyncIterator[Outside]:
    write_fake_package(folder, has_background=True, externally_connectable=MATCHES)
    for name in ("consent.html", "consent.js"):
        shutil.copy(DIST / name, folder)
    with serving({"": PAGES}) as site:
        async with running(folder) as extension:
            pages = [await extension.context.new_page() for _ in range(2)]
            for page, host in zip(pages, ("127.0.0.1", "localhost"), strict=True):
                await page.goto(f"{site.url}/empty.html".replace("127.0.0.1", host))
            yield Outside(extension, *pages)


def origin(page: Page) -> str:
    return page.url.removesuffix("/empty.html")


async def lost(page: Page) -> str:
    """Waits for the reply that no engine is to be had; returns the reason."""
    await until(page, "ports.at(-1).messages.at(-1)?.kind", "lost")
    reason: str = (await page.evaluate(REPLY))["reason"]
    return reason


async def is_served(page: Page) -> None:
    await until(page, "ports.at(-1).messages.at(-1)?.content?.host", "offscreen")


async def test_a_window_that_is_closed_at_once_is_a_refusal(tmp_path: Path) -> None:
    async with outside(tmp_path) as here:
        background = await here.extension.background()
        close = "chrome.windows.onCreated.addListener(({ id }) => void chrome.windows.remove(id))"
        await background.evaluate(f"() => {close}")
        await here.greet(here.page)
        assert await lost(here.page) == DENIAL.format(origin(here.page))


async def test_a_window_closes_once_nobody_hears_its_answer(tmp_path: Path) -> None:
    """The browser ends the background worker; the page asks the next one."""
    async with outside(tmp_path) as here:
        window = await here.greeted(here.page)
        workers = await WorkerVersions.of(here.page)
        async with window.expect_event("close"):
            await workers.stop()
        await until(here.page, "ports.at(-1).isOpen", wanted=False)
        await decide(await here.greeted(here.page), "#allow")
        await is_served(here.page)


async def test_windows_come_one_after_another(tmp_path: Path) -> None:
    async with outside(tmp_path) as here:
        first = await here.greeted(here.page)
        await here.greet(here.other)
        await here.greet(here.page)  # the same window answers
        next_window = asyncio.ensure_future(here.window())
        await decide(first, "#allow")
        await is_served(here.page)
        second = await next_window
        assert await second.inner_text("#origin") == origin(here.other)
        await decide(second, "#deny")
        assert await lost(here.other) == DENIAL.format(origin(here.other))
        kinds = "ports.map(({ messages }) => messages.map(({ kind }) => kind))"
        assert await here.page.evaluate(kinds) == [["wait", "return"], ["wait", "return"]]


async def test_nobody_is_asked_about_a_page_that_is_closed(tmp_path: Path) -> None:
    async with outside(tmp_path) as here:
        first = await here.greeted(here.page)
        await here.greet(here.other)
        await here.other.close()
        await decide(first, "#allow")
        await is_served(here.page)
        urls = [page.url for page in here.extension.context.pages]
        assert not [url for url in urls if "consent.html" in url]


@pytest.mark.parametrize("fault", ["full", "damaged"])
async def test_who_cannot_be_asked_about_is_told_so(tmp_path: Path, fault: str) -> None:
    async with outside(tmp_path) as here:
        if fault == "full":
            full = "() => Promise.reject(new Error('quota exceeded'))"
            background = await here.extension.background()
            await background.evaluate(f"() => void (chrome.storage.local.set = {full})")
            await decide(await here.greeted(here.page), "#allow")
        else:
            (tmp_path / "models.json").write_text("{")
            await here.greet(here.page)
        reason = await lost(here.page)
        assert "could not find out whether to let" in reason
        assert ("quota exceeded" if fault == "full" else "JSON") in reason


async def test_an_outsider_takes_little_memory(tmp_path: Path) -> None:
    """What it posts before the user's answer is bounded, and so are its connections."""
    async with outside(tmp_path) as here:
        window = await here.greeted(here.page)
        text = "ports.at(-1).port.postMessage({ kind: 'x'.repeat(60_000), uuid: 'a' })"
        await here.page.evaluate(f"{text}; {text}")
        await until(here.page, "ports.at(-1).isOpen", wanted=False)
        for _ in range(33):
            await here.greet(here.page)
        assert "has 32 connections" in await lost(here.page)
        await until(here.page, "ports.at(-1).isOpen", wanted=False)
        await decide(window, "#allow")
        served = "ports.filter(({ messages }) => messages.at(-1)?.content?.host).length"
        await until(here.page, served, 32)


MALFORMED: list[Any] = [
    *(None, 1, "hello", [], {}, {"kind": None}, {"kind": 1}, {"kind": ["hello"]}),
    *({"kind": "hello"}, {"kind": "hello", "uuid": {"a": []}, "from": {}, "worker": []}),
    *({"kind": "stay"}, {"kind": "stay", "content": {"ms": "x"}}, {"kind": "bye", "uuid": 1}),
    *({"kind": "abort"}, {"kind": "__proto__"}, {"kind": "constructor", "uuid": "c"}),
    *({"kind": "reload", "content": {"modelId": {}}}, {"kind": "keepAlive", "uuid": None}),
    {"kind": "completionStreamNextChunk", "content": {"streamId": "__proto__"}, "uuid": ""},
]


async def test_malformed_messages_harm_nobody(tmp_path: Path) -> None:
    """The background worker's console stays empty, and other messages are answered."""
    async with outside(tmp_path) as here:
        await decide(await here.greeted(here.page), "#allow")
        await is_served(here.page)
        await here.connect(here.page)
        await here.page.evaluate(
            "(all) => all.forEach((each) => ports.at(-1).port.postMessage(each))", MALFORMED
        )
        for _ in range(2):  # also after a "bye"
            await here.page.evaluate("ports.at(-1).port.postMessage({ kind: 'bye', from: 'me' })")
            await here.page.evaluate(GREET)
            await until(here.page, "ports.at(-1).messages.at(-1)?.uuid", "h")
            await is_served(here.page)
            await here.page.evaluate("void (ports.at(-1).messages.length = 0)")


FRAMES = """(extensionId) => new Promise((resolve) => {
    const script = `<script>
        const { runtime } = globalThis.chrome ?? {};
        parent.postMessage(runtime?.connect ? "can connect" : "cannot connect", "*");
    </` + `script>`;
    const frame = document.createElement("iframe");
    frame.sandbox = "allow-scripts";
    frame.srcdoc = script;
    addEventListener("message", ({ data }) => resolve(data), { once: true });
    document.body.append(frame);
})"""


async def test_a_frame_without_an_origin_is_nobody(tmp_path: Path) -> None:
    async with outside(tmp_path) as here:
        await decide(await here.greeted(here.page), "#allow")
        await is_served(here.page)
        if await here.page.evaluate(FRAMES) == "cannot connect":
            return
        frame = here.page.frames[-1]
        await frame.evaluate(OPEN, here.extension.origin.removeprefix("chrome-extension://"))
        reply = "new Promise((resolve) => ports.at(-1).port.onMessage.addListener(resolve))"
        replied = asyncio.ensure_future(frame.evaluate(reply))
        await frame.evaluate(GREET)
        assert "does not let" in (await replied)["reason"]
