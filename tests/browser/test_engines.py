"""A part of this tier in Firefox and in WebKitGTK, which lacks more features than any other.

WebKitGTK has no `navigator.storage`, no SharedArrayBuffer and no WebGPU.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import journal_cases
from browser.chat_page import list_files
from browser.engines.firefox import firefox
from browser.engines.webdriver import Browser
from browser.engines.webkit import webkit
from browser.site_server import DIST, SiteServer, serving
from browser.store_cases import (
    FLIP,
    OPEN,
    PART_BYTES,
    STORES,
    WEIGHTS,
    answer,
    source_of,
    tensors_digest,
    write_model,
)
from browser.test_journal_in_browser import OPEN as OPEN_JOURNAL
from golden import compare

RECORD = {
    "model": "/models/smollm2.gguf",
    "model_id": "SmolLM2-135M-Instruct",
    "size_bytes": 98_362_432,
    "overrides": {"temperature": 0},
}
ENGINES = {"Firefox": firefox, "WebKitGTK": webkit}
NO_OPFS = "there is no file system for sites in this browser; give "
IS_READY = """() => until(() =>
    document.querySelector("#model-dot").dataset.phase === "ready" &&
    document.querySelector("#device-badge").innerText)"""
ASK_FOR_RED = """async (question) => {
    document.querySelector("#prompt").value = question;
    document.querySelector("#prompt").dispatchEvent(new Event("input", { bubbles: true }));
    document.querySelector("#send").click();
    const answer = (state) => document.querySelector(`.answer:last-child${state} .markdown`);
    await until(() => answer("")?.innerText.includes("Red"));
    document.querySelector("#stop").click();
    await until(() => answer("[aria-busy=false]"));
}"""


@pytest.fixture(params=ENGINES)
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    with ENGINES[request.param]() as browser:
        yield browser


@pytest.fixture(scope="module")
def chat_site(site: SiteServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteServer]:
    """Serves the site as `webllm web` does, isolated; its chat page reports its problems."""
    folder = tmp_path_factory.mktemp("chat")
    for path in DIST.iterdir():
        (folder / path.name).symlink_to(path)
    page = (DIST / "index.html").read_text()
    watched = page.replace("<head>", '<head><script src="/tests/watched.js"></script>')
    models = json.dumps({"model_list": [RECORD]})
    for name, text in {"index.html": watched, "models.json": models}.items():
        (folder / name).unlink()
        (folder / name).write_text(text)
    list_files(folder)
    with serving({**site.folders, "": folder}) as server:
        server.isolated = True
        yield server


def asked_for_models(site: SiteServer) -> list[str]:
    return [path for path in site.requested if path.startswith("/models/")]


def test_the_chat_page_loads_and_answers(browser: Browser, chat_site: SiteServer) -> None:
    browser.open(f"{chat_site.url}/index.html")
    assert browser.evaluate("() => document.title") == "WebLLM Chat"
    assert browser.evaluate("() => until(() => document.querySelector('.suggestion'))")
    browser.evaluate(ASK_FOR_RED, "Name three colours.")
    assert browser.evaluate(IS_READY) == "CPU"
    assert browser.evaluate("() => problems") == []
    chat_site.requested.clear()
    browser.reload()
    assert browser.evaluate(IS_READY) == "CPU"  # unasked, and without a download
    assert browser.evaluate("() => document.querySelectorAll('.conversation').length") == 1
    assert browser.evaluate("() => problems") == []
    assert asked_for_models(chat_site) == []


def test_the_client_loads_a_model_and_breaks_off(browser: Browser, chat_site: SiteServer) -> None:
    browser.open(f"{chat_site.url}/tests/client.html")
    device = browser.evaluate("load", RECORD["model"])
    assert device.startswith("CPU (WebAssembly ")
    has_threads = browser.name == "Firefox"
    cores = browser.evaluate("() => navigator.hardwareConcurrency")
    assert f" {min(cores, 8) if has_threads else 1} thread" in device
    prompt, *_ = (p for p in compare.read("smollm2-135m")["prompts"] if p["wide_margin"])
    assert prompt["text"].startswith(golden := browser.evaluate("complete", prompt["prompt"], 24))
    assert prompt["text"].startswith(browser.evaluate("breakOff", prompt["prompt"]))
    assert browser.evaluate("complete", prompt["prompt"], 24) == golden
    before = browser.evaluate("numTokens")
    assert browser.evaluate("complete", prompt["prompt"], 24) == golden
    assert browser.evaluate("numTokens") == before + 24  # nothing else is generated
    assert browser.evaluate("() => problems") == []


# Two frames are two pages of the site. The first one, whose worker has the engine, is closed.
SHARE = """async (request) => {
    const open = () => new Promise((resolve) => {
        const frame = document.createElement("iframe");
        frame.onload = () => resolve(frame);
        frame.src = "/tests/shared_engine.html";
        document.body.append(frame);
    });
    const frames = [await open(), await open()];
    const [first, second] = frames.map((frame) => frame.contentWindow);
    const hosts = [await first.connect(), await second.connect()];
    const expected = await second.stream(request);
    const answer = second.stream(request, ({ 0: choice }) => {
        if (choice?.tokens.length === 5) frames[0].remove();
    });
    return [hosts, expected, await answer];
}"""


def test_a_page_takes_over_the_engine(browser: Browser, chat_site: SiteServer) -> None:
    browser.open(f"{chat_site.url}/tests/client.html")
    request = {"prompt": "Once upon a time", "seed": 7, "max_tokens": 32}
    hosts, expected, answer = browser.evaluate(SHARE, request)
    assert hosts == ["tab", "tab"]
    assert (answer, len(answer["0"]["tokens"])) == (expected, 32)
    assert browser.evaluate("() => problems") == []


@pytest.fixture
def small_file(chat_site: SiteServer) -> Path:
    """Writes a new model file into the site's folder /models/."""
    return write_model(chat_site.folders["models"] / "small.gguf")


