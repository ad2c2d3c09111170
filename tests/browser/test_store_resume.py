"""Broken downloads: received parts are stored, and the next attempt requests the rest."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
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
    source_of,
    write_model,
)

CUT_BYTES = 11 << 20  # two parts, and most of another
PAUSE_S = 0.005  # a piece; slow enough to be read before the connection breaks


@pytest.fixture
def small_file(site: SiteServer) -> Iterator[Path]:
    """Writes a new model file into the site's folder /models/."""
    answer(site)
    yield write_model(site.folders["models"] / "small.gguf")
    answer(site)


async def break_off(site: SiteServer, run_python: RunPython, source: str, **how: object) -> None:
    """Starts a load whose connection breaks after CUT_BYTES."""
    answer(site, cut_after_bytes=CUT_BYTES, num_answers=1, pause_s=PAUSE_S, **how)
    await run_python(OPEN)
    error = await run_python(f"await fails({source!r}, 'cache')")
    assert "FetchError" in error
    assert "the server asks to wait 600 s" in error
    assert site.models.sent_bytes == CUT_BYTES


async def test_a_connection_that_breaks_again_and_again(
    site: SiteServer, run_python: RunPython, small_file: Path
) -> None:
    answer(site, cut_after_bytes=6 << 20, pause_s=PAUSE_S)
    await run_python(OPEN)
    assert await run_python(f"await load({source_of(small_file)!r}, 'cache')") == WEIGHTS
    assert site.models.ranges[0] is None
    assert all(site.models.ranges[1:])
    # A broken answer loses only the bytes that the browser had not yet handed over. They fit into
    # the pipe between its processes (kLargerDataPipeAllocationSize of Chromium, 2 MiB).
    num_broken = len(site.models.ranges) - 1
    assert num_broken >= 2
    assert site.models.sent_bytes <= small_file.stat().st_size + num_broken * (2 << 20)


async def test_the_next_attempt_asks_for_the_rest(
    site: SiteServer, run_python: RunPython, small_file: Path
) -> None:
    source = source_of(small_file)
    await break_off(site, run_python, source)
    answer(site)
    assert await run_python(f"await load({source!r}, 'cache')") == WEIGHTS
    assert site.models.ranges == [f"bytes={2 * PART_BYTES}-"]


@pytest.mark.parametrize("store", STORES)
async def test_a_closed_tab(
    site: SiteServer, page: Page, run_python: RunPython, small_file: Path, store: str
) -> None:
    source = source_of(small_file)
    await run_python(OPEN)
    other = await another_page(page)
    answer(site, pause_s=0.01)
    loading = f"import asyncio; task = asyncio.create_task(load({source!r}, {store!r})); None"
    await run_in(other, loading)
    while await run_python(f"await kept({store!r})") < 4:  # the note, two parts and one begun
        await asyncio.sleep(0.1)
    await other.close()
    answer(site)
    assert await run_python(f"await load({source!r}, {store!r})") == WEIGHTS
    [asked] = site.models.ranges
    assert asked is not None
    assert int(asked.removeprefix("bytes=").removesuffix("-")) >= 2 * PART_BYTES


async def test_a_cancelled_load_goes_on(
    site: SiteServer, run_python: RunPython, small_file: Path
) -> None:
    source = source_of(small_file)
    await run_python(OPEN)
    answer(site, pause_s=0.005)
    kept = await run_python(f"""
        import asyncio
        task = asyncio.create_task(load({source!r}, "opfs"))
        while await kept("opfs") < 4:
            await asyncio.sleep(0.05)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            found = await kept("opfs")
        found
    """)
    assert kept >= 3  # the note and two parts
    answer(site)
    assert await run_python(f"await load({source!r}, 'opfs')") == WEIGHTS
    assert site.models.sent_bytes <= small_file.stat().st_size - 2 * PART_BYTES


async def test_a_server_without_ranges_starts_over(
    site: SiteServer, run_python: RunPython, small_file: Path
) -> None:
    source = source_of(small_file)
    await break_off(site, run_python, source, takes_ranges=False)
    answer(site, takes_ranges=False)
    assert await run_python(f"await load({source!r}, 'cache')") == WEIGHTS
    assert site.models.sent_bytes == small_file.stat().st_size


