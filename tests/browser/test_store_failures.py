"""Stores that fail, lose data or are incomplete raise our errors, which say the way out."""

from __future__ import annotations

import pytest

from browser.conftest import RunPython
from browser.site_server import SiteServer
from browser.store_cases import OPEN, WEIGHTS, source_of, write_model

METHODS = {
    "cache": [
        "CacheStorage.prototype.open",
        "CacheStorage.prototype.match",
        "Cache.prototype.keys",
        "Response.prototype.blob",
    ],
    "indexeddb": [
        "IDBFactory.prototype.open",
        "IDBDatabase.prototype.transaction",
        "IDBObjectStore.prototype.get",
    ],
    "opfs": [
        "StorageManager.prototype.getDirectory",
        "FileSystemDirectoryHandle.prototype.keys",
        "FileSystemDirectoryHandle.prototype.removeEntry",
        "FileSystemFileHandle.prototype.getFile",
    ],
}
BREAK = """
from pyodide.code import run_js
from webllm.artifacts.browser.models import delete_model

async def breaks(method, source, store):
    mend = run_js(f"const works = {method}; () => void ({method} = works)")
    run_js(f"{method} = () => {{ throw new DOMException('damaged', 'InvalidStateError'); }}")
    try:
        await load(source, store)
        await delete_model(source, store)
    except WebLLMError as error:
        return f"{type(error).__name__}: {error}"
    finally:
        mend()
"""


@pytest.fixture
def source(site: SiteServer) -> str:
    """Returns the source of a new model file on the site."""
    return source_of(write_model(site.folders["models"] / "small.gguf"))


@pytest.mark.parametrize("store", METHODS)
async def test_every_failure_is_one_of_our_errors(
    run_python: RunPython, source: str, store: str
) -> None:
    await run_python(OPEN + BREAK)
    assert await run_python(f"await load({source!r}, {store!r})") == WEIGHTS
    for method in METHODS[store]:
        error = await run_python(f"await breaks({method!r}, {source!r}, {store!r})")
        assert error.startswith("ArtifactError: the browser's store failed (InvalidStateError); ")
        assert 'cacheBackend "none"' in error


async def test_a_store_that_forgets_at_once(run_python: RunPython, source: str) -> None:
    """WebKit's Cache API does this in a private window after a reload."""
    await run_python(OPEN + BREAK)
    await run_python("run_js('Cache.prototype.put = async () => {}'); None")
    error = await run_python(f"await fails({source!r}, None)")
    assert error.startswith("StorageFullError: the browser did not store http")
    assert 'cacheBackend "none"' in error
    assert await run_python(f"await load({source!r}, 'none')") == WEIGHTS


async def test_a_file_system_that_cannot_be_written_to(run_python: RunPython, source: str) -> None:
    """Safari's is like this before version 26."""
    await run_python(OPEN + BREAK)
    await run_python("run_js('delete FileSystemFileHandle.prototype.createWritable')")
    error = await run_python(f"await fails({source!r}, 'opfs')")
    assert error.startswith('ConfigError: cacheBackend is "opfs", but there is no file system')
    assert error.endswith('in this browser; give "cache", "indexeddb" or "none"')


async def test_a_browser_that_tells_no_quota(run_python: RunPython, source: str) -> None:
    """Safari before 17 has no `estimate`; if the space runs out, the store itself raises."""
    await run_python(OPEN + BREAK)
    method = "StorageManager.prototype.estimate"
    await run_python(f"run_js('{method} = async () => {{ throw new TypeError() }}'); None")
    assert await run_python(f"await load({source!r}, 'cache')") == WEIGHTS
    await run_python(f"run_js('delete {method}')")
    assert await run_python(f"await load({source!r}, 'opfs')") == WEIGHTS


@pytest.mark.parametrize(
    "broken",
    ["FileSystemFileHandle.prototype.getFile", "FileSystemDirectoryHandle.prototype.removeEntry"],
)
async def test_a_failure_to_clean_up_hides_no_other(
    run_python: RunPython, source: str, broken: str
) -> None:
    await run_python(OPEN + BREAK)
    for method, name in [
        ("FileSystemWritableFileStream.prototype.write", "QuotaExceededError"),
        (broken, "InvalidStateError"),
    ]:
        throw = f"throw new DOMException('', '{name}')"
        await run_python(f"run_js({f'{method} = async () => {{ {throw}; }}; 0'!r})")
    error = await run_python(f"await fails({source!r}, 'opfs')")
    assert error.startswith("StorageFullError: the browser's storage for this site is full")