def run(browser: Browser, code: str) -> Any:
    """Runs Python in the page, as the fixture `run_python` does."""
    return browser.evaluate("code => run(code)", dedent(code))


def test_each_store_keeps_a_model_over_a_reload(
    browser: Browser, chat_site: SiteServer, small_file: Path
) -> None:
    source, digest = source_of(small_file), tensors_digest(small_file)
    stores = [store for store in STORES if store != "opfs" or browser.name == "Firefox"]
    browser.open(f"{chat_site.url}/tests/index.html")
    run(browser, OPEN)
    for store in stores:
        assert run(browser, f"await load({source!r}, {store!r})") == WEIGHTS
    small_file.unlink()  # the next load reads the store
    browser.reload()
    chat_site.requested.clear()
    run(browser, OPEN)
    for choice in [None, *stores]:
        assert run(browser, f"await load({source!r}, {choice!r})") == WEIGHTS
    assert asked_for_models(chat_site) == []
    write_model(small_file)
    run(browser, "import logging; logging.getLogger('webllm').setLevel(logging.ERROR)")
    for store in stores:  # damaged bytes are noticed in each
        answer(chat_site)
        run(browser, f"await damage({store!r}, 2, {FLIP!r}, {source!r})")
        assert run(browser, f"await read({source!r}, {store!r})") == digest
        assert chat_site.models.ranges == [f"bytes={2 * PART_BYTES}-{3 * PART_BYTES - 1}"]


def test_the_journal_over_a_reload(browser: Browser, chat_site: SiteServer) -> None:
    browser.open(f"{chat_site.url}/tests/index.html")
    run(browser, Path(journal_cases.__file__).read_text())
    run(browser, OPEN_JOURNAL)
    run(browser, "await check(storage)")
    run(browser, 'await (await storage.create(NAME, b"begin,")).append(b"one,")')
    assert run(browser, "await storage.is_owned(NAME)") is True
    browser.reload()
    run(browser, OPEN_JOURNAL)
    text = run(
        browser,
        """
        assert not await storage.is_owned(NAME)
        writer = await storage.reopen(NAME)
        await writer.append(b"two")
        await writer.close()
        text = (await storage.read(NAME)).decode()
        assert await storage.delete(NAME)
        text
        """,
    )
    assert text == "begin,one,two"


def test_a_store_that_the_browser_lacks(chat_site: SiteServer, browser: Browser) -> None:
    """The type of the error says so, in Python and in TypeScript."""
    lacks = [] if browser.name == "Firefox" else ["opfs"]
    browser.open(f"{chat_site.url}/tests/client.html")
    found = {store: browser.evaluate("lookInStore", store) for store in STORES}
    assert [store for store in STORES if found[store] is not False] == lacks
    browser.open(f"{chat_site.url}/tests/index.html")
    run(browser, OPEN)
    for store in lacks:
        for error in (found[store], run(browser, f"await fails('/models/a.gguf', {store!r})")):
            assert error.startswith("ConfigError: ")
            assert NO_OPFS in error


def test_a_browser_that_lets_sites_keep_nothing(chat_site: SiteServer, small_file: Path) -> None:
    """A model is loaded without storing it, if the user asks for that."""
    source = source_of(small_file)
    with firefox(network_cookie_cookieBehavior=2) as browser:
        browser.open(f"{chat_site.url}/tests/index.html")
        run(browser, OPEN)
        for store in STORES:
            error = run(browser, f"await fails({source!r}, {store!r})")
            assert error.startswith("StorageFullError: the browser lets this site store nothing")
            assert 'cacheBackend "none"' in error
        assert run(browser, f"await load({source!r}, 'none')") == WEIGHTS
        run(browser, OPEN_JOURNAL)
        error = run(browser, "await error_of(storage.create(NAME, b''))")
        assert error.startswith("StorageFullError: the browser lets this site store nothing")
