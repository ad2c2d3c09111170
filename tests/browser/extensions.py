"""Unpacked Chrome extensions, and Chromium with one of them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.async_api import (
    BrowserContext,
    ConsoleMessage,
    Error,
    Page,
    Worker,
    async_playwright,
)

from browser.chat_page import until
from browser.chromium import FLAGS, HARMLESS, TIMEOUT_S, watched_page
from browser.site_server import DIST, ROOT
from webllm.cli.extension_manifest import Access, Kind, extension_manifest

PAGES = ROOT / "tests" / "browser" / "pages"
MODELS: list[dict[str, Any]] = [
    {"model": "hf:org/quick/quick.gguf", "model_id": "Quick-135M", "size_bytes": 98_362_432},
    {"model": "models/in.gguf", "model_id": "Inside-360M", "size_bytes": 270_000_000},
    {"model": "https://models.test/slow.gguf", "model_id": "Slow-270M", "size_bytes": 253_113_024},
]
POPUP_FILES = ("popup.html", "popup.js", "popup.css", "icon.svg", "icon-*.png", "*.woff2")
ENGINE_FILES = ("background.js", "consent.*", "offscreen.html", "offscreen.js", "chunk-*.js")
AS_POPUP = "if (globalThis.chrome?.tabs) chrome.tabs.getCurrent = async () => undefined"
# What the browser logs of any console, also of pages and workers that Playwright does not know.
FAULTS = re.compile(r"INFO:CONSOLE.*(?:Content Security Policy|Uncaught).*")
CONSOLE_LOG = "console.log"  # of the browser, in its profile
# Lets a minute pass for the page's timers.
CLOCK = """
const { setTimeout, clearTimeout } = globalThis;
const pending = new Map();
globalThis.setTimeout = (act, ms = 0, ...rest) => {
  const id = setTimeout(act, ms, ...rest);
  if (ms >= 1000 && ms <= 60_000) pending.set(id, act.bind(null, ...rest));
  return id;
};
globalThis.clearTimeout = (id) => {
  pending.delete(id);
  clearTimeout(id);
};
globalThis.passMinute = () => {
  for (const [id, act] of [...pending]) {
    globalThis.clearTimeout(id);
    act();
  }
};
"""
TELL = """
new BroadcastChannel("webllm offscreen").postMessage({ kind: "ended", reason: "it sleeps" })
"""


def write_package(
    folder: Path, models: list[dict[str, Any]], *, has_background: bool = True, **more: Any
) -> None:
    """Writes the files that are particular to a package. Tests may read pages of this machine."""
    kind = Kind.BACKGROUND if has_background else Kind.POPUP
    manifest = extension_manifest(kind, "1", Access())
    manifest["host_permissions"] = ["http://127.0.0.1/*"]
    (folder / "manifest.json").write_text(json.dumps(manifest | more))
    (folder / "models.json").write_text(json.dumps({"model_list": models, "cacheBackend": "none"}))


def write_fake_package(folder: Path, has_background: bool, **more: Any) -> Path:
    """Writes a package whose worker has no model: fake_tab.js. `more`: of the manifest."""
    assert (DIST / "popup.js").exists(), "make site builds what is tested here"
    for pattern in (*POPUP_FILES, *ENGINE_FILES):
        for file in DIST.glob(pattern):
            shutil.copy(file, folder)
    shutil.copytree(DIST / "_locales", folder / "_locales")
    fake = Path(__file__).parent / "pages" / "fake_tab.js"
    for name in ("tab.js", "offscreen_worker.js"):
        shutil.copy(fake, folder / name)
    write_package(folder, MODELS, has_background=has_background, **more)
    return folder


def write_real_package(
    folder: Path, model: Path, files: Mapping[str, str] | None = None, **package: Any
) -> Path:
    """Writes a package with all files of the site, a model inside, and these files."""
    ignored = shutil.ignore_patterns("types", "wheels", "sw.js", "benchmark*", "models.json")
    shutil.copytree(DIST, folder, dirs_exist_ok=True, ignore=ignored)
    (folder / "models").mkdir()
    shutil.copy(model, folder / "models" / "smollm2.gguf")
    size = model.stat().st_size
    record = {"model": "/models/smollm2.gguf", "model_id": "SmolLM2-135M", "size_bytes": size}
    write_package(folder, [record], **package)
    for name, text in (files or {}).items():
        (folder / name).write_text(text)
    return folder


def write_client(folder: Path) -> Path:
    """Writes another extension, whose page may connect to this one."""
    folder.mkdir()
    manifest = {"manifest_version": 3, "name": folder.name, "version": "1"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "page.html").write_text("<!doctype html><title>Client</title>")
    shutil.copy(DIST / "client.js", folder)
    return folder


@dataclass(frozen=True)
class Extension:
    """A running Chromium with an extension."""

    context: BrowserContext
    origin: str
    profile: str  # its folder

    @asynccontextmanager
    async def popup(self, page: Page | None = None) -> AsyncIterator[Page]:
        """Opens the popup, in a tab of its size; for a web page if one is given."""
        query = "" if page is None else f"?tab={await self.tab_id(page)}"
        async with watched_page(self.context) as popup:
            await popup.goto(f"{self.origin}/popup.html{query}")
            yield popup

    async def tab_id(self, page: Page) -> int:
        async with watched_page(self.context) as other:
            await other.goto(f"{self.origin}/popup.html")
            find = "async (url) => (await chrome.tabs.query({ url }))[0].id"
            found: int = await other.evaluate(find, page.url)
            return found

    @asynccontextmanager
    async def page(self, name: str) -> AsyncIterator[Page]:
        """Opens another page of the extension, whose script defines `connect`."""
        async with watched_page(self.context) as page:
            await page.goto(f"{self.origin}/{name}")
            await until(page, "'connect' in globalThis")
            yield page

    async def background(self) -> Worker:
        workers = self.context.service_workers
        return workers[0] if workers else await self.context.wait_for_event("serviceworker")

    async def until_logged(self, texts: Sequence[str]) -> None:
        """Waits until the browser has logged each of these."""
        log = Path(self.profile) / CONSOLE_LOG
        missing = list(texts)
        with suppress(TimeoutError):
            async with asyncio.timeout(TIMEOUT_S):
                while missing:
                    logged = log.read_text(errors="replace")
                    missing = [text for text in missing if text not in logged]
                    await asyncio.sleep(0.05)
        assert not missing, f"not logged: {missing}"

    async def sleep(self) -> None:
        """Does to the offscreen document what it does by itself after some time without use."""
        await self.end_engine()
        await self._own_page().evaluate(TELL)

    async def end_engine(self) -> None:
        """Closes the offscreen document, as a crash would."""
        await self._own_page().evaluate("chrome.offscreen.closeDocument()")

    def _own_page(self) -> Page:
        """Returns a page that is open: the background worker may end while it is asked."""
        return next(each for each in self.context.pages if each.url.startswith(self.origin))


async def decide(window: Page, button: str) -> None:
    """Clicks a button of the window that asks the user, which closes before the click has ended."""
    try:
        await window.click(button)
    except Error:
        if not window.is_closed():
            raise


def browser_process(profile: str) -> int:
    """Returns the id of the browser's main process."""
    option = f"--user-data-dir={profile}"
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            arguments = file.read_text().split("\0")
            is_main = not any(each.startswith("--type=") for each in arguments)
            if option in arguments and is_main and "chrom" in arguments[0]:
                return int(file.parent.name)
    raise AssertionError(f"no browser runs with {option}")


