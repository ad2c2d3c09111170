"""Model files in the browser's stores: kept once they are right, found again, gone when damaged."""

from __future__ import annotations

import hashlib
from pathlib import Path

import gguf
import numpy as np
import pytest
from playwright.async_api import Page

from browser.conftest import RunPython
from browser.site_server import SiteServer

OPEN = """
from webllm.artifacts.browser import open_model

async def first_weights(source, store):
    with await open_model(source, store, None) as checkpoint:
        return bytes((await checkpoint.read("matrix", 64, 8)).to_bytes()).hex()
"""


@pytest.fixture
def small_file(site: SiteServer) -> Path:
    """A new model file in the folder /models/ of the site."""
    file = site.folders["models"] / "small.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    numbers = np.arange(1 << 20, dtype=np.float32)
    writer.add_tensor("matrix", numbers.reshape(1024, 1024))
    writer.add_tensor("vector", numbers[:16])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


WEIGHTS = np.arange(16, 18, dtype=np.float32).tobytes().hex()


@pytest.mark.parametrize("store", ["cache", "opfs"])
async def test_a_file_is_fetched_once(
    site: SiteServer, page: Page, run_python: RunPython, small_file: Path, store: str
) -> None:
    source = f"/models/small.gguf#sha256={hashlib.sha256(small_file.read_bytes()).hexdigest()}"
    await run_python(OPEN)
    assert await run_python(f"await first_weights({source!r}, {store!r})") == WEIGHTS
    small_file.unlink()  # what comes now comes from the store
    await page.reload()
    site.requested.clear()
    await run_python(OPEN)
    assert await run_python(f"await first_weights({source!r}, {store!r})") == WEIGHTS
    assert not [path for path in site.requested if path.startswith("/models/")]


@pytest.mark.parametrize("store", ["cache", "opfs"])
@pytest.mark.parametrize("what", ["wrong hash", "cut off"])
async def test_what_is_not_right_is_not_kept(
    site: SiteServer, run_python: RunPython, small_file: Path, store: str, what: str
) -> None:
    sha256 = hashlib.sha256(small_file.read_bytes()).hexdigest()
    wrong = "0" * 64 if what == "wrong hash" else sha256
    site.cut_after_bytes = 1 << 20 if what == "cut off" else None
    await run_python(OPEN)
    kind = await run_python(f"""
        try:
            await first_weights("/models/small.gguf#sha256={wrong}", {store!r})
            kind = "none"
        except Exception as error:
            kind = type(error).__name__
        kind
    """)
    assert kind == {"wrong hash": "IntegrityError", "cut off": "FetchError"}[what]
    found = await run_python(f"""
        from webllm.artifacts.browser_store import open_store
        await open_store({store!r}).find("sha256-{wrong}") is not None
    """)
    assert found is False
    site.cut_after_bytes = None
    source = f"/models/small.gguf#sha256={sha256}"
    assert await run_python(f"await first_weights({source!r}, {store!r})") == WEIGHTS


async def test_a_file_that_does_not_fit_is_refused(
    site: SiteServer, page: Page, run_python: RunPython, small_file: Path
) -> None:
    session = await page.context.new_cdp_session(page)
    quota = {"origin": site.url, "quotaSize": small_file.stat().st_size // 2}
    await session.send("Storage.overrideQuotaForOrigin", quota)
    await run_python(OPEN)
    kind = await run_python("""
        try:
            await first_weights("/models/small.gguf", "cache")
        except Exception as error:
            kind = type(error).__name__
        kind
    """)
    assert kind == "StorageFullError"


async def test_a_cancelled_download_leaves_nothing(site: SiteServer, run_python: RunPython) -> None:
    await run_python(OPEN)
    left = await run_python("""
        import asyncio, js
        task = asyncio.create_task(first_weights("/models/smollm2.gguf", "opfs"))
        await asyncio.sleep(0.3)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            folder = await (await js.navigator.storage.getDirectory()).getDirectoryHandle("webllm")
            left = ",".join([name async for name in folder.keys()])
        left
    """)
    assert left == ""


async def test_a_store_there_is_not(run_python: RunPython) -> None:
    await run_python(OPEN)
    message = await run_python("""
        from webllm import WebLLMError
        try:
            await first_weights("/tests/index.html", "indexeddb")
        except WebLLMError as error:
            message = str(error)
        message
    """)
    assert "give 'cache' or 'opfs'" in message
