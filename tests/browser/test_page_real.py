"""The chat page, and the client without it, with the real worker and SmolLM2."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from browser.chat_page import answers, ask, begin, chat_page, shorten_answers
from browser.chromium import LAN_HOST, new_context, watched_page
from browser.site_server import DIST, SiteServer, serving

RECORD = {
    "model": "/models/smollm2.gguf",
    "model_id": "SmolLM2-135M-Instruct",
    "size_bytes": 98_362_432,
    "overrides": {"temperature": 0},
}
NO_SESSIONS = """async () => {
  const opening = indexedDB.open("webllm-journal");
  const db = await new Promise((resolve) => (opening.onsuccess = () => resolve(opening.result)));
  const names = [...db.objectStoreNames];
  const counts = names.map((name) => new Promise((resolve) => {
    const counting = db.transaction(name).objectStore(name).count();
    counting.onsuccess = () => resolve(counting.result);
  }));
  const isEmpty = (await Promise.all(counts)).every((count) => count === 0);
  db.close();
  return isEmpty;
}"""
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


async def test_an_answer_survives_a_refresh_and_a_second_tab_needs_no_model(
    chat_site: SiteServer,
) -> None:
    """The text is that of an undisturbed answer, also where it is drawn by chance."""
    async with chat_page(chat_site.url) as page:
        await page.click("#open-settings")
        await page.get_by_label("Longest answer").fill("120")
        await page.get_by_label("Temperature").fill("1")
        await page.get_by_label("Seed").fill("7")
        await page.keyboard.press("Escape")
        await ask(page, "Tell me a story.")
        [expected] = await answers(page)
        num_requests = len(chat_site.models.ranges)
        await page.click("#new-chat")
        await begin(page, "Tell me a story.")
        text = page.locator(".answer .markdown")
        await expect(text).to_contain_text(expected[:20])
        await page.reload()
        await page.locator("#conversations .conversation").first.click()
        await expect(text).to_contain_text(expected[:20])
        async with watched_page(page.context) as other:
            await other.goto(page.url)
            await ready(other)
            assert other.workers == []
            await expect(page.locator(".answer")).to_have_attribute("aria-busy", "false")
            assert await answers(page) == [expected]
            await ask(other, "Name three colours.")
            await begin(page, "Tell me more.")
            await expect(text.last).not_to_be_empty()
            await other.locator("#conversations .conversation").first.click()
            await other.click("#stop")
            await expect(page.locator(".answer .note")).to_contain_text(["Stopped"])
            await page.wait_for_function(NO_SESSIONS)
        assert len(chat_site.models.ranges) == num_requests, "the model was fetched again"
        await page.wait_for_function(NO_SESSIONS)
        await begin(page, "Tell me another story.")
        await expect(text.last).not_to_be_empty()
        await page.keyboard.press("Escape")
        await page.wait_for_function(NO_SESSIONS)


async def test_an_answer_survives_a_refresh_without_https(chat_site: SiteServer) -> None:
    """Without Web Locks each tab has a worker of its own."""
    async with new_context() as context, watched_page(context) as page:
        await page.goto(f"{chat_site.url_at(LAN_HOST)}/index.html")
        assert not await page.evaluate("isSecureContext")
        await page.click("#open-settings")
        await page.get_by_label("Longest answer").fill("120")
        await page.keyboard.press("Escape")
        await page.click("text=Load model")
        await ready(page)
        await ask(page, "Tell me a story.")
        [expected] = await answers(page)
        await page.click("#new-chat")
        await begin(page, "Tell me a story.")
        text = page.locator(".answer .markdown")
        await expect(text).not_to_be_empty()
        await page.reload()
        await page.locator("#conversations .conversation").first.click()
        await expect(page.locator(".answer")).to_have_attribute("aria-busy", "true")
        await expect(page.locator(".answer")).to_have_attribute("aria-busy", "false")
        assert await answers(page) == [expected]


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
