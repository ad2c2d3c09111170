"""WebLLM's list of models in the chat page's dialog: those that fit, searched, by keys alone."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page, Route, expect

from browser.chat_page import ask
from browser.conftest import OpenChat
from browser.test_page_access import OUTSIDE, violations

pytestmark = pytest.mark.asyncio(loop_scope="module")  # the shared browser's event loop

LIST = "**/webllm_models.json"
MEMORY = "Object.defineProperty(Navigator.prototype, 'deviceMemory', { get: () => %s })"
GPU = """Object.defineProperty(navigator, "gpu", { value: {
  requestAdapter: async () => ({
    info: {}, features: new Set(%s), limits: { maxStorageBufferBindingSize: 2 ** 30 },
  }),
} })"""


async def open_list(page: Page) -> None:
    await page.click("#open-models")
    await page.click("#models summary")
    await expect(page.locator(".more-models .hint")).to_contain_text("fit this device")


async def names(page: Page) -> list[str]:
    return await page.locator(".more-models .model-option-name").all_inner_texts()


def prepared(*scripts: str) -> Any:
    async def prepare(context: BrowserContext) -> None:
        for script in scripts:
            await context.add_init_script(script)

    return prepare


async def test_the_list_is_fetched_once_it_is_opened(open_chat: OpenChat) -> None:
    fetched: list[str] = []

    async def count(context: BrowserContext) -> None:
        async def pass_on(route: Route) -> None:
            fetched.append(route.request.url)
            await route.continue_()

        await context.route(LIST, pass_on)

    async with open_chat(prepare=count) as page:
        await ask(page, "one")
        await page.click("#open-models")
        await expect(page.locator("#models .model-option")).to_have_count(5)
        assert fetched == []
        await page.click("#models summary")
        await expect(page.locator(".more-models .hint")).to_contain_text("fit this device")
        await page.click("#models summary")
        await page.click("#models summary")
        assert len(fetched) == 1


async def test_keys_alone_find_and_load_a_model_which_the_next_visit_has(chat: Page) -> None:
    await chat.focus("#open-models")
    await chat.keyboard.press("Enter")
    await chat.keyboard.press("Tab")
    await expect(chat.locator("#models summary")).to_be_focused()
    await chat.keyboard.press("Enter")
    await expect(chat.locator(".more-models .hint")).to_contain_text("fit this device")
    await chat.keyboard.press("Tab")
    await expect(chat.get_by_label("Search")).to_be_focused()
    await chat.keyboard.type("QWEN2.5 0.5b")
    await chat.keyboard.press("Enter")  # loads nothing
    await expect(chat.locator(".more-models .hint")).to_have_text("8 found")
    await chat.keyboard.press("Tab")
    await chat.keyboard.press("Space")
    await expect(chat.locator("#models input:checked")).to_have_count(1)
    chosen = "Qwen2.5-0.5B-Instruct-q4f16_1-MLC"
    await expect(chat.locator("#models input:checked")).to_have_value(chosen)
    await chat.keyboard.press("Enter")
    await expect(chat.locator("#model-dot")).to_have_attribute("data-phase", "ready")
    await expect(chat.locator("#model-name")).to_have_text("Qwen2.5 0.5B Instruct")
    await chat.reload()
    await expect(chat.locator("#model-dot")).to_have_attribute("data-phase", "ready")
    await expect(chat.locator("#model-name")).to_have_text("Qwen2.5 0.5B Instruct")
    await chat.click("#open-models")
    option = chat.locator("#models .model-option:has(:checked)")
    await expect(option).to_contain_text("945 MB of memory · q4f16_1 · for phones too")
    await chat.click("#models label:has-text('Quick')")
    await expect(chat.locator("#models input:checked")).to_have_count(1)


async def test_each_model_is_listed_once_in_the_variant_that_fits(open_chat: OpenChat) -> None:
    for features, end in (("['shader-f16']", "q4f16_1"), ("[]", "q4f32_1")):
        async with open_chat(prepare=prepared(GPU % features, MEMORY % 32)) as page:
            await open_list(page)
            listed = await names(page)
            assert len(listed) == len(set(listed))
            assert "Llama 3.1 8B Instruct" in listed
            option = page.locator(".more-models .model-option:has-text('TinyLlama 1.1B Chat v1.0')")
            await expect(option).to_contain_text(end)
            await expect(page.locator(".more-models .fit")).to_have_count(0)
            await page.get_by_label("Search").fill("tinyllama v1.0 q4f16")
            lacks = page.locator(".more-models .fit.no")
            await expect(lacks).to_have_count(0 if end == "q4f16_1" else 2)
            if end == "q4f32_1":
                await expect(lacks.first).to_have_text("The GPU does not support shader-f16")


async def test_a_small_device_is_offered_what_is_made_for_it(open_chat: OpenChat) -> None:
    async with open_chat(prepare=prepared(GPU % "['shader-f16']", MEMORY % 4)) as page:
        await open_list(page)
        listed = await names(page)
        assert "Llama 3.2 1B Instruct" in listed
        assert "Qwen2.5 Coder 1.5B Instruct" not in listed
        await page.get_by_label("Search").fill("Coder-1.5B")
        notes = page.locator(".more-models .fit.no")
        await expect(notes.first).to_have_text("Made for devices with more memory than this one")
        for text, num_found in (
            ("TinyLlama 3", 0),
            ("gemma3 1b q4", 1),
            (" gemma3-1b-it-q4f16_1 ", 1),
        ):
            await page.get_by_label("Search").fill(text)
            await expect(page.locator(".more-models .hint")).to_have_text(f"{num_found} found")
        await page.get_by_label("Search").fill("no such model")
        await expect(page.locator(".more-models .hint")).to_have_text("0 found")


async def test_a_list_that_does_not_come_can_be_asked_for_again(open_chat: OpenChat) -> None:
    is_failing = [True]

    async def fail_once(context: BrowserContext) -> None:
        async def answer(route: Route) -> None:
            await (route.fulfill(body="no JSON") if is_failing else route.continue_())

        await context.route(LIST, answer)

    async with open_chat(prepare=fail_once) as page:
        await page.click("#open-models")
        await page.click("#models summary")
        hint = page.locator(".more-models .hint")
        await expect(hint).to_contain_text("The list could not be fetched")
        is_failing.clear()
        await page.click("#models summary")
        await page.click("#models summary")
        await expect(hint).to_contain_text("fit this device")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
async def test_axe_finds_nothing_and_buttons_stay_in_sight(
    open_chat: OpenChat, theme: str, width: int
) -> None:
    viewport = {"width": width, "height": 640}
    async with open_chat(color_scheme=theme, viewport=viewport) as page:
        await page.emulate_media(reduced_motion="reduce")
        await open_list(page)
        assert await violations(page) == []
        assert await page.locator("#models").evaluate(OUTSIDE) == []
        load = page.locator("#models button[type=submit]")
        await expect(load).to_be_in_viewport(ratio=1)
        await page.get_by_label("Search").fill("llama")
        assert await violations(page) == []
        await page.locator(".more-models label").last.click()
        await expect(load).to_be_in_viewport(ratio=1)
