"""The examples for browsers, as they are, beside what a person would put beside them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.async_api import Page, expect

from browser.conftest import TIMEOUT_S
from browser.python_sites import example_site
from browser.site_server import SiteServer

PATIENCE_MS = 1000 * TIMEOUT_S


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteServer]:
    with example_site(tmp_path_factory.mktemp("site")) as server:
        yield server


async def test_a_page_with_pyodide(page: Page, site: SiteServer) -> None:
    await page.goto(f"{site.url}/pyodide.html")
    await expect(page.locator("#text")).to_contain_text("WebLLM", timeout=PATIENCE_MS)


async def test_a_page_with_pyscript(page: Page, site: SiteServer) -> None:
    await page.goto(f"{site.url}/pyscript.html")
    await page.click("#ask")
    await expect(page.locator("#answer")).to_contain_text("Red", timeout=PATIENCE_MS)
