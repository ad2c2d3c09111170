"""Real Chromium, driven by Playwright. An error or a warning in a page's console fails a test."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import BrowserContext, ConsoleMessage, Page, async_playwright, expect

LAN_HOST = "pi.test"  # this machine, as a host whose http pages browsers do not trust
FLAGS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    f"--host-resolver-rules=MAP {LAN_HOST} 127.0.0.1",
]
TIMEOUT_S = 120
HARMLESS = ("No available adapters",)  # Chromium's warning without a WebGPU adapter

expect.set_options(timeout=1000 * TIMEOUT_S)


@asynccontextmanager
async def new_context(**options: Any) -> AsyncIterator[BrowserContext]:
    """Opens a context that may use the clipboard, in a new browser."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "these tests need Chromium: apt-get install chromium"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        permissions = ["clipboard-read", "clipboard-write"]
        context = await browser.new_context(permissions=permissions, **options)
        context.set_default_timeout(1000 * TIMEOUT_S)
        yield context
        await browser.close()


@asynccontextmanager
async def watched_page(context: BrowserContext) -> AsyncIterator[Page]:
    """Opens a page; fails if its console does not stay empty."""
    problems: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(HARMLESS):
            problems.append(f"{message.type}: {message.text}")

    page = await context.new_page()
    page.on("console", on_console)
    page.on("pageerror", lambda error: problems.append(f"uncaught: {error}"))
    yield page
    await page.close()
    assert not problems, problems
