"""Model files in the browser's stores: stored if correct, found again, deleted completely."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Page

from browser.conftest import RunPython
from browser.site_server import SiteServer
from browser.store_cases import (
    OPEN,
    PART_BYTES,
    STORES,
    WEIGHTS,
    another_page,
    answer,
    run_in,
    set_quota,
    source_of,
    write_model,
)

WAITING = "Waiting for another tab that is downloading this model"
# Makes `delete` of the Cache API wait for `mayDelete()`; `begun` tells that it was called.
LATE_DELETION = """
    const works = Cache.prototype.delete;
    const allowed = new Promise((resolve) => (globalThis.mayDelete = resolve));
    globalThis.begun = new Promise((resolve) => {
        Cache.prototype.delete = async function (request) {
            resolve();
            await allowed;
            return works.call(this, request);
        };
    });
    globalThis.removeNote = async () => {
        const cache = await caches.open("webllm");
        for (const request of await cache.keys())
            if (request.url.endsWith(".note")) await works.call(cache, request);
    };
"""


@pytest.fixture
def small_file(site: SiteServer) -> Iterator[Path]:
    """Writes a new model file into the site's folder /models/."""
    answer(site)
    yield write_model(site.folders["models"] / "small.gguf")
    answer(site)


@pytest.mark.parametrize("store", STORES)
async def test_a_file_is_fetched_once(
    site: SiteServer, page: Page, run_python: RunPython, small_file: Path, store: str
) -> None:
    source = source_of(small_file)
    await run_python(OPEN)
    assert await run_python(f"await load({source!r}, {store!r})") == WEIGHTS
    small_file.unlink()  # the next load reads the store
    await page.reload()
    site.requested.clear()
    await run_python(OPEN)
    assert await run_python(f"await load({source!r}, {store!r})") == WEIGHTS
    assert not [path for path in site.requested if path.startswith("/models/")]


async def test_what_is_not_stored_leaves_nothing(
    site: SiteServer, page: Page, run_python: RunPython, small_file: Path
) -> None:
    await set_quota(page, site, PART_BYTES)
    await run_python(OPEN)
    assert await run_python(f"await load({source_of(small_file)!r}, 'none')") == WEIGHTS
    left = await page.evaluate("""async () => {
        const left = [...await caches.keys()];
        for (const { name } of await indexedDB.databases()) left.push(name);
        for await (const name of (await navigator.storage.getDirectory()).keys()) left.push(name);
        return left;
    }""")
    assert left == []


async def test_a_file_that_does_not_fit_is_refused_before_it_comes(
    site: SiteServer, run_python: RunPython, small_file: Path
) -> None:
    answer(site, claimed_bytes=10**15)  # Chromium's estimate does not include the quota set here
    await run_python(OPEN)
    error = await run_python("await fails('/models/small.gguf', 'cache')")
    assert error.startswith("StorageFullError: http://127.0.0.1")
    assert "needs 1000000000 MB more, but the browser lets this site store " in error
    assert 'cacheBackend "none"' in error
    assert await run_python("await kept('cache')") == 0
    assert "MB" not in await run_python("texts[-1]")


@pytest.mark.parametrize("store", STORES)
async def test_a_store_that_fills_up(
    site: SiteServer, page: Page, run_python: RunPython, small_file: Path, store: str
) -> None:
    answer(site, has_length=False)  # so that the size is unknown beforehand
    await set_quota(page, site, 10 << 20)
    await run_python(OPEN)
    error = await run_python(f"await fails('/models/small.gguf', {store!r})")
    assert error.startswith("StorageFullError: the browser's storage for this site is full")
    assert await run_python(f"await kept({store!r})") == 0


async def test_a_server_that_tells_no_size(
    site: SiteServer, run_python: RunPython, small_file: Path
) -> None:
    answer(site, has_length=False, takes_ranges=False, etag=None)
    await run_python(OPEN)
    assert await run_python(f"await load({source_of(small_file)!r}, None)") == WEIGHTS
    assert await run_python(f"await load({source_of(small_file)!r}, None)") == WEIGHTS
    assert site.models.ranges == [None]


