"""An extension's workers end before they have answered once."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from browser.extensions import PAGES, Extension, running, write_fake_package
from browser.site_server import DIST

# Ends each of the next documents as soon as there is one.
CLOSE = """async (count) => {
    while (count > 0) {
        await chrome.offscreen.closeDocument().then(() => count--, () => {});
        await new Promise((resolve) => setTimeout(resolve));
    }
}"""
# Each of the first workers drops its first port, as if the browser had stopped it.
DROPPING = """
chrome.runtime.onConnect.addListener((port) => {
    globalThis.numDropped = (globalThis.numDropped ?? 0) + 1;
    if (numDropped <= COUNT) port.disconnect();
});
"""


@asynccontextmanager
async def fake(folder: Path, num_dropped: int) -> AsyncIterator[Extension]:
    write_fake_package(folder, has_background=True)
    shutil.copy(DIST / "client.js", folder)
    shutil.copy(PAGES / "extension_engine.js", folder / "page.js")
    (folder / "page.html").write_text(
        '<!doctype html><title>Test</title><script type="module" src="page.js"></script>'
    )
    background = folder / "background.js"
    background.write_text(DROPPING.replace("COUNT", str(num_dropped)) + background.read_text())
    async with running(folder) as extension:
        yield extension


async def test_an_offscreen_document_is_closed_while_it_loads(tmp_path: Path) -> None:
    async with fake(tmp_path, 0) as extension, extension.page("page.html") as page:
        background = await extension.background()
        closing = asyncio.ensure_future(background.evaluate(CLOSE, 3))
        assert await page.evaluate("connect()") == "offscreen"
        await closing


async def test_a_background_worker_ends_before_it_replies(tmp_path: Path) -> None:
    async with fake(tmp_path, 4) as extension, extension.page("page.html") as page:
        assert await page.evaluate("connect()") == "offscreen"
        assert await page.evaluate("disconnects.length") == 0


async def test_a_background_worker_that_never_replies_is_an_error(tmp_path: Path) -> None:
    async with fake(tmp_path, 1000) as extension, extension.page("page.html") as page:
        reason = await page.evaluate("connect().catch(String)")
        assert "the browser has stopped the extension's background worker" in reason
