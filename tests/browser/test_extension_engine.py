"""The engine of a Chrome extension: in the offscreen document, and in the background worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page

from browser.chat_page import until
from browser.extensions import PAGES, Extension, decide, running, write_real_package
from browser.service_workers import WorkerVersions
from browser.shared_engine import REQUESTS
from browser.site_server import DIST, ROOT, serving
from golden import compare

# In the same worker, which cannot connect to itself.
ASK_ITSELF = """
globalThis.askItself = async (request) =>
  (await handler.engine.chat.completions.create(request)).choices[0].message.content;
"""
NPM = ROOT / "js" / "node_modules" / "@mlc-ai" / "web-llm" / "lib" / "index.js"
PAGE = '<!doctype html><title>Test</title><script type="module" src="page.js"></script>'
FILES = {
    "page.html": PAGE,
    "page.js": (PAGES / "extension_engine.js").read_text(),
    "npm.html": PAGE.replace("page.js", "npm_page.js"),
    "npm_page.js": (PAGES / "extension_npm.js").read_text(),
    "npm.js": NPM.read_text(),
}
# As WebLLM's documentation has it.
DOCUMENTED = """
import { ExtensionServiceWorkerMLCEngineHandler } from "./extension_service_worker.js";

let handler;
chrome.runtime.onConnect.addListener(function (port) {
  console.assert(port.name === "web_llm_service_worker");
  if (handler === undefined) {
    handler = new ExtensionServiceWorkerMLCEngineHandler(port);
  } else {
    handler.setPort(port);
  }
  port.onMessage.addListener(handler.onmessage.bind(handler));
});
"""
COLOURS = {
    "messages": [{"role": "user", "content": "Name three colours."}],
    "temperature": 0,
    "max_tokens": 24,
}


@pytest.fixture(scope="module")
def model() -> Path:
    return asyncio.run(compare.model_path("smollm2-135m"))


@pytest.fixture
async def extension(model: Path, tmp_path: Path) -> AsyncIterator[Extension]:
    async with running(write_real_package(tmp_path, model, FILES)) as extension:
        yield extension


async def begin(page: Page, requests: list[dict[str, Any]], num_chunks: int = 20) -> Any:
    """Asks, and waits for some chunks. Returns the task of the answers."""
    seen = await page.evaluate("arrivals.length")
    answers = asyncio.ensure_future(page.evaluate("answers", requests))
    await until(page, f"arrivals.length > {seen + num_chunks}")
    return answers


async def test_two_clients_at_once_and_lost_workers(extension: Extension) -> None:
    """The background worker is stopped, and the offscreen document closed, as both stream."""
    async with extension.page("page.html") as page, extension.page("page.html") as other:
        assert await page.evaluate("connect()") == "offscreen"
        assert await other.evaluate("connect()") == "offscreen"
        expected = await page.evaluate("answers", REQUESTS)
        workers = await WorkerVersions.of(page)
        for end in (workers.stop, extension.end_engine):
            both = [await begin(each, REQUESTS) for each in (page, other)]
            await end()
            assert await asyncio.gather(*both) == [expected, expected]
        stats = await page.evaluate("engine.getEngineStats()")
        assert [model["model_id"] for model in stats["models"]] == ["smollm2"]
        assert "2 threads" in stats["models"][0]["device"]


async def test_an_answer_goes_on_for_a_closed_popup(extension: Extension) -> None:
    request = {"prompt": "Once upon a time", "seed": 7, "max_tokens": 64}
    asked = request | {"extra_body": {"resumable": {"enabled": True, "session_id": "a"}}}
    async with extension.page("page.html") as popup:
        await popup.evaluate("connect()")
        expected = await popup.evaluate("stream", request)
        await begin(popup, [asked], 5)
    async with extension.page("page.html") as popup:
        await popup.evaluate("connect()")
        assert await popup.evaluate("stream", asked) == expected


async def test_the_documented_script_and_an_engine_in_the_worker(
    model: Path, tmp_path: Path
) -> None:
    """Without the permission for offscreen documents the engine is in the background worker."""
    files = FILES | {"background.js": DOCUMENTED + ASK_ITSELF}
    folder = write_real_package(tmp_path, model, files, permissions=[])
    async with running(folder) as extension, extension.page("page.html") as page:
        assert await page.evaluate("connect()") == "service-worker"
        expected = await page.evaluate("answers", REQUESTS)
        worker = await extension.background()
        assert "Red" in await worker.evaluate("(request) => askItself(request)", COLOURS)
        answers = await begin(page, REQUESTS)
        await (await WorkerVersions.of(page)).stop()
        assert await answers == expected
        assert await page.evaluate("disconnects.length") == 1


async def test_the_npm_client(extension: Extension) -> None:
    async with extension.page("npm.html") as page:
        await page.evaluate("connect()")
        text = await page.evaluate("streamed", COLOURS)
        assert "Red" in text
        assert await page.evaluate("whole", COLOURS) == text
        assert text.startswith(
            await page.evaluate("([request]) => streamed(request, 3)", [COLOURS])
        )
        assert await page.evaluate("engine.getMaxStorageBufferBindingSize().then(Number)") > 0
        endless = COLOURS | {"max_tokens": 2000, "ignore_eos": True}
        seen = await page.evaluate("numChunks")
        lost = asyncio.ensure_future(page.evaluate("(r) => streamed(r).catch(String)", endless))
        await until(page, f"numChunks > {seen + 3}")
        await extension.end_engine()
        assert (await lost).startswith(("WorkerLostError: ", "RequestError: no stream "))
        assert await page.evaluate("whole", COLOURS) == text, "the next worker does not answer"
        assert await page.evaluate("disconnects") == 0
        await (await WorkerVersions.of(page)).stop()
        await until(page, "disconnects === 1")


OUTSIDE = """async (extensionId) => {
    const { CreateExtensionServiceWorkerMLCEngine: create } = await import("/client.js");
    try {
        globalThis.engine = await create("SmolLM2-135M", { extensionId });
    } catch (error) {
        return `${error.name}: ${error.message}`;
    }
    const prompt = "Once upon a time";
    const request = { prompt, temperature: 0, max_tokens: 8 };
    const text = (await engine.completions.create(request)).choices[0].text;
    const refused = [engine.listResumableSessions(), engine.getMessage(), engine.unload()];
    refused.push(engine.reload("hf:owner/repo/model.gguf"));
    return [text, engine.host, ...(await Promise.all(refused.map((each) => each.catch(String))))];
}"""
NUM_SESSIONS = """async () => {
    const { ExtensionServiceWorkerMLCEngine: Engine } = await import("./client.js");
    const engine = new Engine();
    const { length } = await engine.listResumableSessions();
    engine.terminate();
    return length;
}"""
ASK_UNTIL_REFUSED = """async () => {
    for (;;) {
        try {
            await engine.completions.create({ prompt: "The sea", max_tokens: 2 });
        } catch (error) {
            return String(error);
        }
    }
}"""
REFUSED = [
    *(
        f"RequestError: only pages of this extension may ask for {kind}"
        for kind in ("listResumableSessions", "getMessage", "unload")
    ),
    'RequestError: this extension has no model "hf:owner/repo/model.gguf"; it has SmolLM2-135M',
]


async def test_web_pages_connect_with_the_users_consent(model: Path, tmp_path: Path) -> None:
    matches = ["http://127.0.0.1/*", "http://localhost/*"]
    folder = write_real_package(tmp_path, model, FILES, externally_connectable={"matches": matches})
    with serving({"": DIST, "tests": PAGES}) as site:
        async with running(folder) as extension:
            extension_id = extension.origin.removeprefix("chrome-extension://")

            page = await extension.context.new_page()

            async def asked(url: str, button: str | None) -> Any:
                """Connects from a page, and clicks a button of the window that asks the user."""
                await page.goto(f"{url}/tests/empty.html")
                reply = asyncio.ensure_future(page.evaluate(OUTSIDE, extension_id))
                if button:
                    window = await extension.context.wait_for_event("page")
                    await decide(window, button)
                return await reply

            allowed, other = site.url, site.url.replace("127.0.0.1", "localhost")
            text, host, *refused = await asked(allowed, "#allow")
            assert (len(text) > 8, host) == (True, "offscreen")
            assert refused == REFUSED
            async with extension.page("page.html") as own:
                await until(own, NUM_SESSIONS, 0)  # the page's client has deleted its own
            denial = (
                f"ServiceWorkerInitializationError: the extension {extension_id}: "
                f"the user does not let {{}} use this extension's model"
            )
            for button in ("#deny", None):
                assert await asked(other, button) == denial.format(other)
            assert await asked(allowed, None) == [text, host, *refused]
            worker = await extension.background()
            await worker.evaluate("chrome.storage.local.set({ allowedOrigins: [] })")
            assert await page.evaluate(ASK_UNTIL_REFUSED) == denial.format(allowed)


PYTHON = """
import { boot } from "./boot.js";

