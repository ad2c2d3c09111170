"""The site's Service Worker: offline, isolation on a host that sends no headers, updates."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Frame, Page, expect

from browser.chat_page import (
    MODELS,
    answers,
    ask,
    choose_model,
    context_of,
    list_files,
    until,
    write,
    write_fake,
)
from browser.chromium import watched_page
from browser.site_server import SiteServer, serving
from webllm.cli.site_worker import without_service_worker

pytestmark = pytest.mark.asyncio(loop_scope="module")  # the shared browser's event loop

GPU = """
  const adapter = { limits: {}, features: [], info: {} };
  const value = { requestAdapter: async () => adapter };
  Object.defineProperty(Navigator.prototype, "gpu", { value });
"""
NO_GPU = "Object.defineProperty(Navigator.prototype, 'gpu', { value: undefined })"
NO_API = "Object.defineProperty(Navigator.prototype, 'serviceWorker', { value: undefined })"
REFUSED = """
  ServiceWorkerContainer.prototype.register = async () => {
    throw new DOMException("denied", "SecurityError");
  };
"""
NEVER_ISOLATED = "Object.defineProperty(window, 'crossOriginIsolated', { value: false })"
SLOW_WORKER = """
  const { register } = ServiceWorkerContainer.prototype;
  const typed = new Promise((resolve) => addEventListener("input", resolve));
  ServiceWorkerContainer.prototype.register = async function (...given) {
    await typed;
    return register.apply(this, given);
  };
