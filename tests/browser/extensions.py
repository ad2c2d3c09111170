"""Unpacked Chrome extensions in Chromium."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import BrowserContext, ConsoleMessage, Worker, async_playwright

from browser.chromium import FLAGS, HARMLESS, TIMEOUT_S
from browser.site_server import DIST, ROOT

PAGES = ROOT / "tests" / "browser" / "pages"
MANIFEST: dict[str, Any] = {
    "manifest_version": 3,
    "name": "Test",
    "version": "1",
    "default_locale": "en",  # the site has _locales
    "background": {"service_worker": "background.js", "type": "module"},
    "permissions": ["offscreen", "storage"],
    "cross_origin_embedder_policy": {"value": "require-corp"},
    "cross_origin_opener_policy": {"value": "same-origin"},
    "content_security_policy": {
        "extension_pages": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; "
        "worker-src 'self'; style-src 'self'; font-src 'self'; img-src 'self'; connect-src 'self'"
    },
}


def write_extension(folder: Path, model: Path, files: Mapping[str, str], **manifest: Any) -> Path:
    """Writes an extension of webllm's files, a model and these files."""
    shutil.copytree(DIST, folder, copy_function=os.link, ignore=shutil.ignore_patterns("wheels"))
    (folder / "models").mkdir()
    shutil.copy(model, folder / "models" / "smollm2.gguf")
    everything = {**files, "manifest.json": json.dumps(MANIFEST | manifest)}
    for name, text in everything.items():
        (folder / name).unlink(missing_ok=True)  # of the site, to which it is a link
        (folder / name).write_text(text)
    return folder


@asynccontextmanager
async def extension_context(folder: Path, profile: Path) -> AsyncIterator[BrowserContext]:
    """Opens a browser with an extension; fails if a console has warnings or errors."""
    problems: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(HARMLESS):
            problems.append(f"{message.type}: {message.text}")

    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "these tests need Chromium: apt-get install chromium"
    options = [f"--disable-extensions-except={folder}", f"--load-extension={folder}"]
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            profile,
            executable_path=path,
            headless=False,
            args=[*FLAGS, "--headless=new", *options],
        )
        context.set_default_timeout(1000 * TIMEOUT_S)
        context.on("console", on_console)
        context.on("weberror", lambda error: problems.append(f"uncaught: {error.error}"))
        context.on("serviceworker", lambda worker: worker.on("console", on_console))
        yield context
        await context.close()
    assert not problems, problems


async def background(context: BrowserContext) -> Worker:
    """Returns the extension's background worker."""
    workers = context.service_workers
    return workers[0] if workers else await context.wait_for_event("serviceworker")
