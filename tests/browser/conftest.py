"""Real Chromium, driven by Playwright, on the built site. An error in the console fails a test."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from playwright.async_api import ConsoleMessage, Page, async_playwright

from browser.site_server import SiteServer, serving
from golden import compare

ROOT = Path(__file__).parents[2]
FLAGS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
]

TIMEOUT_S = 120

RunPython = Callable[[str], Awaitable[Any]]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteServer]:
    """The built site, these tests' pages in /tests/, and /models/smollm2.gguf, gemma3.gguf."""
    dist = ROOT / "js" / "dist"
    assert (dist / "wheels" / "index.json").exists(), "make site builds what is served here"
    models = tmp_path_factory.mktemp("models")
    for file, name in (("smollm2", "smollm2-135m"), ("gemma3", "gemma3-270m")):
        (models / f"{file}.gguf").symlink_to(asyncio.run(compare.model_path(name)))
    folders = {
        "": dist,
        "tests": Path(__file__).parent / "pages",
        "models": models,
        "node_modules": ROOT / "js" / "node_modules",
    }
    with serving(folders) as server:
        yield server


@pytest.fixture
async def page(site: SiteServer) -> AsyncIterator[Page]:
    """An empty page of a new browser, whose worker runs Python: `await run(code)`."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "these tests need Chromium: apt-get install chromium"
    problems: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            problems.append(f"{message.type}: {message.text}")

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        page = await browser.new_page()
        page.set_default_timeout(1000 * TIMEOUT_S)
        page.on("console", on_console)
        page.on("pageerror", lambda error: problems.append(f"uncaught: {error}"))
        await page.goto(f"{site.url}/tests/index.html")
        yield page
        await browser.close()
    assert not problems, problems


@pytest.fixture
def run_python(page: Page) -> RunPython:
    """Runs Python code in the page's worker; its last expression is the value."""

    async def run(code: str) -> Any:
        return await asyncio.wait_for(page.evaluate("code => run(code)", dedent(code)), TIMEOUT_S)

    return run
