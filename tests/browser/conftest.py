"""Fixtures: the built site in Chromium, and Python in its pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from browser.chat_page import chat_page, serving_fake
from browser.chromium import TIMEOUT_S, new_context, watched_page
from browser.extensions import write_fake_package
from browser.site_server import DIST, ROOT, SiteServer, serving
from golden import compare

OpenChat = Callable[..., AbstractAsyncContextManager[Page]]
RunPython = Callable[[str], Awaitable[Any]]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteServer]:
    """Serves the built site, these tests' pages in /tests/, and both models in /models/."""
    assert (DIST / "wheels" / "index.json").exists(), "make site builds what is served here"
    models = tmp_path_factory.mktemp("models")
    for file, name in (("smollm2", "smollm2-135m"), ("gemma3", "gemma3-270m")):
        (models / f"{file}.gguf").symlink_to(asyncio.run(compare.model_path(name)))
    folders = {
        "": DIST,
        "tests": Path(__file__).parent / "pages",
        "models": models,
        "node_modules": ROOT / "js" / "node_modules",
    }
    with serving(folders) as server:
        yield server


@pytest.fixture
async def page(site: SiteServer) -> AsyncIterator[Page]:
    """Opens an empty page in a new browser; its worker runs Python: `await run(code)`."""
    async with new_context() as context, watched_page(context) as page:
        await page.goto(f"{site.url}/tests/index.html")
        yield page


@pytest.fixture
def run_python(page: Page) -> RunPython:
    """Runs Python code in the page's worker; its last expression is the value."""

    async def run(code: str) -> Any:
        return await asyncio.wait_for(page.evaluate("code => run(code)", dedent(code)), TIMEOUT_S)

    return run


@pytest.fixture(scope="module")
def fake_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteServer]:
    """Serves the chat page with a worker that has no model."""
    with serving_fake(tmp_path_factory.mktemp("page")) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    """Starts one browser for all tests of a module; each test opens its own contexts."""
    async with new_context() as context:
        assert context.browser is not None
        yield context.browser


@pytest.fixture
def open_chat(fake_site: SiteServer, chromium: Browser) -> OpenChat:
    """Opens the chat page in a new context: `async with open_chat(**options) as page`."""
    return partial(chat_page, fake_site.url, browser=chromium)


@pytest_asyncio.fixture(loop_scope="module")
async def chat(open_chat: OpenChat) -> AsyncIterator[Page]:
    async with open_chat() as page:
        yield page


@pytest.fixture(scope="module")
def popup_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package whose engine runs in the popup, without a model."""
    return write_fake_package(tmp_path_factory.mktemp("popup"), has_background=False)


@pytest.fixture(scope="module")
def background_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package whose engine runs behind the background worker, without a model."""
    return write_fake_package(tmp_path_factory.mktemp("background"), has_background=True)
