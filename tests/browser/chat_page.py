"""Opens the built chat page in Chromium, with a shared worker that has no model."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, BrowserContext, Error, Page

from browser.chromium import TIMEOUT_S, new_context, watched_page
from browser.site_server import DIST, SiteServer, serving
from webllm.cli.site_worker import service_worker, without_service_worker

MODELS = [
    {"model": "/m", "model_id": "Quick-135M", "size_bytes": 98_362_432, "vram_required_MB": 250},
    {"model": "/m", "model_id": "Next-360M", "size_bytes": 270_000_000, "vram_required_MB": 500},
    {"model": "/m", "model_id": "Slow-270M", "size_bytes": 253_113_024, "vram_required_MB": 400},
    {"model": "/m", "model_id": "Full-90M", "size_bytes": 90_000_000, "sha256": "ab" * 32},
    {"model": "/m", "model_id": "Broken-8B", "size_bytes": 5_200_000_000, "vram_required_MB": 6100},
]
WITHOUT_WEBGPU = "Object.defineProperty(Navigator.prototype, 'gpu', { value: undefined })"
# A page with a Service Worker reloads itself if its host does not isolate it.
HAS_RELOADED = "crossOriginIsolated || !document.querySelector('meta[name=service-worker]')"
PUT = """(records) => new Promise((resolve, reject) => {
  const opening = indexedDB.open("webllm-chat", 1);
  opening.onsuccess = () => {
    const transaction = opening.result.transaction("conversations", "readwrite");
    for (const each of records) transaction.objectStore("conversations").put(each);
    transaction.oncomplete = () => resolve(opening.result.close());
    transaction.onabort = () => reject(transaction.error);
  };
})"""


@contextmanager
def serving_fake(folder: Path) -> Iterator[SiteServer]:
    """Serves the page's own files, with the fake worker as tab.js and no Service Worker."""
    write_fake(folder)
    page = (DIST / "index.html").read_bytes()
    (folder / "index.html").write_bytes(without_service_worker(page))
    with serving({"": folder}) as server:
        yield server


def write_fake(folder: Path) -> None:
    """Writes the page's own files, with the fake worker as tab.js and a Service Worker."""
    assert (DIST / "page.js").exists(), "make site builds what is served here"
    fonts = [font.name for font in DIST.glob("*.woff2")]
    scripts = ("index.html", "page.js", "page.css", "client.js", "icon.svg", "sw.js")
    for name in (*scripts, "webllm_models.json", *fonts):
        shutil.copy(DIST / name, folder)
    shutil.copy(Path(__file__).parent / "pages" / "fake_tab.js", folder / "tab.js")
    (folder / "models.json").write_text(json.dumps({"model_list": MODELS}))
    list_files(folder)


def list_files(folder: Path) -> None:
    """Makes the files of a site, as they are now, those of its Service Worker."""
    write(folder / "sw.js", service_worker(folder))


def write(file: Path, content: bytes) -> None:
    """Replaces a file that is being served, or a link to one, by a file of a later date."""
    new = file.with_name(f"{file.name}.new")
    new.write_bytes(content)
    later = max(file.stat().st_mtime + 2, new.stat().st_mtime)  # servers compare whole seconds
    os.utime(new, (later, later))
    new.replace(file)


async def until(page: Page, function: str, wanted: Any = True) -> None:
    """Waits until a function in the page returns a value; the page may reload itself meanwhile."""
    value = None
    async with asyncio.timeout(TIMEOUT_S):
        while value != wanted:
            await asyncio.sleep(0.02)
            with suppress(Error, TimeoutError):
                value = await asyncio.wait_for(page.evaluate(function), 2)


@asynccontextmanager
async def context_of(browser: Browser, **options: Any) -> AsyncIterator[BrowserContext]:
    """Opens a context as `new_context` does, in a running browser."""
    permissions = ["clipboard-read", "clipboard-write"]
    context = await browser.new_context(permissions=permissions, **options)
    context.set_default_timeout(1000 * TIMEOUT_S)
    yield context
    await context.close()


@asynccontextmanager
async def chat_page(
    url: str,
    prepare: Callable[[BrowserContext], Awaitable[None]] | None = None,
    browser: Browser | None = None,
    **options: Any,
) -> AsyncIterator[Page]:
    """Opens the page; in a new browser if none is given."""
    opening = context_of(browser, **options) if browser else new_context(**options)
    async with opening as context:
        if prepare is not None:
            await prepare(context)
        await context.add_init_script(WITHOUT_WEBGPU)
        async with watched_page(context) as page:
            await page.goto(f"{url}/index.html")
            await until(page, HAS_RELOADED)
            await page.wait_for_selector("#welcome .suggestion")
            yield page


async def ask(page: Page, text: str) -> None:
    """Sends a message and waits for the end of the answer."""
    await begin(page, text)
    await page.wait_for_selector(".answer:last-child[aria-busy=false]")


async def request_of(page: Page, text: str) -> dict[str, Any]:
    """Returns the request that the fake worker received."""
    await ask(page, f"{text} echo")
    request: dict[str, Any] = json.loads((await answers(page))[-1])
    return request


async def begin(page: Page, text: str) -> None:
    """Sends a message and waits until its answer begins."""
    await page.fill("#prompt", text)
    await page.press("#prompt", "Enter")
    await page.wait_for_selector(".answer:last-child")


async def keep_conversations(page: Page, questions: list[str]) -> None:
    """Stores one conversation for each title in the browser, the most recent first."""
    records = [
        {
            "id": f"{index:016x}",
            "changedAt": 1000 - index,
            "messages": [{"id": f"m{index}", "role": "user", "text": question, "state": "done"}],
        }
        for index, question in enumerate(questions)
    ]
    await keep_records(page, records)


async def keep_records(page: Page, records: list[dict[str, Any]]) -> None:
    """Stores these records in the browser's table of conversations."""
    await page.evaluate(PUT, records)


async def shorten_answers(page: Page) -> None:
    """Limits the length of answers: a real model may continue until its context is full."""
    await page.click("#open-settings")
    await page.get_by_label("Longest answer").fill("24")
    await page.keyboard.press("Escape")


async def choose_model(page: Page, name: str) -> None:
    await page.click("#open-models")
    await page.click(f"#models label:has-text('{name}')")
    await page.click("#models button:has-text('Load model')")


async def answers(page: Page) -> list[str]:
    return await page.locator(".answer .markdown").all_inner_texts()
