"""The chat page for keyboards, screen readers and small screens; axe-core finds nothing serious."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from browser.chat_page import ask, begin, choose_model
from browser.conftest import OpenChat
from browser.site_server import ROOT

pytestmark = pytest.mark.asyncio(loop_scope="module")  # the shared browser's event loop


AXE = ROOT / "js" / "node_modules" / "axe-core" / "axe.min.js"
OUTSIDE = """(box) => {
  const { left, right } = box.getBoundingClientRect();
  const isOutside = (each) => each.left < left || each.right > right;
  const inner = [...box.querySelectorAll("button, label")];
  return inner.filter((each) => isOutside(each.getBoundingClientRect())).map(String);
}"""
FOCUSED = "document.activeElement.id || document.activeElement.ariaLabel"


async def violations(page: Page) -> list[str]:
    """Returns the serious violations, as "rule: element"."""
    await page.evaluate("Promise.all(document.getAnimations().map(each => each.finish()))")
    await page.evaluate(AXE.read_text())
    found = await page.evaluate("axe.run().then(results => results.violations)")
    return [
        f"{rule['id']}: {node['html']}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


async def violations_in_both_themes(page: Page) -> list[str]:
    found = []
    for theme in ("light", "dark"):
        await page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        found += [f"{theme}: {each}" for each in await violations(page)]
    return found


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
async def test_axe_finds_nothing(open_chat: OpenChat, theme: str, width: int) -> None:
    viewport = {"width": width, "height": 740}
    async with open_chat(color_scheme=theme, viewport=viewport) as page:
        await page.emulate_media(reduced_motion="reduce")
        assert await violations(page) == []
        await page.click("#open-models")
        assert await violations(page) == []
        await page.keyboard.press("Escape")
        await ask(page, "code")
        await ask(page, "refuse")
        assert await violations(page) == []
        if width == 360:
            await page.click("#open-sidebar")
            assert await violations(page) == []
        await page.click("#open-settings")
        assert await violations(page) == []


@pytest.mark.parametrize("width", [320, 360, 1920])
async def test_nothing_is_wider_than_the_screen(open_chat: OpenChat, width: int) -> None:
    async with open_chat(viewport={"width": width, "height": 640}) as page:
        await ask(page, "code " + "long" * 40)
        assert await page.evaluate("document.documentElement.scrollWidth") == width
        scroller = page.locator("#scroller")
        assert await scroller.evaluate("each => each.scrollWidth <= each.clientWidth")
        await page.click("#open-models")
        assert await page.locator("#models").evaluate(OUTSIDE) == []


async def test_an_answer_is_announced_once(chat: Page) -> None:
    await chat.evaluate("""() => {
        window.said = [];
        const region = document.getElementById("announcer");
        new MutationObserver(() => window.said.push(region.textContent))
            .observe(region, { childList: true });
    }""")
    await ask(chat, "something")
    answer = "You asked: “something”. This is a short answer."
    assert await chat.evaluate("said") == ["Answering", answer]


async def test_keys_alone_are_enough(chat: Page) -> None:
    await chat.keyboard.press("Tab")
    await chat.keyboard.press("Enter")
    assert await chat.evaluate(FOCUSED) == "prompt"
    await chat.keyboard.type("slow")
    await chat.keyboard.press("Shift+Enter")
    await chat.keyboard.type("code")
    await chat.keyboard.press("Enter")
    await expect(chat.locator(".bubble")).to_have_text("slow\ncode")
    await chat.keyboard.press("Escape")
    await expect(chat.locator(".answer .note")).to_have_text("Stopped")
    assert await chat.evaluate(FOCUSED) == "prompt"


async def test_the_drawer_holds_and_returns_the_focus(open_chat: OpenChat) -> None:
    async with open_chat(viewport={"width": 360, "height": 740}) as page:
        await expect(page.locator("#new-chat")).to_be_hidden()
        await page.click("#open-sidebar")
        assert await page.evaluate(FOCUSED) == "close-sidebar"
        assert await page.locator("#main").evaluate("main => main.inert")
        await page.keyboard.press("Escape")
        assert await page.evaluate(FOCUSED) == "open-sidebar"
        await expect(page.locator("#new-chat")).to_be_hidden()


async def test_reading_back_is_not_disturbed(open_chat: OpenChat) -> None:
    async with open_chat(viewport={"width": 600, "height": 500}) as page:
        await ask(page, "code")
        await begin(page, "slow code")
        await page.locator("#scroller").evaluate("each => each.scrollTo(0, 0)")
        await expect(page.locator("#to-latest")).to_be_visible()
        await expect(page.locator(".answer:last-child .markdown")).to_contain_text("crosses out")
        assert await page.locator("#scroller").evaluate("each => each.scrollTop") == 0
        await page.click("#to-latest")
        await expect(page.locator("#to-latest")).to_be_hidden()


async def test_the_theme_can_be_chosen(chat: Page) -> None:
    light = await chat.evaluate("getComputedStyle(document.body).backgroundColor")
    await chat.click("#open-settings")
    await chat.click("#settings label:has-text('Dark')")
    dark = await chat.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark != light
    await chat.reload()
    assert await chat.evaluate("getComputedStyle(document.body).backgroundColor") == dark


async def test_a_failed_load_is_an_alert(chat: Page) -> None:
    await choose_model(chat, "Broken")
    await expect(chat.get_by_role("alert")).to_contain_text("The model could not be loaded")


COUNT_SLIDES = """
() => {
  window.slides = 0;
  document.querySelector("#sidebar").addEventListener("transitionrun", () => (window.slides += 1));
}
"""
TWO_FRAMES = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


async def test_the_sidebar_slides_only_when_it_is_asked_for(open_chat: OpenChat) -> None:
    async with open_chat(viewport={"width": 1280, "height": 740}) as page:
        await page.evaluate(COUNT_SLIDES)
        await page.set_viewport_size({"width": 600, "height": 740})
        await expect(page.locator("#sidebar")).to_be_hidden()
        await page.evaluate(TWO_FRAMES)
        assert await page.evaluate("slides") == 0
        await page.click("#open-sidebar")
        await expect(page.locator("#close-sidebar")).to_be_in_viewport(ratio=1)
        assert await page.evaluate("slides") > 0
        await page.set_viewport_size({"width": 1280, "height": 740})
        await expect(page.locator("#scrim")).to_be_hidden()
        await page.click("#open-models")
        await expect(page.locator("#models")).to_be_visible()
