"""The unchanged browser examples, with the files that a person would put beside them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.async_api import Page, expect

from browser.jupyter_site import IPYTHON, build_jupyter_lite
from browser.python_sites import EXAMPLES, example_site
from browser.site_server import SiteServer


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteServer]:
    jupyter = build_jupyter_lite(tmp_path_factory.mktemp("jupyter"), EXAMPLES / "notebook.ipynb")
    with example_site(tmp_path_factory.mktemp("site"), *IPYTHON, jupyter=jupyter) as server:
        yield server


async def test_a_page_with_pyodide(page: Page, site: SiteServer) -> None:
    await page.goto(f"{site.url}/pyodide.html")
    await expect(page.locator("#text")).to_contain_text("WebLLM")


async def test_a_page_with_pyscript(page: Page, site: SiteServer) -> None:
    await page.goto(f"{site.url}/pyscript.html")
    await page.click("#ask")
    await expect(page.locator("#answer")).to_contain_text("Red")


async def test_a_notebook_of_jupyter_lite(page: Page, site: SiteServer) -> None:
    """It opens a page of its own, because JupyterLite itself logs warnings."""
    assert page.context.browser is not None
    notebook = await page.context.browser.new_page()
    await notebook.goto(f"{site.url}/jupyter/notebooks/index.html?path=notebook.ipynb")
    kernel = notebook.locator(".jp-Notebook-ExecutionIndicator")
    await expect(kernel).to_have_attribute("data-status", "idle")
    await notebook.get_by_role("menuitem", name="Run", exact=True).click()
    await notebook.get_by_text("Run All Cells", exact=True).click()
    answer = notebook.locator(".jp-OutputArea-output").last
    await expect(answer).to_contain_text("Red")
