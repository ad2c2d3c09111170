"""Texts of any length and script on the chat page: nothing is pushed out of reach."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, Locator, Page, Route, expect

from browser.chat_page import ask, choose_model, keep_conversations
from browser.conftest import OpenChat

pytestmark = pytest.mark.asyncio(loop_scope="module")  # the shared browser's event loop

TITLES = ["W" * 10_000, "👩🏽‍🚀" * 2_500, "مرحبا بالعالم " * 700, "line\nby\nline " * 800]
OVERFLOWING = """() => {
  const scrolls = "pre, .table-frame";
  const isOver = (each) => {
    const { display, overflowX } = getComputedStyle(each);
    if (display === "inline" || overflowX === "hidden" || each.matches(scrolls)) return false;
    return each.checkVisibility() && each.scrollWidth > each.clientWidth + 1;
  };
  const all = [...document.querySelectorAll("body *:not(.visually-hidden *)")];
  return all.filter(isOver).map((each) => each.outerHTML);
}"""
NAMES = ["Quick-135M", "N" * 240, "Broken-" + "ü-" * 100]


async def expect_reachable(button: Locator) -> None:
    """Checks that the element is whole, on the screen, and not covered."""
    await expect(button).to_be_in_viewport(ratio=1)
    await button.click(trial=True)
    box = await button.bounding_box()
    assert box is not None
    assert min(box["width"], box["height"]) >= 24
    nav = await button.page.locator("#sidebar nav").bounding_box()
    assert nav is not None
    assert box["x"] >= nav["x"]
    assert box["x"] + box["width"] <= nav["x"] + nav["width"]


async def keep_titles(page: Page) -> None:
    """Stores conversations with these titles."""
    await keep_conversations(page, TITLES)
    await page.reload()
    await expect(page.locator("#conversations li")).to_have_count(len(TITLES))


async def test_conversations_of_any_title_can_be_deleted(open_chat: OpenChat) -> None:
    async with open_chat(viewport={"width": 1280, "height": 740}) as page:
        await keep_titles(page)
        conversations = page.locator("#conversations li")
        for each in await conversations.all():
            await each.hover()
            await expect(each.locator(".delete")).to_have_css("opacity", "1")
            await expect_reachable(each.locator(".delete"))
        assert await page.evaluate(OVERFLOWING) == []
        await conversations.first.hover()
        await conversations.first.locator(".delete").click()
        await expect(page.locator("#confirm p")).to_contain_text("W" * 59)
        assert await page.evaluate(OVERFLOWING) == []
        await page.click("#confirm button:has-text('Delete')")
        await expect(conversations).to_have_count(3)
        await conversations.first.locator(".conversation").focus()
        await page.keyboard.press("Tab")
        await expect(conversations.first.locator(".delete")).to_be_focused()
        await expect(conversations.first.locator(".delete")).to_have_css("opacity", "1")
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await expect(conversations).to_have_count(2)


async def test_conversations_of_any_title_can_be_deleted_by_touch(open_chat: OpenChat) -> None:
    viewport = {"width": 360, "height": 740}
    async with open_chat(viewport=viewport, has_touch=True, is_mobile=True) as page:
        await keep_titles(page)
        await page.tap("#open-sidebar")
        conversations = page.locator("#conversations li")
        for each in await conversations.all():
            await expect(each.locator(".delete")).to_have_css("opacity", "1")
            await expect_reachable(each.locator(".delete"))
        await conversations.last.locator(".delete").tap()
        await page.locator("#confirm button:has-text('Delete')").tap()
        await expect(conversations).to_have_count(3)


async def test_titles_are_cut_between_characters(chat: Page) -> None:
    await ask(chat, "🎈" * 70)
    await expect(chat.locator(".conversation-title")).to_have_text("🎈" * 59 + "…")


async def with_long_names(context: BrowserContext) -> None:
    models = [{"model": "/m", "model_id": name, "required_features": ["f" * 200]} for name in NAMES]

    async def fulfil(route: Route) -> None:
        await route.fulfill(json={"model_list": models})

    await context.route("**/models.json", fulfil)


@pytest.mark.parametrize("width", [360, 1280])
async def test_long_words_stay_inside(open_chat: OpenChat, tmp_path: Path, width: int) -> None:
    viewport = {"width": width, "height": 640}
    async with open_chat(prepare=with_long_names, viewport=viewport) as page:
        assert await page.evaluate(OVERFLOWING) == []
        await ask(page, "wide")
        assert await page.evaluate(OVERFLOWING) == []
        await page.click("#open-models")
        assert await page.evaluate(OVERFLOWING) == []
        await page.keyboard.press("Escape")
        await page.locator("#open-settings").dispatch_event("click")
        await page.fill("#settings textarea", "W" * 1000)
        assert await page.evaluate(OVERFLOWING) == []
        await page.keyboard.press("Escape")
        await choose_model(page, "Broken")
        await expect(page.locator("#model-bar [role=alert]")).to_be_visible()
        assert await page.evaluate(OVERFLOWING) == []
        file = tmp_path / f"{'F' * 200}.gguf"
        file.write_bytes(b"GGUF")
        await page.click("#open-models")
        async with page.expect_file_chooser() as chooser:
            await page.click("text=Open a file…")
        await (await chooser.value).set_files(file)
        await expect(page.locator("#model-dot")).to_have_attribute("data-phase", "ready")
        await ask(page, "a long crash")
        alert = page.locator("#model-bar [role=alert]")
        await expect(alert).to_contain_text("no luck")
        await expect(alert).to_have_attribute("tabindex", "0")  # it scrolls, by keys too
        assert await page.evaluate(OVERFLOWING) == []
        for name in ("#prompt", "#model-bar button:has-text('Try again')"):
            await expect(page.locator(name)).to_be_in_viewport(ratio=1)
        await page.click("text=Try again")
        await expect(page.locator("#model-dot")).to_have_attribute("data-phase", "ready")
        other = await page.context.new_page()
        await other.goto(page.url)
        await choose_model(other, "Quick")
        await expect(page.locator("#model-bar")).to_contain_text("Another tab loaded Quick")
        assert await page.evaluate(OVERFLOWING) == []
