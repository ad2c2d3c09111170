"""The site's Service Worker in Firefox and WebKitGTK, with the fake worker."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from browser.chat_page import list_files, write_fake
from browser.chromium import TIMEOUT_S
from browser.engines.firefox import firefox
from browser.engines.webdriver import Browser, ScriptError
from browser.engines.webkit import webkit
from browser.site_server import SiteServer, serving
from browser.test_offline import POST, PRECACHE

ENGINES = {"Firefox": firefox, "WebKitGTK": webkit}
IS_CONTROLLED = "() => !!navigator.serviceWorker?.controller"
IS_ISOLATED = "() => crossOriginIsolated && !!navigator.serviceWorker?.controller"
ASK = """async () => {
    await until(() => document.querySelector(".suggestion"));
    document.querySelector("#prompt").value = "Name a colour.";
    document.querySelector("#prompt").dispatchEvent(new Event("input", { bubbles: true }));
    document.querySelector("#send").click();
    const answer = () => document.querySelector(".answer:last-child[aria-busy=false] .markdown");
    return (await until(() => answer())) && answer().innerText;
}"""


@pytest.fixture(params=ENGINES)
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    with ENGINES[request.param]() as browser:
        yield browser


@pytest.fixture
def host(tmp_path: Path) -> Iterator[SiteServer]:
    """Serves the chat page, which reports its problems, and sends no headers."""
    write_fake(tmp_path)
    shutil.copy(Path(__file__).parent / "pages" / "watched.js", tmp_path)
    page = tmp_path / "index.html"
    page.write_text(page.read_text().replace("<head>", '<head><script src="watched.js"></script>'))
    list_files(tmp_path)
    with serving({"": tmp_path}) as server:
        yield server


def wait_until(browser: Browser, function: str) -> None:
    """Waits until a function in the page returns true; the page may reload itself meanwhile."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        with suppress(ScriptError, AssertionError, TypeError):  # while it reloads
            if browser.evaluate(function):
                return
        time.sleep(0.05)
    raise TimeoutError(function)


def test_the_page_answers_without_its_server(browser: Browser, host: SiteServer) -> None:
    browser.open(f"{host.url}/")
    wait_until(browser, IS_ISOLATED if browser.name == "Firefox" else IS_CONTROLLED)
    assert browser.evaluate(POST, PRECACHE) is True
    host.shutdown()
    host.server_close()
    browser.open(f"{host.url}/")  # Firefox's driver reloads past workers
    wait_until(browser, "() => typeof until === 'function'")
    assert browser.evaluate(ASK)
    assert browser.evaluate("() => problems") == []
