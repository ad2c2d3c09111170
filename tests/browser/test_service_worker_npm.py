"""WebLLM's npm client in front of our Service Worker, which computes with one thread here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page

from browser.service_workers import WorkerVersions, quiet_context
from browser.site_server import SiteServer, serving

WORKER = "/tests/custom_service_worker.js"
CREATE = """
async (script) => {
  const webllm = await import("/node_modules/@mlc-ai/web-llm/lib/index.js");
  const { serviceWorker } = navigator;
  const isPastWorker = (await serviceWorker.getRegistration())?.active && !serviceWorker.controller;
  await serviceWorker.register(script, { type: "module" });
  if (!serviceWorker.controller && !isPastWorker) {
    await new Promise((resolve) => (serviceWorker.oncontrollerchange = resolve));
  }
  window.reports = [];
  const initProgressCallback = (report) => window.reports.push(report);
  window.engine = await webllm.CreateServiceWorkerMLCEngine("smollm2", { initProgressCallback });
  window.ask = (kind, content) => engine.getPromise({ kind, uuid: crypto.randomUUID(), content });
  window.streamed = async (request) => {
    let text = "";
    for await (const chunk of await engine.chat.completions.create({ ...request, stream: true })) {
      text += chunk.choices[0]?.delta.content ?? "";
    }
    return text;
  };
}
"""
COLOURS: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Name three colours."}],
    "temperature": 0,
    "max_tokens": 8,
}
ENDLESS = {**COLOURS, "max_tokens": 4000, "ignore_eos": True, "stream": True}
BREAK = """
async (request) => {
  let text = "";
  for await (const chunk of await engine.chat.completions.create(request)) {
    text += chunk.choices[0]?.delta.content ?? "";
    if (text) break;
  }
  return text;
}
"""


@pytest.fixture(scope="module")
def npm_site(site: SiteServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteServer]:
    """Serves `site` with a catalogue that has the real model."""
    catalogue: Path = tmp_path_factory.mktemp("site") / "models.json"
    record = {"model_id": "smollm2", "model": "/models/smollm2.gguf"}
    catalogue.write_text(json.dumps({"model_list": [record]}))
    with serving({**site.folders, "models.json": catalogue}) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def first_pages(npm_site: SiteServer) -> AsyncIterator[list[Page]]:
    """Two pages opened at once in a browser whose Service Worker all tests of this module share."""
    async with quiet_context() as context:
        yield await asyncio.gather(*(open_page(npm_site, context) for _ in range(2)))


@pytest.fixture(scope="module")
def context(first_pages: list[Page]) -> BrowserContext:
    return first_pages[0].context


@pytest_asyncio.fixture(loop_scope="module")
async def page(npm_site: SiteServer, context: BrowserContext) -> AsyncIterator[Page]:
    page = await open_page(npm_site, context)
    yield page
    await page.close()


async def open_page(site: SiteServer, context: BrowserContext) -> Page:
    """Opens a page with WebLLM's `engine`, `ask` for single messages, and `streamed`."""
    page = await context.new_page()
    await page.goto(f"{site.url}/tests/empty.html")
    await page.evaluate(CREATE, WORKER)
    return page


async def error_of(page: Page, call: str) -> str:
    return str(await page.evaluate(f"{call}.then((value) => `gave ${{value}}`, String)"))


@pytest.mark.asyncio(loop_scope="module")
async def test_two_tabs_on_a_first_visit(first_pages: list[Page]) -> None:
    for page in first_pages:
        progress = [report["progress"] for report in await page.evaluate("reports")]
        assert progress == sorted(progress)
        assert (len(progress) > 3, progress[-1]) == (True, 1)
    texts = await asyncio.gather(*(page.evaluate("streamed", COLOURS) for page in first_pages))
    assert "Red" in texts[0]
    assert texts[0] == texts[1]
    await first_pages[1].close()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_second_visit_and_one_past_the_worker(first_pages: list[Page]) -> None:
    """The model is loaded already; after a shift-reload npm fails with its own words."""
    first_page = first_pages[0]
    text = await first_page.evaluate("streamed", COLOURS)
    await first_page.reload()
    await first_page.evaluate(CREATE, WORKER)
    (report,) = await first_page.evaluate("reports")
    assert (report["progress"], report["text"]) == (1, "The model is loaded already")
    assert await first_page.evaluate("streamed", COLOURS) == text

    session = await first_page.context.new_cdp_session(first_page)
    async with first_page.expect_event("load"):
        await session.send("Page.reload", {"ignoreCache": True})
    create = f"({CREATE})({json.dumps(WORKER)})"
    assert await error_of(first_page, create) == "Error: There is no active service worker"
    await first_page.goto("about:blank")  # or npm's timer throws the same, uncaught


