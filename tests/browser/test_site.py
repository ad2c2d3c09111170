"""The site of `webllm web`: its models, its policy, and its behaviour while Python starts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from playwright.async_api import Page

from browser.chat_page import answers, ask, chat_page, shorten_answers
from browser.site_on_disk import Served, serving_site
from browser.site_server import ROOT
from browser.test_page_real import ready

NPM_CLIENT = ROOT / "js" / "node_modules" / "@mlc-ai" / "web-llm" / "lib" / "index.js"
MODEL = "SmolLM2-135M-Instruct"
RELOAD = """
async (modelId) => {
  const { WebWorkerMLCEngine } = await import("/client.js");
  const reports = [];
  const engine = new WebWorkerMLCEngine(new Worker("/worker.js", { type: "module" }), {
    initProgressCallback: (report) => reports.push({ ...report, at: Date.now() / 1000 }),
  });
  await engine.reload(modelId);
  engine.terminate();
  return reports;
}
"""
NPM_CHAT = """
async (modelId) => {
  const { CreateWebWorkerMLCEngine } = await import("/npm.js");
  const worker = new Worker("/worker.js", { type: "module" });
  const engine = await CreateWebWorkerMLCEngine(worker, modelId);
  const messages = [{ role: "user", content: "Name three colours." }];
  const reply = await engine.chat.completions.create({ messages, temperature: 0, max_tokens: 12 });
  return reply.choices[0].message.content;
}
"""
PYTHON_CHAT = """
async () => {
  const { boot } = await import("/boot.js");
  const python = await boot();
  return python.runPythonAsync(`
import js
from webllm import create_web_worker_mlc_engine

worker = js.Worker.new("/worker.js", js.Object.fromEntries([["type", "module"]]))
engine = await create_web_worker_mlc_engine(worker, "SmolLM2-135M-Instruct")
reply = await engine.chat.completions.create(
    messages=[{"role": "user", "content": "Name three colours."}], temperature=0, max_tokens=12
)
await engine.close()
reply.choices[0].message.content
`);
}
"""
BREAK_THE_POLICY = """
() => new Promise((resolve) => {
  new Worker("/evaluating_worker.js").onmessage = resolve;
})
"""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving_site(NPM_CLIENT) as served:
        yield served


@pytest.fixture
async def blank(served: Served) -> AsyncIterator[Page]:
    """Opens a page without a script, on an origin without stored data."""
    async with chat_page(served.url.rstrip("/")) as page:
        await page.goto(f"{served.url}blank.html")
        served.requests.clear()
        yield page


async def test_a_first_visit_goes_through_all_phases(served: Served, blank: Page) -> None:
    reports = await blank.evaluate(RELOAD, MODEL)
    phases = list(dict.fromkeys(report["phase"] for report in reports))
    assert phases == ["runtime", "fetch", "upload", "compile"]
    progress = [report["progress"] for report in reports]
    assert progress == sorted(progress)
    assert (progress[0], progress[-1]) == (0, 1)
    (fetched, *_) = (at for at, target in served.requests if target.startswith("/models/"))
    python = next(report["at"] for report in reports if report["phase"] == "fetch")
    assert fetched < python - 0.1  # the model comes while Python starts
    again = await blank.evaluate(RELOAD, MODEL)
    assert "fetch" not in {report["phase"] for report in again}
    progress = [report["progress"] for report in again]
    assert progress == sorted(progress)
    assert progress[-1] == 1


async def test_clients_find_the_models_of_the_site(blank: Page) -> None:
    assert "Red" in await blank.evaluate(NPM_CHAT, MODEL)
    assert "Red" in await blank.evaluate(PYTHON_CHAT)


async def test_the_chat_page_keeps_to_the_policy(served: Served) -> None:
    served.violations.clear()
    async with chat_page(served.url.rstrip("/")) as page:
        await shorten_answers(page)
        await page.click("text=Load model")
        await ready(page)
        await ask(page, "Name a colour.")
        assert (await answers(page))[-1]
        assert await page.evaluate("crossOriginIsolated")
        assert served.violations == []
        await page.evaluate(BREAK_THE_POLICY)  # a worker's problem would have been reported
        for _ in range(50):
            if served.violations:
                break
            await asyncio.sleep(0.1)
        assert "script-src" in served.violations[0]
