"""A page over http from another machine: browsers do not trust it, and give it fewer APIs."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Page

from browser.chromium import LAN_HOST, new_context, watched_page
from browser.site_server import SiteServer
from browser.test_workers import COLOURS

ASK = """
async ([model, cacheBackend, request]) => {
  const webllm = await import("/client.js");
  const record = { model, model_id: "smollm2", model_lib: "" };
  const appConfig = { model_list: [record], cacheBackend };
  const worker = new Worker("/worker.js", { type: "module" });
  const engine = new webllm.WebWorkerMLCEngine(worker, { appConfig });
  try {
    await engine.reload("smollm2");
    const reply = await engine.chat.completions.create(request);
    return reply.choices[0].message.content;
  } catch (error) {
    return String(error);
  } finally {
    engine.terminate();
  }
}
"""


async def ask(page: Page, model: str, store: str | None) -> Any:
    return await page.evaluate(ASK, [model, store, COLOURS])


@pytest.mark.parametrize("store", ["none", "indexeddb", None])
async def test_it_loads_its_own_site_s_model(site: SiteServer, store: str | None) -> None:
    own = site.url_at(LAN_HOST)
    async with new_context() as context, watched_page(context) as page:
        await page.goto(f"{own}/tests/index.html")
        assert not await page.evaluate("isSecureContext")
        assert "Red" in await ask(page, f"{own}/models/smollm2.gguf", store)
        if store == "none":
            other = site.url_at("other.test")
            assert "is not encrypted" in await ask(page, f"{other}/models/smollm2.gguf", store)