@pytest.mark.asyncio(loop_scope="module")
async def test_every_kind_of_message(page: Page) -> None:
    reply = await page.evaluate("request => engine.chat.completions.create(request)", COLOURS)
    text = reply["choices"][0]["message"]["content"]
    assert "Red" in text
    assert await page.evaluate("engine.getMessage()") == text
    assert "decoding" in await page.evaluate("engine.runtimeStatsText()")
    assert await page.evaluate("streamed", COLOURS) == text
    await page.evaluate("engine.resetChat()")
    assert await page.evaluate("engine.getMessage()") == ""

    prompt = {"prompt": "The sky is", "temperature": 0, "max_tokens": 4}
    reply = await page.evaluate("request => engine.completions.create(request)", prompt)
    completed = reply["choices"][0]["text"]
    pieces = await page.evaluate(
        """async (request) => {
            const chunks = [];
            const stream = await engine.completions.create({ ...request, stream: true });
            for await (const chunk of stream) chunks.push(chunk.choices[0]?.text ?? "");
            return chunks;
        }""",
        prompt,
    )
    assert "".join(pieces) == completed
    assert "no embedding model" in await error_of(page, "engine.embeddings.create({ input: 'a' })")
    assert await page.evaluate("engine.getGPUVendor()") == "google"  # SwiftShader
    assert await page.evaluate("engine.getMaxStorageBufferBindingSize()") >= 1 << 27
    token = await page.evaluate("engine.forwardTokensAndSample([504, 5461, 314], true)")
    assert isinstance(token, int)
    await page.evaluate("engine.setLogLevel('ERROR')")
    await page.evaluate("engine.setAppConfig({ cacheBackend: 'bogus' })")
    assert "ConfigError" in await error_of(page, "engine.reload('smollm2')")
    await page.evaluate("engine.setAppConfig({})")
    await page.evaluate("engine.reload('smollm2')")
    echo = {"requestName": "a", "requestMessage": {"b": 1}}
    assert await page.evaluate("content => ask('customRequest', content)", echo) == ["a", {"b": 1}]
    assert "UnknownMessageKindError" in await error_of(page, "ask('nonsense', { a: 1 })")


@pytest.mark.asyncio(loop_scope="module")
async def test_resumable_sessions(page: Page) -> None:
    request = {**COLOURS, "extra_body": {"resumable": {"enabled": True, "sessionId": "colours"}}}
    text = await page.evaluate("streamed", request)
    (session,) = await page.evaluate("engine.listResumableSessions()")
    assert session["sessionId"] == "colours"
    result = await page.evaluate("engine.resumeChatCompletion('colours')")
    assert result["recoveredText"] == text
    options = {"continueGeneration": True, "stream": True}
    assert (
        await page.evaluate(
            """async (options) => {
            const rest = await engine.resumeChatCompletion("colours", options);
            let text = "";
            if (!(Symbol.asyncIterator in rest)) return "";
            for await (const chunk of rest) text += chunk.choices[0]?.delta.content ?? "";
            return text;
        }""",
            options,
        )
        == ""
    )
    await page.evaluate("engine.deleteResumableSession('colours')")
    assert await page.evaluate("engine.listResumableSessions()") == []
    assert "SessionNotFoundError" in await error_of(page, "engine.resumeChatCompletion('colours')")


@pytest.mark.asyncio(loop_scope="module")
async def test_streams_that_are_left_or_interrupted_end(page: Page) -> None:
    assert await page.evaluate(BREAK, ENDLESS)
    assert await num_running(page) == 0
    reason = await page.evaluate(
        """async (request) => {
            let reason = null;
            for await (const chunk of await engine.chat.completions.create(request)) {
                if (chunk.choices[0]?.delta.content) engine.interruptGenerate();
                reason = chunk.choices[0]?.finish_reason ?? reason;
            }
            return reason;
        }""",
        ENDLESS,
    )
    assert reason == "abort"
    assert await num_running(page) == 0