@asynccontextmanager
async def running(
    folder: Path,
    language: str = "en",
    flags: Sequence[str] = (),
    profile: Path | None = None,
    others: Sequence[Path] = (),
    expected_faults: Sequence[str] = (),
    **options: Any,
) -> AsyncIterator[Extension]:
    """Starts Chromium with the extension in `folder`, by default in a new profile.

    `others`: folders of more extensions. Fails if the console of a background worker has warnings
    or errors, if an offscreen document or its worker throws, and if a policy is violated anywhere;
    also if one of the `expected_faults` does not appear. Those are parts of what the browser logs.
    """
    problems: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(HARMLESS):
            problems.append(f"{message.type}: {message.text}")

    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "these tests need Chromium: apt-get install chromium"
    viewport = {"width": 400, "height": 600}
    folders = ",".join(map(str, (folder, *others)))
    async with async_playwright() as playwright:
        with TemporaryDirectory() if profile is None else nullcontext(str(profile)) as data:
            log = Path(data) / CONSOLE_LOG
            context = await playwright.chromium.launch_persistent_context(
                data,
                executable_path=path,
                headless=False,  # the old headless mode has no extensions
                args=[
                    *FLAGS,
                    "--headless=new",
                    f"--disable-extensions-except={folders}",
                    f"--load-extension={folders}",
                    "--enable-logging",
                    f"--log-file={log}",
                    *flags,
                ],
                env={**os.environ, "LANGUAGE": language},
                **{"viewport": viewport, "screen": {"width": 1280, "height": 900}, **options},
            )
            context.set_default_timeout(1000 * TIMEOUT_S)
            context.on("serviceworker", lambda worker: worker.on("console", on_console))
            await context.add_init_script(AS_POPUP)
            extension = Extension(context, f"chrome-extension://{extension_id(folder)}", data)
            try:
                yield extension
                await extension.until_logged(expected_faults)
            finally:
                await context.close()  # before its profile is removed
            problems += [
                fault
                for fault in FAULTS.findall(log.read_text(errors="replace"))
                if not any(expected in fault for expected in expected_faults)
            ]
    assert not problems, problems


def extension_id(folder: Path) -> str:
    """Returns the id that Chromium gives to an extension without a key, made of its path."""
    digits = sha256(str(folder.resolve()).encode()).hexdigest()[:32]
    return "".join(chr(ord("a") + int(digit, 16)) for digit in digits)
