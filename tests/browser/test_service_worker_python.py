"""Python in a page of plain Pyodide, in front of the engine that all pages of the site share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from textwrap import dedent

import pytest
from playwright.async_api import Page

from browser.python_sites import example_site
from browser.service_workers import WorkerVersions, quiet_context
from browser.site_server import DIST, SiteServer

CONNECT = """
from webllm import AppConfig, MLCEngineConfig, ModelRecord, create_service_worker_mlc_engine

record = ModelRecord(model="/models/smollm2.gguf", model_id="smollm2")
config = MLCEngineConfig(app_config=AppConfig(model_list=(record,)))
engine = await create_service_worker_mlc_engine("smollm2", config, host=host, root="/site/")

STORY = {
    "messages": [{"role": "user", "content": "Tell a story."}],
    "temperature": 0,
    "max_tokens": 24,
}

pieces = []

async def ask():
    pieces.clear()
    async for chunk in await engine.chat.completions.create(**STORY, stream=True):
        pieces.append(chunk.choices[0].delta.content or "")
    return "".join(pieces)
"""
REGISTER = """async () => {
  await navigator.serviceWorker.register("/sw.js", { type: "module" });
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteServer]:
    folder = tmp_path_factory.mktemp("site")
    worker = folder / "sw.js"  # at the top, so that its scope has the page
    worker.write_text(
        'import { ServiceWorkerMLCEngineHandler } from "/site/service_worker.js";\n'
        'new ServiceWorkerMLCEngineHandler({ root: "/site/" });\n'
    )
    with example_site(folder, site=DIST, **{"sw.js": worker}) as server:
        yield server


@pytest.fixture
async def page(site: SiteServer) -> AsyncIterator[Page]:
    async with quiet_context() as context:
        page = await context.new_page()
        await page.goto(f"{site.url}/tests/plain.html")
        yield page


async def run(page: Page, code: str) -> object:
    return await page.evaluate("code => run(code)", dedent(code))


async def test_an_answer_survives_the_worker(page: Page) -> None:
    await page.evaluate(REGISTER)
    await run(page, "host = 'service-worker'\n" + CONNECT)
    assert await run(page, "engine.host") == "service-worker"
    text = await run(page, "await ask()")
    assert text
    await run(page, "import asyncio; answer = asyncio.create_task(ask())")
    await run(page, "while len(pieces) < 4: await asyncio.sleep(0)")
    await (await WorkerVersions.of(page)).stop()
    assert await run(page, "answer.done()") is False
    assert await run(page, "await answer") == text


async def test_a_worker_of_a_tab(page: Page) -> None:
    await run(page, "host = 'tab'\n" + CONNECT)
    assert await run(page, "engine.host") == "tab"
    assert await run(page, "await ask()")