@pytest.mark.parametrize("etag", ['"2"', None])
async def test_another_version_starts_over(
    site: SiteServer, run_python: RunPython, small_file: Path, etag: str | None
) -> None:
    await break_off(site, run_python, "/models/small.gguf")
    write_model(small_file, first=100)
    answer(site, etag=etag)
    weights = np.arange(116, 118, dtype=np.float32).tobytes().hex()
    assert await run_python("await load('/models/small.gguf', 'cache')") == weights
    assert site.models.ranges == [f"bytes={2 * PART_BYTES}-", None]


async def test_a_slow_server_is_asked_for_several_parts_at_a_time(
    site: SiteServer, run_python: RunPython, small_file: Path
) -> None:
    size = small_file.stat().st_size
    answer(site, pause_s=0.02)
    await run_python(OPEN + "transfer._SLOW_PART_S = 0.5")
    assert await run_python(f"await load({source_of(small_file)!r}, 'cache')") == WEIGHTS
    first, *parts = site.models.ranges
    bounds = [*range(PART_BYTES, size, PART_BYTES), size]
    expected = [f"bytes={start}-{end - 1}" for start, end in pairwise(bounds)]
    assert first is None
    assert sorted(filter(None, parts)) == sorted(expected)
    code = "import json; json.dumps([float(t.split()[2]) for t in texts if ' of ' in t])"
    progress = json.loads(await run_python(code))
    assert progress == sorted(progress)


async def test_parts_that_a_closed_tab_left_out_of_order(
    site: SiteServer, run_python: RunPython, small_file: Path
) -> None:
    source = source_of(small_file)
    await run_python(OPEN)
    assert await run_python(f"await load({source!r}, 'cache')") == WEIGHTS
    answer(site)
    await run_python("""
        blobs = (await stores_module()).openBlobs("cache")
        for key in await blobs.keys(""):
            if ".00001." in key or ".00003." in key:
                await blobs.delete(key)
    """)
    assert await run_python(f"await load({source!r}, 'cache')") == WEIGHTS
    second = f"bytes={PART_BYTES}-{2 * PART_BYTES - 1}"
    fourth = f"bytes={3 * PART_BYTES}-{4 * PART_BYTES - 1}"
    assert sorted(map(str, site.models.ranges)) == sorted([second, fourth])  # asked for at once


async def test_a_prefetched_answer_is_used(
    site: SiteServer, run_python: RunPython, small_file: Path
) -> None:
    await run_python(OPEN)
    weights = await run_python(f"""
        import js

        class Prefetch:
            def __init__(self):
                self.taken = []

            def take(self, url):
                self.taken.append(url)
                return None if len(self.taken) > 1 else js.fetch(url)

        prefetch = Prefetch()
        js.webllmPrefetch = prefetch
        await load({source_of(small_file)!r}, "cache")
    """)
    assert weights == WEIGHTS
    assert await run_python("' '.join(prefetch.taken)") == f"{site.url}/models/small.gguf"
    assert site.models.ranges == [None]


async def test_a_prefetch_that_never_answers(
    site: SiteServer, run_python: RunPython, small_file: Path
) -> None:
    await run_python(OPEN)
    weights = await run_python(f"""
        from webllm.artifacts.browser import fetch

        fetch._STALL_S = 2
        run_js("globalThis.webllmPrefetch = {{ take: () => new Promise(() => {{}}) }}; 0")
        await load({source_of(small_file)!r}, "cache")
    """)
    assert weights == WEIGHTS
    assert site.models.ranges == [None]


async def test_a_cancelled_write_ends_before_the_lock_is_released(
    run_python: RunPython, small_file: Path
) -> None:
    """Otherwise a part could arrive after another tab has deleted the file or stored another."""
    await run_python(OPEN)
    events = await run_python(f"""
        import asyncio

        run_js('''
            globalThis.events = [];
            const put = Cache.prototype.put;
            Cache.prototype.put = async function (key, response) {{
                events.push("begins");
                await new Promise((resolve) => setTimeout(resolve, 300));
                await put.call(this, key, response);
                events.push("ends");
            }};
            const request = LockManager.prototype.request;
            LockManager.prototype.request = async function (...given) {{
                await request.apply(this, given);
                events.push("released");
            }};
            0
        ''')
        task = asyncio.create_task(load({source_of(small_file)!r}, 'cache'))
        while list(js.events) != ["begins", "ends", "begins"]:  # the note, a part
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        f"{{task.cancelled()}} {{' '.join(js.events)}}"
    """)
    assert events == "True begins ends begins ends released"
