"""The chat page, and the client without it, with the real worker and SmolLM2."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from browser.chat_page import answers, ask, chat_page, shorten_answers
from browser.site_server import DIST, SiteServer, serving

RECORD = {
    "model": "/models/smollm2.gguf",
    "model_id": "SmolLM2-135M-Instruct",
    "size_bytes": 98_362_432,
    "overrides": {"temperature": 0},
}
CLIENT = """
async (record) => {
  const { CreateWebWorkerMLCEngine } = await import("/client.js");
  const worker = new Worker("/worker.js", { type: "module" });
  window.engine = await CreateWebWorkerMLCEngine(worker, record.model_id, {
    appConfig: { model_list: [record] },
  });
  window.ask = async (content, limit) => {
    const request = { messages: [{ role: "user", content }], max_tokens: 24, stream: true };
    let text = "";
    for await (const chunk of await window.engine.chat.completions.create(request)) {
      text += chunk.choices[0]?.delta.content ?? "";
      if (text.length > limit) break;
    }
    return text;
  };
}
"""


@pytest.fixture
def chat_site(site: SiteServer, tmp_path: Path) -> Iterator[SiteServer]:
    """Serves the site with this model in its catalogue."""
    for path in DIST.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "models.json").unlink()
    (tmp_path / "models.json").write_text(json.dumps({"model_list": [RECORD]}))
    with serving({**site.folders, "": tmp_path}) as server:
        yield server


async def test_a_chat_with_smollm2(chat_site: SiteServer) -> None:
    async with chat_page(chat_site.url) as page:
        await shorten_answers(page)
        await page.click("text=Load model")
        await ready(page)
        await ask(page, "Name three colours.")
        assert "Red" in (await answers(page))[-1]
        await expect(page.locator(".answer .stats")).to_contain_text("tokens/s")
        await page.reload()
        await ready(page)  # unasked, and without a download
        await page.click("#conversations .conversation")
        await expect(page.locator(".answer .markdown")).to_contain_text("Red")
        await ask(page, "And three animals?")
        assert (await answers(page))[-1]


async def ready(page: Page) -> None:
    dot = page.locator("#model-dot")
    await expect(dot).to_have_attribute("data-phase", "ready")
    await expect(page.locator("#device-badge")).to_have_text("CPU")


async def test_the_client_streams_ends_and_fails(site: SiteServer) -> None:
    async with chat_page(site.url) as page:
        await page.evaluate(CLIENT, RECORD)
        both = "Promise.all([ask('Name a colour.', 999), ask('What is 2 + 2?', 999)])"
        one, other = await page.evaluate(both)
        assert one
        assert other
        assert one != other
        await page.evaluate("ask('Tell me a story.', 5)")  # leaves its loop
        assert await page.evaluate("ask('Name a colour.', 999)") == one
        refused = "engine.chatCompletion({ messages: [], temperature: 9 }).catch((e) => ({ ...e }))"
        error = await page.evaluate(refused)
        assert (error["name"], error["field"]) == ("RequestError", "temperature")
        assert "decoding" in await page.evaluate("engine.runtimeStatsText()")
