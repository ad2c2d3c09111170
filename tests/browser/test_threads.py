"""The CPU kernels with threads, which need an isolated page, and without."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.async_api import Page

from browser.conftest import RunPython
from browser.site_server import SiteServer
from golden import compare

LOAD = """
import json
from webllm import AppConfig, MLCEngine, MLCEngineConfig, ModelRecord

async def loaded(num_threads):
    record = ModelRecord(model="/models/smollm2.gguf", model_id="smollm2")
    engine = MLCEngine(MLCEngineConfig(
        app_config=AppConfig(model_list=(record,)), device="cpu", num_threads=num_threads
    ))
    await engine.reload("smollm2")
    return engine
"""
OPEN = """
import logging, sys
from types import SimpleNamespace
from webllm.backends.cpu import browser_threads
from webllm.backends.cpu.browser_threads import open_browser_kernels

said = []
handler = logging.Handler()
handler.emit = lambda record: said.append(record.getMessage())
logging.getLogger("webllm").addHandler(handler)
logging.getLogger("webllm").propagate = False
"""


@pytest.fixture
def isolated(site: SiteServer) -> Iterator[None]:
    site.isolated = True
    yield
    site.isolated = False


async def worker_seconds(page: Page) -> list[float]:
    """Returns the CPU time of every Web Worker, the longest first (Linux only)."""
    browser = page.context.browser
    assert browser
    session = await browser.new_browser_cdp_session()
    processes = (await session.send("SystemInfo.getProcessInfo"))["processInfo"]
    spent = []
    for process in processes:
        for task in Path(f"/proc/{process['id']}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                if (task / "comm").read_text().startswith("DedicatedWorker"):
                    fields = (task / "stat").read_text().rpartition(")")[2].split()
                    spent.append((int(fields[11]) + int(fields[12])) / 100)
    return sorted(spent, reverse=True)


@pytest.mark.usefixtures("isolated")
async def test_threads_write_the_golden_text_together(page: Page, run_python: RunPython) -> None:
    await run_python(LOAD + "engine = await loaded(2)")
    assert "2 threads" in await run_python("engine.device_name()")
    assert len(await worker_seconds(page)) == 2
    wide = [p for p in compare.read("smollm2-135m")["prompts"] if p["wide_margin"]]
    assert len(wide) >= 2
    for prompt in wide:
        ask = (
            f"engine.completions.create(prompt={prompt['prompt']!r}, temperature=0, max_tokens=64)"
        )
        assert await run_python(f"(await {ask}).choices[0].text") == prompt["text"]
    assert (await worker_seconds(page))[1] > 0.1
    await run_python("await engine.unload()")
    async with asyncio.timeout(60):
        while len(await worker_seconds(page)) > 1:
            await asyncio.sleep(0.1)


@pytest.mark.usefixtures("isolated")
async def test_threads_change_no_bit(run_python: RunPython) -> None:
    await run_python(LOAD)
    answers = [
        json.loads(
            await run_python(f"""
                engine = await loaded({num_threads})
                messages = [{{"role": "user", "content": "Name three colours. " * 20}}]
                reply = await engine.chat.completions.create(
                    messages=messages, temperature=0, max_tokens=16, logprobs=True, top_logprobs=5
                )
                await engine.unload()
                json.dumps([
                    (token.token, token.logprob, [other.logprob for other in token.top_logprobs])
                    for token in reply.choices[0].logprobs.content
                ])
            """)
        )
        for num_threads in (1, 3)
    ]
    assert len(answers[0]) > 8
    assert answers[0] == answers[1]


@pytest.mark.usefixtures("isolated")
async def test_every_core_counts_by_default(run_python: RunPython) -> None:
    await run_python("import js\n" + OPEN + "kernels = await open_browser_kernels(None)")
    cores = await run_python("js.navigator.hardwareConcurrency")
    assert await run_python("kernels.num_threads") == min(cores, 8)


@pytest.mark.usefixtures("isolated")
@pytest.mark.parametrize("name", ["relaxed", "simd128"])
async def test_kernels_compute_rightly_on_shared_memory(run_python: RunPython, name: str) -> None:
    """Opening them raises if their self-test fails; the memory's views follow its growth."""
    assert await run_python(f"""
        from webllm.backends.cpu.browser import BrowserKernels
        from webllm.backends.cpu.browser_module import instantiate_shared

        kernels = BrowserKernels(instantiate_shared(({name!r},)))
        first, second = kernels.allocate(100), kernels.allocate(64 << 20)
        first.write(1, b"abc")
        second.write((64 << 20) - 3, b"end")
        ends = bytes(first.read(0, 4)) + bytes(second.read((64 << 20) - 4, 4))
        ends == bytes([0]) + b"abc" + bytes([0]) + b"end"
    """)


async def test_a_page_that_is_not_isolated_has_one_thread(
    page: Page, run_python: RunPython
) -> None:
    await run_python(LOAD + "engine = await loaded(4)")
    assert await run_python("engine.device_name()") in (
        "CPU (WebAssembly relaxed SIMD, 1 thread)",
        "CPU (WebAssembly SIMD128, 1 thread)",
    )
    assert len(await worker_seconds(page)) == 1


@pytest.mark.usefixtures("isolated")
async def test_a_page_itself_has_one_thread(page: Page) -> None:
    """A page's main thread may not block to wait for other threads."""
    code = OPEN + "(await open_browser_kernels(2)).num_threads"
    script = """async (code) => {
        const { boot } = await import("/boot.js");
        return (await boot()).runPythonAsync(code);
    }"""
    assert await page.evaluate(script, code) == 1


@pytest.mark.usefixtures("isolated")
async def test_threads_that_do_not_start_are_done_without(run_python: RunPython) -> None:
    await run_python(OPEN)
    await run_python("""
        browser_threads._START_TIMEOUT_S = 1
        sys.modules["webllm_threads"] = SimpleNamespace(url="data:text/javascript,")
        kernels = await open_browser_kernels(2)
    """)
    assert await run_python("kernels.num_threads") == 1
    assert "with one thread" in await run_python("said[0]")


@pytest.mark.usefixtures("isolated")
async def test_threads_start_also_where_python_was_not_started_by_our_script(
    run_python: RunPython,
) -> None:
    await run_python(OPEN)
    await run_python("""
        sys.modules["webllm_threads"] = None  # importing it fails
        kernels = await open_browser_kernels(2)
    """)
    assert await run_python("(kernels.num_threads, len(kernels.workers), len(said)) == (2, 1, 0)")
