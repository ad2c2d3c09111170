"""Unpacked Chrome extensions, and Chromium with one of them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.async_api import BrowserContext, ConsoleMessage, Page, Worker, async_playwright

from browser.chat_page import until
from browser.chromium import FLAGS, HARMLESS, TIMEOUT_S, watched_page
from browser.site_server import DIST, ROOT

PAGES = ROOT / "tests" / "browser" / "pages"
CSP = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; "
    "style-src 'self'; font-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
)
MODELS: list[dict[str, Any]] = [
    {"model": "hf:org/quick/quick.gguf", "model_id": "Quick-135M", "size_bytes": 98_362_432},
    {"model": "models/in.gguf", "model_id": "Inside-360M", "size_bytes": 270_000_000},
    {"model": "https://models.test/slow.gguf", "model_id": "Slow-270M", "size_bytes": 253_113_024},
]
POPUP_FILES = ("popup.html", "popup.js", "popup.css", "icon.svg", "icon-*.png", "*.woff2")
ENGINE_FILES = (
    *("background.js", "consent.html", "consent.js"),
    *("offscreen.html", "offscreen.js", "chunk-*.js"),
)
AS_POPUP = "if (globalThis.chrome?.tabs) chrome.tabs.getCurrent = async () => undefined"
TELL = """
new BroadcastChannel("webllm offscreen").postMessage({ kind: "ended", reason: "it sleeps" })
"""


def write_package(
    folder: Path, models: list[dict[str, Any]], *, has_background: bool = True, **more: Any
) -> None:
    """Writes the files that are particular to a package. Tests may read pages of this machine."""
    permissions = ["activeTab", "scripting", "storage", *(["offscreen"] * has_background)]
    manifest: dict[str, Any] = {
        "manifest_version": 3,
        "name": "__MSG_appName__",
        "description": "__MSG_appDescription__",
        "default_locale": "en",
        "version": "1",
        "permissions": permissions,
        "host_permissions": ["http://127.0.0.1/*"],
        "cross_origin_embedder_policy": {"value": "require-corp"},
        "cross_origin_opener_policy": {"value": "same-origin"},
        "content_security_policy": {"extension_pages": CSP},
        "icons": {size: f"icon-{size}.png" for size in ("16", "32", "48", "128")},
        "action": {"default_popup": "popup.html"},
    }
    if has_background:
        manifest["background"] = {"service_worker": "background.js", "type": "module"}
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

    async def sleep(self) -> None:
        """Does to the offscreen document what it does by itself after some time without use."""
        await self.end_engine()
        await (await self.background()).evaluate(TELL)

    async def end_engine(self) -> None:
        """Closes the offscreen document, as a crash would."""
        await (await self.background()).evaluate("chrome.offscreen.closeDocument()")


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
    **options: Any,
) -> AsyncIterator[Extension]:
    """Starts Chromium with the extension in `folder`, by default in a new profile.

    Fails if the console of its background worker has warnings or errors.
    """
    problems: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(HARMLESS):
            problems.append(f"{message.type}: {message.text}")

    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "these tests need Chromium: apt-get install chromium"
    viewport = {"width": 400, "height": 600}
    async with async_playwright() as playwright:
        with TemporaryDirectory() if profile is None else nullcontext(str(profile)) as data:
            context = await playwright.chromium.launch_persistent_context(
                data,
                executable_path=path,
                headless=False,  # the old headless mode has no extensions
                args=[
                    *FLAGS,
                    "--headless=new",
                    f"--disable-extensions-except={folder}",
                    f"--load-extension={folder}",
                    *flags,
                ],
                env={**os.environ, "LANGUAGE": language},
                **{"viewport": viewport, "screen": {"width": 1280, "height": 900}, **options},
            )
            context.set_default_timeout(1000 * TIMEOUT_S)
            context.on("serviceworker", lambda worker: worker.on("console", on_console))
            await context.add_init_script(AS_POPUP)
            yield Extension(context, f"chrome-extension://{extension_id(folder)}", data)
            await context.close()
    assert not problems, problems


def extension_id(folder: Path) -> str:
    """Returns the id that Chromium gives to an extension without a key, made of its path."""
    digits = sha256(str(folder.resolve()).encode()).hexdigest()[:32]
    return "".join(chr(ord("a") + int(digit, 16)) for digit in digits)