async def test_what_is_not_right_is_not_kept(
    site: SiteServer, run_python: RunPython, small_file: Path
) -> None:
    source = source_of(small_file)
    answer(site, is_corrupt=True)
    await run_python(OPEN)
    error = await run_python(f"await fails({source!r}, 'cache')")
    assert error.startswith("IntegrityError: the download of http")
    assert ": its SHA-256 is " in error
    assert error.endswith("; it was discarded, try again")
    assert await run_python("await kept('cache')") == 0
    answer(site)
    assert await run_python(f"await load({source!r}, 'cache')") == WEIGHTS


async def test_two_tabs_fetch_a_file_once(
    site: SiteServer, page: Page, run_python: RunPython, small_file: Path
) -> None:
    source = source_of(small_file)
    await run_python(OPEN)
    other = await another_page(page)
    answer(site, pause_s=0.005)
    await run_python(f"import asyncio; task = asyncio.create_task(load({source!r}, 'opfs')); None")
    await run_python("while not texts: await asyncio.sleep(0.01)")
    assert await run_in(other, f"await load({source!r}, 'opfs')") == WEIGHTS
    assert await run_in(other, "'; '.join(texts)") == WAITING
    assert await run_python("await task") == WEIGHTS
    assert site.models.sent_bytes == small_file.stat().st_size


async def test_a_store_there_is_not(run_python: RunPython) -> None:
    await run_python(OPEN)
    message = await run_python("await fails('/tests/index.html', 'cross-origin')")
    assert 'give one of "cache", "indexeddb", "opfs", "none"' in message


async def test_a_folder_of_the_site_has_a_model(
    site: SiteServer, run_python: RunPython, small_file: Path
) -> None:
    small_file.rename(site.folders["models"] / "model.gguf")
    await run_python(OPEN)
    assert await run_python("await load('../models', 'none')") == WEIGHTS
    assert await run_python("await load('/models/', 'none')") == WEIGHTS


async def test_has_and_delete(site: SiteServer, run_python: RunPython, small_file: Path) -> None:
    await run_python(OPEN)
    found = await run_python(f"""
        import webllm

        async def story(store):
            record = webllm.ModelRecord(model_id="small", model_path={source_of(small_file)!r})
            config = webllm.AppConfig(model_list=(record,), cache_backend=store)
            has = [await webllm.has_model_in_cache("small", config)]
            await load(record.source, store)
            has += [await webllm.has_model_in_cache("small", config)]
            await webllm.delete_chat_config_in_cache("small", config)
            has += [await webllm.has_model_in_cache("small", config)]
            await webllm.delete_model_in_cache("small", config)
            has += [await webllm.has_model_in_cache("small", config), await kept(store)]
            await webllm.delete_model_all_info_in_cache("small", config)
            return has
        str([await story(store) for store in {STORES}])
    """)
    assert found == str([[False, True, True, False, 0]] * 3)


async def test_a_download_waits_for_a_deletion_under_way(
    site: SiteServer, run_python: RunPython, small_file: Path
) -> None:
    """Otherwise the deletion would remove parts that the download has just stored."""
    source = source_of(small_file)
    await run_python(OPEN)
    found = await run_python(f"""
        import asyncio
        import js
        from pyodide.code import run_js
        from webllm.artifacts.browser.models import delete_model

        await load({source!r}, "cache")
        texts.clear()
        run_js({LATE_DELETION!r})
        deletion = asyncio.create_task(delete_model({source!r}, "cache"))
        await js.begun
        await run_js("removeNote")()
        loading = asyncio.create_task(load({source!r}, "cache"))
        while not texts:
            await asyncio.sleep(0.01)
        js.mayDelete()
        await deletion
        str([texts[0], await loading, await kept("cache")])
    """)
    assert found == str([WAITING, WEIGHTS, 6])


async def test_a_file_under_way_is_not_deleted(
    site: SiteServer, page: Page, run_python: RunPython, small_file: Path
) -> None:
    source = source_of(small_file)
    await run_python(OPEN)
    answer(site, pause_s=0.005)
    await run_python(f"import asyncio; task = asyncio.create_task(load({source!r}, 'cache')); None")
    error = await run_python(f"""
        from webllm.artifacts.browser.models import delete_model

        while not texts:
            await asyncio.sleep(0.01)
        try:
            await delete_model({source!r}, "cache")
        except WebLLMError as error:
            message = str(error)
        message
    """)
    assert error.endswith("is being downloaded; stop that, then delete it")
    assert await run_python("await task") == WEIGHTS
