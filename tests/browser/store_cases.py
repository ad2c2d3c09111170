"""Shared by the tests of the browser's stores: a model file of five parts, Python to load it."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from textwrap import dedent
from typing import Any

import gguf
import numpy as np
from playwright.async_api import Page

from browser.chromium import TIMEOUT_S
from browser.site_server import ModelAnswers, SiteServer

PART_BYTES = 4 << 20
STORES = ["cache", "indexeddb", "opfs"]
WEIGHTS = np.arange(16, 18, dtype=np.float32).tobytes().hex()

OPEN = """
import hashlib
import js
from pyodide.code import run_js
from pyodide.ffi import to_js
from webllm import WebLLMError
from webllm.artifacts import transfer
from webllm.artifacts.auto import open_model
from webllm.artifacts.browser.store import stores_module

transfer._SLOW_PART_S = 3600  # a busy machine is not a slow server
texts = []

async def load(source, store):
    with await open_model(source, store, lambda report: texts.append(report.text)) as checkpoint:
        [row] = await checkpoint.read("matrix", 0, 1)
        return bytes(row.to_bytes())[64:72].hex()

async def read(source, store):
    # Returns a hash of all tensors.
    with await open_model(source, store, None) as checkpoint:
        return await digest(checkpoint)

async def digest(checkpoint):
    [matrix] = await checkpoint.read("matrix", 0, checkpoint.tensors["matrix"].shape[0])
    return hashlib.sha256(matrix.to_bytes() + bytes(checkpoint.data("vector"))).hexdigest()

async def fails(source, store):
    try:
        return await load(source, store)
    except WebLLMError as error:
        return f"{type(error).__name__}: {error}"

async def kept(store):
    keys = await (await stores_module()).openBlobs(store).keys("")
    return len([key for key in keys if not key.endswith(".crswap")])  # Chromium's, of OPFS

async def damage(store, part, how, source=""):
    # Replaces a part of a model by the value of `how`, JavaScript with its `bytes`.
    end = f"{source.partition('#sha256=')[2]}.{part:05}."
    blobs = (await stores_module()).openBlobs(store)
    [key] = [key for key in await blobs.keys("") if end in key]
    data = await run_js("async (blob) => new Uint8Array(await blob.arrayBuffer())")(
        await blobs.get(key)
    )
    await blobs.delete(key)
    damaged = run_js(f"(bytes) => {how}")(data)
    if damaged is not None:
        await blobs.put(key, js.Blob.new(to_js([damaged])))
"""
FLIP = "{ bytes[bytes.length - 9] ^= 1; return bytes; }"


def write_model(file: Path, first: int = 0) -> Path:
    """Writes a file of a little over 16 MiB, whose numbers count up from `first`."""
    writer = gguf.GGUFWriter(file, "llama")
    numbers = np.arange(first, first + (4 << 20), dtype=np.float32)
    writer.add_tensor("matrix", numbers.reshape(4096, 1024))
    writer.add_tensor("vector", numbers[:16])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def tensors_digest(file: Path) -> str:
    """Returns the hash of a model's tensors that `read` returns."""
    tensors = {tensor.name: tensor.data.tobytes() for tensor in gguf.GGUFReader(file).tensors}
    return hashlib.sha256(tensors["matrix"] + tensors["vector"]).hexdigest()


def source_of(file: Path) -> str:
    """Returns the file's source: its path on the site, and its hash."""
    return f"/models/{file.name}#sha256={hashlib.sha256(file.read_bytes()).hexdigest()}"


async def run_in(page: Page, code: str) -> Any:
    """Runs Python in any page, as the fixture `run_python` does."""
    return await asyncio.wait_for(page.evaluate("code => run(code)", dedent(code)), TIMEOUT_S)


async def another_page(page: Page) -> Page:
    """Opens another page of the same browser, with the same stores."""
    async with page.expect_popup() as opened:
        await page.evaluate("() => void window.open('/tests/index.html', '_blank', 'noopener')")
    other = await opened.value
    await other.wait_for_load_state()
    await run_in(other, OPEN)
    return other


def answer(site: SiteServer, **how: Any) -> ModelAnswers:
    """Sets how the next requests are answered, and clears their record."""
    site.models = ModelAnswers(**how)
    return site.models


async def set_quota(page: Page, site: SiteServer, num_bytes: int) -> None:
    """Limits what the site may store in the browser."""
    session = await page.context.new_cdp_session(page)
    quota = {"origin": site.url, "quotaSize": num_bytes}
    await session.send("Storage.overrideQuotaForOrigin", quota)