"""
UPDATE = """async () => {
  const registration = await navigator.serviceWorker.ready;
  await registration.update();
  const { installing, waiting } = registration;
  return new Promise((resolve) => {
    const look = () => installing?.state !== "installing" && resolve((installing ?? waiting).state);
    installing?.addEventListener("statechange", look);
    look();
  });
}"""
KEPT = """async () => {
  const [name] = (await caches.keys()).filter((each) => each.startsWith("webllm-site"));
  const keys = name ? await (await caches.open(name)).keys() : [];
  return keys.map(({ url }) => new URL(url).pathname.slice(1)).sort();
}"""
POST = """async ([which, kind]) => {
  const registration = await navigator.serviceWorker.ready;
  const { port1, port2 } = new MessageChannel();
  registration[which].postMessage({ kind }, [port2]);
  return new Promise((resolve) => (port1.onmessage = ({ data }) => resolve(data)));
}"""
PRECACHE, TAKE_OVER = ["active", "precache"], ["waiting", "skipWaiting"]
Z_INDEX = "getComputedStyle(document.querySelector('h1')).zIndex"
RAISED = "h1 { z-index: 7 }"  # a change of page.css
OTHER_SITE = "<title>Another site</title><link rel='icon' href='icon.svg'>"
TEXT = "async ([url, headers]) => (await fetch(url, { headers })).text()"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[SiteServer]:
    """Serves the chat page with the fake worker, a Service Worker and no headers."""
    write_fake(tmp_path)
    with serving({"": tmp_path}) as server:
        yield server


@asynccontextmanager
async def opened(
    context: BrowserContext, host: SiteServer, script: str = NO_GPU
) -> AsyncIterator[Page]:
    await context.add_init_script(script)
    async with watched_page(context) as page:
        await page.goto(f"{host.url}/")
        yield page


@pytest_asyncio.fixture(loop_scope="module")
async def context(chromium: Browser) -> AsyncIterator[BrowserContext]:
    async with context_of(chromium) as context:
        yield context


def folder_of(host: SiteServer) -> Path:
    return host.folders[""]


def listed(host: SiteServer) -> list[str]:
    line, *_ = (folder_of(host) / "sw.js").read_text().splitlines()
    return sorted(json.loads(line.partition(" = ")[2].rstrip(";")))


async def is_kept(page: Page) -> None:
    """Waits until the page is isolated by its worker, and works offline."""
    await until(page, "crossOriginIsolated")
    assert await page.evaluate(POST, PRECACHE) is True


async def answers_a_question(page: Page) -> None:
    await choose_model(page, "Quick")
    await ask(page, "Name a colour.")
    assert (await answers(page))[-1]


def loads_of(context: BrowserContext) -> list[Frame]:
    """Returns a list that grows with each load of a page."""
    loads: list[Frame] = []
    context.on("page", lambda page: page.on("framenavigated", lambda frame: loads.append(frame)))
    return loads


def append(host: SiteServer, name: str, text: str) -> None:
    """Changes a file of the site, and leaves the list of the worker as it is."""
    file = folder_of(host) / name
    write(file, file.read_bytes() + text.encode())


async def test_the_page_answers_without_a_network(
    host: SiteServer, context: BrowserContext
) -> None:
    async with opened(context, host) as page:
        await is_kept(page)
        host.shutdown()
        host.server_close()
        await context.set_offline(True)
        await page.reload()
        await answers_a_question(page)
        await page.goto(f"{host.url}/index.html?from=elsewhere")
        await expect(page.locator(".conversation")).to_have_count(1)
        assert await page.evaluate("crossOriginIsolated")


async def test_a_page_without_its_worker_says_that_there_is_no_network(
    host: SiteServer, context: BrowserContext
) -> None:
    await context.add_init_script(NO_GPU + ";" + NO_API)
    async with await context.new_page() as page:
        await page.goto(f"{host.url}/")
        await context.set_offline(True)
        await choose_model(page, "Quick")
        alert = page.locator("#model-bar [role=alert]")
        await expect(alert).to_contain_text("Its worker could not be started: there is no network")


async def test_a_host_without_headers_gets_an_isolated_page(
    host: SiteServer, context: BrowserContext
) -> None:
    loads = loads_of(context)
    async with opened(context, host) as page:
        await is_kept(page)
        assert await page.evaluate("new SharedArrayBuffer(8).byteLength") == 8
        await answers_a_question(page)  # the worker's script is isolated too
        await page.reload()
        assert await page.evaluate("crossOriginIsolated")
    assert len(loads) == 3  # one was the page's own


@pytest.mark.parametrize("why", ["isolated", "gpu", "no worker", "no api", "refused"])
async def test_a_page_that_needs_no_reload_is_not_reloaded(
    host: SiteServer, context: BrowserContext, why: str
) -> None:
    loads = loads_of(context)
    host.isolated = why == "isolated"
    if why == "no worker":
        page_file = folder_of(host) / "index.html"
        page_file.write_bytes(without_service_worker(page_file.read_bytes()))
    script = {"gpu": GPU, "refused": REFUSED, "no api": NO_API}.get(why, "")
    async with opened(context, host, script or NO_GPU) as page:
        if why in ("isolated", "gpu"):
            assert await page.evaluate(POST, PRECACHE) is True
            assert await page.evaluate(KEPT) == sorted([*listed(host), "models.json"])
            assert await page.evaluate("crossOriginIsolated") is (why == "isolated")
        await answers_a_question(page)
    assert len(loads) == 1


async def test_a_page_that_cannot_be_isolated_is_reloaded_once(
    host: SiteServer, context: BrowserContext
) -> None:
    loads = loads_of(context)
    async with opened(context, host, NO_GPU + ";" + NEVER_ISOLATED) as page:
        await until(page, "performance.getEntriesByType('navigation')[0].type", "reload")
        assert await page.evaluate(POST, PRECACHE) is True
        await answers_a_question(page)
        assert len(loads) == 2


async def test_a_page_that_was_touched_is_not_reloaded(
    host: SiteServer, context: BrowserContext
) -> None:
    loads = loads_of(context)
    async with opened(context, host, NO_GPU + SLOW_WORKER) as page:
        await page.fill("#prompt", "Half a question")
        assert await page.evaluate(POST, PRECACHE) is True
        assert await page.input_value("#prompt") == "Half a question"
    assert len(loads) == 1


async def test_an_update_fetches_what_has_changed(
    host: SiteServer, context: BrowserContext
) -> None:
    loads = loads_of(context)
    async with opened(context, host) as page:
        await is_kept(page)
        append(host, "page.css", RAISED)
        list_files(folder_of(host))
        host.requested.clear()
        assert await page.evaluate(UPDATE) == "installed"
        assert set(host.requested) - {"/sw.js", "/models.json"} == {"/page.css"}
        assert RAISED not in await page.evaluate(TEXT, ["page.css", {}])
        loads.clear()
        await page.reload()
        await until(page, Z_INDEX, "7")
        assert await page.evaluate(KEPT) == sorted([*listed(host), "models.json"])  # one page.css
        assert len(loads) == 2
        await page.reload()
        assert await page.evaluate(Z_INDEX) == "7"
    assert len(loads) == 3


async def test_an_update_waits_for_the_other_pages(
    host: SiteServer, context: BrowserContext
) -> None:
    async with opened(context, host) as page:
        await is_kept(page)
        other = await context.new_page()
        await other.goto(f"{host.url}/")
        append(host, "page.css", RAISED)
        list_files(folder_of(host))
        assert await page.evaluate(UPDATE) == "installed"
        await page.reload()
        assert await page.evaluate(POST, TAKE_OVER) is False
        assert await page.evaluate(Z_INDEX) == "auto"
        await other.close()
        while not await page.evaluate(POST, TAKE_OVER):
            pass  # the browser has not yet noticed
        await page.reload()
        assert await page.evaluate(Z_INDEX) == "7"


async def test_a_damaged_file_is_refused(host: SiteServer, context: BrowserContext) -> None:
    append(host, "tab.js", " ")
    await context.add_init_script(NO_GPU)
    async with await context.new_page() as page:
        await page.goto(f"{host.url}/")
        await until(page, "crossOriginIsolated")
        refusal = "tab.js has the SHA-256 "
        async with context.expect_console_message(lambda said: refusal in said.text):
            assert await page.evaluate(POST, PRECACHE) is False
        assert "tab.js" not in await page.evaluate(KEPT)
        append(host, "page.css", RAISED)
        list_files(folder_of(host))
        append(host, "tab.js", " ")
        assert await page.evaluate(UPDATE) == "redundant"
        assert RAISED not in await page.evaluate(TEXT, ["page.css", {}])
        list_files(folder_of(host))
        host.requested.clear()
        assert await page.evaluate(UPDATE) == "installed"
        assert "/page.css" not in host.requested  # it came before


async def test_a_worker_whose_script_is_gone_leaves(
    host: SiteServer, context: BrowserContext
) -> None:
    async with opened(context, host) as page:
        await is_kept(page)
        (folder_of(host) / "sw.js").unlink()
        write(folder_of(host) / "index.html", OTHER_SITE.encode())
        await page.reload()
        await expect(page).to_have_title("Another site")
        await until(page, "async () => !(await navigator.serviceWorker.getRegistration())")
        await until(page, KEPT, [])


async def test_the_catalogue_is_the_newest_and_other_requests_pass(
    host: SiteServer, context: BrowserContext
) -> None:
    async with opened(context, host) as page:
        await is_kept(page)
        write(folder_of(host) / "models.json", json.dumps({"model_list": MODELS[1:]}).encode())
        (first, *_) = json.loads(await page.evaluate(TEXT, ["models.json", {}]))["model_list"]
        assert first == MODELS[1]
        (folder_of(host) / "other.txt").write_text("not listed")
        host.requested.clear()
        await page.evaluate(TEXT, ["icon.svg?v=2", {}])
        await page.evaluate(TEXT, ["icon.svg", {"Range": "bytes=0-3"}])
        assert await page.evaluate(TEXT, ["other.txt", {}]) == "not listed"
        asked = [path for path in host.requested if path not in ("/sw.js", "/models.json")]
        assert asked == ["/icon.svg", "/other.txt"]
