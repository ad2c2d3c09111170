"""`unload` during a load in a browser: the load is rejected, and the next one goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.async_api import Page

from browser.conftest import RunPython
from browser.site_server import SiteServer
from browser.store_cases import PART_BYTES, answer
from browser.test_workers import COLOURS, NPM_CLIENT, OUR_CLIENT, WORKER

STOPPED = "the load of smollm2 was stopped by unload()"
LOAD = """
async ([client, script, phase, numBytes]) => {
  const webllm = await import(client);
  const record = { model: "/models/smollm2.gguf", model_id: "smollm2", model_lib: "" };
  const reached = Promise.withResolvers();
  window.engine = new webllm.WebWorkerMLCEngine(new Worker(script, { type: "module" }), {
    appConfig: { model_list: [record] },
    initProgressCallback: (report) => {
      if (report.phase === phase && report.loadedBytes >= numBytes) reached.resolve();
    },
  });
  if (phase === "") reached.resolve();
  window.loading = engine.reload("smollm2").then(
    () => "loaded",
    (error) => String(error),
  );
  await reached.promise;
  await engine.unload();
  return loading;
}
"""


@pytest.fixture
def slow_site(site: SiteServer) -> Iterator[SiteServer]:
    """Sends models at 6 MB/s: 98 MB take longer than the test waits for a part of them."""
    answer(site, pause_s=0.01)
    yield site
    answer(site)


@pytest.mark.parametrize("client", [NPM_CLIENT, OUR_CLIENT])
async def test_a_download(page: Page, slow_site: SiteServer, client: str) -> None:
    said = await page.evaluate(LOAD, [client, WORKER, "fetch", 2 * PART_BYTES])
    assert "ModelNotLoadedError" in said
    assert STOPPED in said
    answer(slow_site)
    await page.evaluate("engine.reload('smollm2')")
    first, *_ = slow_site.models.ranges
    assert first is not None, "it started over"
    assert int(first.removeprefix("bytes=").split("-")[0]) >= PART_BYTES
    reply = await page.evaluate("request => engine.chat.completions.create(request)", COLOURS)
    assert "Red" in reply["choices"][0]["message"]["content"]


@pytest.mark.parametrize("phase", ["", "upload"])
async def test_while_python_starts_and_after_the_download(page: Page, phase: str) -> None:
    said = await page.evaluate(LOAD, [OUR_CLIENT, WORKER, phase, 0])
    assert STOPPED in said
    await page.evaluate("engine.reload('smollm2')")
    reply = await page.evaluate("request => engine.chat.completions.create(request)", COLOURS)
    assert "Red" in reply["choices"][0]["message"]["content"]


async def test_a_load_on_webgpu(run_python: RunPython) -> None:
    """Python may await no promise of a closed device: an error would be in the console."""
    said = await run_python("""
        import asyncio, json
        from webllm import AppConfig, MLCEngine, MLCEngineConfig, ModelRecord

        record = ModelRecord(model="/models/smollm2.gguf", model_id="smollm2")
        config = MLCEngineConfig(app_config=AppConfig(model_list=(record,)), device="webgpu")
        engine = MLCEngine(config)

        async def stopped(phase, progress):
            reached = asyncio.Event()

            def on_progress(report):
                if report.phase.value == phase and report.loaded_bytes >= progress:
                    reached.set()

            loading = asyncio.create_task(engine.reload("smollm2", on_progress=on_progress))
            await reached.wait()
            # At once, since Pyodide reports the error of a task that nobody awaits.
            error, _ = await asyncio.gather(loading, engine.unload(), return_exceptions=True)
            return f"{type(error).__name__}: {error}"

        moments = [("fetch", 0), ("fetch", 90_000_000), ("upload", 0), ("upload", 40_000_000),
                   ("compile", 0)]
        json.dumps([await stopped(*each) for each in moments])
    """)
    for each in json.loads(said):
        assert each.startswith(f"ModelNotLoadedError: {STOPPED}")
    await run_python("await asyncio.sleep(1); await engine.unload()")


async def test_python_in_front_of_a_worker(run_python: RunPython, slow_site: SiteServer) -> None:
    said = await run_python("""
        import asyncio, js
        from webllm import AppConfig, MLCEngineConfig, ModelRecord
        from webllm.workers.browser import WebWorkerMLCEngine

        options = js.Object.fromEntries([["type", "module"]])
        worker = js.Worker.new("/worker.js", options)
        record = ModelRecord(model="/models/smollm2.gguf", model_id="smollm2")
        config = MLCEngineConfig(app_config=AppConfig(model_list=(record,)))
        engine = WebWorkerMLCEngine(worker, config)
        reached = asyncio.Event()
        loading = asyncio.create_task(
            engine.reload("smollm2", on_progress=lambda report: reached.set())
        )
        await reached.wait()
        error, _ = await asyncio.gather(loading, engine.unload(), return_exceptions=True)
        await engine.close()
        f"{type(error).__name__}: {error}"
    """)
    assert said.startswith(f"ModelNotLoadedError: {STOPPED}")