async def num_running(page: Page) -> int:
    stats = await page.evaluate("ask('getEngineStats', null)")
    return sum(each["running"] + each["waiting"] for each in stats["models"])


@pytest.mark.asyncio(loop_scope="module")
async def test_a_tab_closed_in_mid_stream(
    npm_site: SiteServer, context: BrowserContext, page: Page
) -> None:
    """Its sequence is freed, while the other tab's answer goes on."""
    other = await open_page(npm_site, context)
    alone = await page.evaluate("streamed", COLOURS)
    await other.evaluate(
        """async (request) => {
            const stream = await engine.chat.completions.create(request);
            await stream.next();
            void (async () => { for await (const chunk of stream); })();
        }""",
        ENDLESS,
    )
    assert await page.evaluate("streamed", COLOURS) == alone
    assert await num_running(page) == 1
    await other.close()
    assert await page.evaluate("streamed", COLOURS) == alone
    await page.evaluate(
        """async () => {
            const isFree = ({ models }) => models.every(({ running }) => running === 0);
            while (!isFree(await ask("getEngineStats", null))) {}
        }"""
    )


@pytest.mark.asyncio(loop_scope="module")
async def test_a_stopped_worker_loads_again(
    npm_site: SiteServer, context: BrowserContext, page: Page
) -> None:
    """Two tabs ask for it at the same time."""
    text = await page.evaluate("streamed", COLOURS)
    tabs = [page, await open_page(npm_site, context)]
    versions = await WorkerVersions.of(page)
    await versions.stop()
    texts = await asyncio.gather(*(tab.evaluate("streamed", COLOURS) for tab in tabs))
    assert texts == [text, text]
    await page.evaluate("engine.unload()")
    assert "WorkerEngineModelNotLoadedError" in await error_of(page, "streamed({ messages: [] })")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_stopped_worker_knows_the_catalogue_again(page: Page) -> None:
    """The npm client sends it only once."""
    text = await page.evaluate(
        """async (request) => {
            const record = { model_id: "other name", model: "/models/smollm2.gguf" };
            engine.setAppConfig({ model_list: [record] });
            await engine.reload("other name");
            return streamed(request);
        }""",
        COLOURS,
    )
    await (await WorkerVersions.of(page)).stop()
    assert await page.evaluate("streamed", COLOURS) == text


@pytest.mark.asyncio(loop_scope="module")
async def test_what_a_stopped_worker_was_asked(page: Page) -> None:
    """The next worker answers the whole request and fails the stream's pull.

    The page holds the engine's lock, so that the worker which is stopped cannot answer before.
    """
    text = await page.evaluate("streamed", COLOURS)
    await page.evaluate(
        """async (request) => {
            window.stream = await engine.chat.completions.create(request);
            await stream.next();
            const { scope } = await navigator.serviceWorker.ready;
            window.held = new Promise((resolve) => {
                const hold = () => {
                    resolve();
                    return new Promise((release) => (window.release = release));
                };
                void navigator.locks.request(`webllm engine ${scope}`, hold);
            });
        }""",
        ENDLESS,
    )
    versions = await WorkerVersions.of(page)
    await versions.stop()
    await page.evaluate("held")
    await page.evaluate(
        """async (request) => {
            window.whole = engine.chat.completions.create(request);
            window.rest = stream.next().then((chunk) => JSON.stringify(chunk), String);
            const kinds = ["chatCompletionNonStreaming", "completionStreamNextChunk"];
            const opening = indexedDB.open("webllm-service-worker");
            await new Promise((resolve) => (opening.onsuccess = resolve));
            const noted = async () => {
                const all = opening.result.transaction("requests").objectStore("requests").getAll();
                await new Promise((resolve) => (all.onsuccess = resolve));
                return new Set(all.result.map(({ message }) => message.kind));
            };
            for (let found = new Set(); !kinds.every((kind) => found.has(kind)); ) {
                found = await noted();
            }
            opening.result.close();
        }""",
        COLOURS,
    )
    await versions.stop()
    await page.evaluate("release(), engine.worker.postMessage({ kind: 'keepAlive', uuid: 'a' })")
    reply = await page.evaluate("whole")
    assert reply["choices"][0]["message"]["content"] == text
    assert (await page.evaluate("rest")).startswith("WorkerLostError: ")
