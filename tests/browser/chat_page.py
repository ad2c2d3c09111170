"""The built chat page in Chromium, in front of a worker that has no model."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import BrowserContext, ConsoleMessage, Page, async_playwright

from browser.conftest import FLAGS, ROOT
from browser.site_server import SiteServer, serving

DIST = ROOT / "js" / "dist"
MODELS = [
    {"model": "/m", "model_id": "Quick-135M", "size_bytes": 98_362_432, "vram_required_MB": 250},
    {"model": "/m", "model_id": "Slow-270M", "size_bytes": 253_113_024, "vram_required_MB": 400},
    {"model": "/m", "model_id": "Full-90M", "size_bytes": 90_000_000, "sha256": "ab" * 32},
    {"model": "/m", "model_id": "Broken-8B", "size_bytes": 5_200_000_000, "vram_required_MB": 6100},
]
HARMLESS = ("No available adapters",)  # Chromium's words where it has no WebGPU adapter
WITHOUT_WEBGPU = "Object.defineProperty(Navigator.prototype, 'gpu', { value: undefined })"


@contextmanager
def serving_fake(folder: Path) -> Iterator[SiteServer]:
    """The page's own files, with the fake worker as worker.js."""
    assert (DIST / "page.js").exists(), "make site builds what is served here"
    for name in ("index.html", "page.js", "page.css", "client.js", "icon.svg"):
        (folder / name).symlink_to(DIST / name)
    for font in DIST.glob("*.woff2"):
        (folder / font.name).symlink_to(font)
    (folder / "worker.js").symlink_to(Path(__file__).parent / "pages" / "fake_worker.js")
    (folder / "models.json").write_text(json.dumps({"model_list": MODELS}))
    with serving({"": folder}) as server:
        yield server


@asynccontextmanager
async def chat_page(
    url: str, prepare: Callable[[BrowserContext], Awaitable[None]] | None = None, **options: Any
) -> AsyncIterator[Page]:
    """The page, open. An error in its console fails the test."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "these tests need Chromium: apt-get install chromium"
    problems: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(HARMLESS):
            problems.append(f"{message.type}: {message.text}")

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        permissions = ["clipboard-read", "clipboard-write"]
        context = await browser.new_context(permissions=permissions, **options)
        if prepare is not None:
            await prepare(context)
        page = await context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", on_console)
        page.on("pageerror", lambda error: problems.append(f"uncaught: {error}"))
        await page.add_init_script(WITHOUT_WEBGPU)
        await page.goto(f"{url}/index.html")
        await page.wait_for_selector("#welcome .suggestion")
        yield page
        await browser.close()
    assert not problems, problems


async def ask(page: Page, text: str) -> None:
    """Sends a message and waits for the end of the answer."""
    await begin(page, text)
    await page.wait_for_selector(".answer:last-child[aria-busy=false]")


async def begin(page: Page, text: str) -> None:
    """Sends a message; its answer begins."""
    await page.fill("#prompt", text)
    await page.press("#prompt", "Enter")
    await page.wait_for_selector(".answer:last-child")


async def choose_model(page: Page, name: str) -> None:
    await page.click("#open-models")
    await page.click(f"#models label:has-text('{name}')")
    await page.click("#models button:has-text('Load model')")


async def answers(page: Page) -> list[str]:
    return await page.locator(".answer .markdown").all_inner_texts()