const python = await boot();
globalThis.connect = globalThis.run = (code) => python.runPythonAsync(code);
"""
CLIENT = """
from webllm import create_extension_service_worker_mlc_engine

disconnects = []

def note():
    disconnects.append(1)

engine = await create_extension_service_worker_mlc_engine("SmolLM2-135M", on_disconnect=note)

async def ask(max_tokens=24):
    reply = await engine.chat.completions.create(
        messages=[{"role": "user", "content": "Name three colours."}],
        temperature=0,
        max_tokens=max_tokens,
    )
    return reply.choices[0].message.content

[engine.host, await ask()]
"""
CLOSE = """
from gc import collect
from weakref import ref

for _ in range(2):
    await engine.close()
noted = ref(note)
del engine, note
collect()
noted() is None
"""
SERVER = """
from gc import collect, get_objects
from js import chrome
from pyodide.ffi import create_proxy
from webllm import ExtensionServiceWorkerMLCEngineHandler

handler = None

def serve(port):
    global handler
    if handler is None:
        handler = ExtensionServiceWorkerMLCEngineHandler(port)
    else:
        handler.set_port(port)

chrome.runtime.onConnect.addListener(create_proxy(serve))

def is_listener(each):
    return "set_port.<locals>" in getattr(each, "__qualname__", "")

