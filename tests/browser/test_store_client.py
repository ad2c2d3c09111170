"""The stores from TypeScript, and files that the user picked, which are never copied."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Page

from browser.conftest import RunPython
from browser.site_server import SiteServer
from browser.store_cases import OPEN, STORES, WEIGHTS, answer, source_of, write_model


@pytest.fixture
def small_file(site: SiteServer) -> Iterator[Path]:
    """A new model file in the folder /models/ of the site."""
    answer(site)
    yield write_model(site.folders["models"] / "small.gguf")
    answer(site)


@pytest.mark.parametrize("has_hash", [True, False])
async def test_has_and_delete_in_typescript(
    site: SiteServer, page: Page, run_python: RunPython, small_file: Path, has_hash: bool
) -> None:
    source = source_of(small_file) if has_hash else "/models/small.gguf"
    await run_python(OPEN)
    ask = """async ([source, cacheBackend]) => {
        const client = await import("/client.js");
        const appConfig = { model_list: [{ model_id: "small", model: source }], cacheBackend };
        const has = () => client.hasModelInCache("small", appConfig);
        const before = await has();
        await run(`await load("${source}", "${cacheBackend}")`);
        const after = [await has()];
        await client.deleteChatConfigInCache("small", appConfig);
        await client.deleteModelWasmInCache("small", appConfig);
        after.push(await has());
        await client.deleteModelInCache("small", appConfig);
        after.push(await has(), await run(`await kept("${cacheBackend}")`));
        await client.deleteModelAllInfoInCache("small", appConfig);
        return [before, ...after];
    }"""
    for store in STORES:
        assert await page.evaluate(ask, [source, store]) == [False, True, True, False, 0]


async def chromium_kib(page: Page) -> int:
    """Memory of all processes of the browser."""
    assert page.context.browser
    session = await page.context.browser.new_browser_cdp_session()
    processes = (await session.send("SystemInfo.getProcessInfo"))["processInfo"]
    pids = ",".join(str(process["id"]) for process in processes)
    command = ["ps", "-o", "rss=", "-p", pids]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return sum(map(int, listed.split()))


async def test_a_picked_file_is_not_copied(
    site: SiteServer, page: Page, run_python: RunPython, small_file: Path
) -> None:
    with small_file.open("r+b") as file:
        file.truncate(1 << 30)  # its tensors, and a hole
    await run_python(OPEN)
    await page.evaluate("document.body.innerHTML = '<input type=file>'")
    await page.set_input_files("input", small_file)
    before = await chromium_kib(page)
    record = await page.evaluate("""async () => {
        const { modelFromFile } = await import("/client.js");
        return modelFromFile(document.querySelector("input").files[0], "mine");
    }""")
    assert record["model_id"] == "mine"
    assert await run_python(f"await load({record['model']!r}, None)") == WEIGHTS
    assert await chromium_kib(page) - before < 100 << 10
    assert await run_python("await kept('cache')") == 0
    assert site.models.ranges == []


async def test_a_file_offered_by_python(run_python: RunPython, small_file: Path) -> None:
    await run_python(OPEN)
    found = await run_python("""
        import js
        import webllm
        from pyodide.ffi import to_js

        response = await js.fetch("/models/small.gguf")
        file = js.File.new(to_js([await response.blob()]), "small.gguf")
        record = await webllm.model_from_file(file)
        assert not await webllm.has_model_in_cache(
            record.model_id, webllm.AppConfig(model_list=(record,))
        )
        record.model_id + " " + await load(record.source, None)
    """)
    assert found == f"small {WEIGHTS}"


async def test_a_page_that_is_gone(run_python: RunPython) -> None:
    await run_python(OPEN)
    error = await run_python("""
        from webllm.artifacts import browser_picked

        browser_picked._PATIENCE_S = 0.2
        await fails("picked:unknown/small.gguf", None)
    """)
    assert error.startswith("ModelNotFoundError: picked:unknown/small.gguf is not open in any page")
