"""Models on the chat page: from a file, stored by the browser, or without room to be stored."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, Page, expect

from browser.chat_page import MODELS, ask, begin, choose_model
from browser.conftest import OpenChat

pytestmark = pytest.mark.asyncio(loop_scope="module")  # the shared browser's event loop


KEEP = """
async () => {
  const name = "sha256-" + "ab".repeat(32);
  const note = { size: 5, part_bytes: 4194304, sha256: "ab".repeat(32) };
  const store = await caches.open("webllm");
  await store.put(`/webllm-models/${name}.note`, new Response(JSON.stringify(note)));
  await store.put(`/webllm-models/${name}.00000.${"0".repeat(16)}`, new Response("model"));
}
"""
NUM_KEPT = "caches.open('webllm').then(store => store.keys()).then(keys => keys.length)"


async def test_a_file_of_this_disk_is_loaded(chat: Page, tmp_path: Path) -> None:
    file = tmp_path / "My-Model-Q4.gguf"
    file.write_bytes(b"GGUF" * 500_000)
    await chat.click("#open-models")
    async with chat.expect_file_chooser() as chooser:
        await chat.click("text=Open a file…")
    await (await chooser.value).set_files(file)
    await expect(chat.locator("#model-dot")).to_have_attribute("data-phase", "ready")
    await expect(chat.locator("#model-name")).to_have_text("My Model Q4")
    await chat.click("#open-models")
    await expect(chat.locator("#models .model-option").last).to_contain_text("2 MB on this disk")
    await expect(chat.locator("#models input:checked")).to_have_value("My-Model-Q4")


async def test_several_files_of_this_disk_are_one_model(chat: Page, tmp_path: Path) -> None:
    files = [tmp_path / f"My-Model-0000{part}-of-00002.gguf" for part in (1, 2)]
    for file in files:
        file.write_bytes(b"GGUF" * 500_000)
    await chat.click("#open-models")
    async with chat.expect_file_chooser() as chooser:
        await chat.click("text=Open a file…")
    await (await chooser.value).set_files(files)
    await expect(chat.locator("#model-name")).to_have_text("My Model")
    await chat.click("#open-models")
    await expect(chat.locator("#models .model-option").last).to_contain_text("4 MB on this disk")


async def test_a_kept_model_can_be_deleted(chat: Page) -> None:
    await chat.evaluate(KEEP)
    await chat.click("#open-models")
    full = chat.locator("#models .model-option:has-text('Full')")
    await expect(full).to_contain_text("90 MB in this browser")
    await expect(chat.locator("#models .icon-button")).to_have_count(1)
    await full.get_by_label("Delete Full 90M from this browser").click()
    await chat.click("#confirm button:has-text('Delete')")
    await expect(full).to_contain_text("90 MB to download")
    assert await chat.evaluate(NUM_KEPT) == 0


async def test_deleting_the_model_in_use_leaves_its_answers_alone(chat: Page) -> None:
    await chat.evaluate(KEEP)
    await choose_model(chat, "Full")
    await chat.click("text=Run without saving it")
    await begin(chat, "slow code")
    await expect(chat.locator(".answer .markdown")).to_contain_text("Here is")
    await chat.click("#open-models")
    await chat.get_by_label("Delete Full 90M from this browser").click()
    await chat.click("#confirm button:has-text('Delete')")
    option = chat.locator("#models .model-option:has-text('Full')")
    await expect(option).to_contain_text("90 MB to download")
    await chat.keyboard.press("Escape")
    await expect(chat.locator(".answer")).to_have_attribute("data-state", "streaming")
    await expect(chat.locator("#model-dot")).to_have_attribute("data-phase", "ready")


async def test_a_site_that_names_a_store_runs_without_it_too(open_chat: OpenChat) -> None:
    """The store has WebLLM's older spelling, which must not contradict the newer one."""

    async def name_store(context: BrowserContext) -> None:
        catalogue = {"model_list": MODELS, "useIndexedDBCache": True}
        await context.route("**/models.json", lambda route: route.fulfill(json=catalogue))

    async with open_chat(prepare=name_store) as page:
        await choose_model(page, "Full")
        await page.click("text=Run without saving it")
        await expect(page.locator("#model-dot")).to_have_attribute("data-phase", "ready")


async def test_what_cannot_be_kept_runs_without(chat: Page) -> None:
    await choose_model(chat, "Full")
    alert = chat.locator("#model-bar [role=alert]")
    await expect(alert).to_have_text(
        "The model could not be loaded. It needs 90 MB more, but the browser lets this site store "
        "50 MB"
    )
    await chat.click("text=Run without saving it")
    await expect(chat.locator("#model-dot")).to_have_attribute("data-phase", "ready")
    await ask(chat, "one")
    await expect(chat.locator(".answer .markdown")).to_contain_text("You asked")


async def test_the_model_in_use_is_not_offered_again(chat: Page) -> None:
    await choose_model(chat, "Next")
    await expect(chat.locator("#model-dot")).to_have_attribute("data-phase", "ready")
    await chat.click("#open-models")
    load = chat.locator("#models button[type=submit]")
    await expect(load).to_have_text("Loaded")
    await expect(load).to_be_disabled()
    await chat.click("#models label:has-text('Quick')")
    await expect(load).to_have_text("Load model")
    await expect(load).to_be_enabled()