def num_listeners():
    collect()
    return sum(map(is_listener, get_objects()))
"""


async def test_python_in_pages_of_an_extension(model: Path, tmp_path: Path) -> None:
    """A client of the background's engine; then a handler, to which another page connects."""
    files = {"page.html": PAGE, "page.js": PYTHON}
    folder = write_real_package(tmp_path / "one", model, files)
    async with running(folder) as extension, extension.page("page.html") as page:
        host, text = await page.evaluate("(code) => run(code).then((all) => all.toJs())", CLIENT)
        assert host == "offscreen"
        assert "Red" in text
        await (await WorkerVersions.of(page)).stop()
        assert await page.evaluate("run('await ask()')") == text
        assert await page.evaluate("run('len(disconnects)')") == 1
        assert await page.evaluate("(code) => run(code)", CLOSE), "the callback is kept"
    files = FILES | {"python.html": PAGE.replace("page.js", "python.js"), "python.js": PYTHON}
    folder = write_real_package(tmp_path / "two", model, files, has_background=False)
    async with running(folder) as extension, extension.page("python.html") as server:
        await server.evaluate("(code) => run(code).then(() => {})", SERVER)
        for _ in range(2):
            async with extension.page("page.html") as page:
                assert await page.evaluate("connect()") == "extension"
                asked = {"prompt": "Once upon a time", "temperature": 0, "max_tokens": 8}
                assert (await page.evaluate("stream", asked))["0"]["text"]
                assert await server.evaluate("run('handler.port is not None')")
            await until(server, "run('handler.port is None')")
        await until(server, "run('num_listeners()')", 0)
