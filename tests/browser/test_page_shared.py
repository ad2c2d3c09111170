"""The chat page's tabs share an engine, and answers survive their page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Page, expect

from browser.chat_page import answers, ask, begin, choose_model
from browser.chromium import watched_page

pytestmark = pytest.mark.asyncio(loop_scope="module")  # the shared browser's event loop

NO_SESSIONS = """async () => {
  const journal = await caches.open("fake-journal");
  return (await journal.keys()).length === 0;
}"""
# No answer has anything left to do: no request is kept, and no lock is held.
ALL_SETTLED = """async () => {
  const { held } = await navigator.locks.query();
  return !held.some(({ name }) => name.startsWith("webllm-chat"));
}"""


@asynccontextmanager
async def second_tab(page: Page) -> AsyncIterator[Page]:
    async with watched_page(page.context) as other:
        await other.goto(page.url)
        yield other


async def open_first_conversation(page: Page) -> None:
    await page.locator("#conversations .conversation").first.click()


async def stream(page: Page, text: str = "slow code") -> None:
    await begin(page, text)
    await expect(page.locator(".answer:last-child .markdown")).to_contain_text("Here is")


async def expect_model(page: Page, name: str, phase: str = "ready") -> None:
    await expect(page.locator("#model-name")).to_have_text(name)
    await expect(page.locator("#model-dot")).to_have_attribute("data-phase", phase)


async def expect_state(page: Page, state: str) -> None:
    await expect(page.locator(".answer:last-child")).to_have_attribute("data-state", state)


async def whole_answer(page: Page) -> str:
    """Returns the whole answer to what `stream` asks, from a conversation of its own."""
    await ask(page, "code")
    [whole] = await answers(page)
    await page.click("#new-chat")
    return whole


async def test_an_answer_goes_on_after_two_refreshes(chat: Page) -> None:
    whole = await whole_answer(chat)
    await stream(chat)
    for _ in range(2):
        before = (await answers(chat))[-1]
        await chat.reload()  # which shows the same conversation again
        await expect_state(chat, "streaming")
        await expect(chat.locator(".answer .note")).to_have_text("Picking the answer up again")
        assert (await answers(chat))[-1].startswith(before[:20])
    await expect_state(chat, "done")
    assert await answers(chat) == [whole]
    await expect(chat.locator(".answer .stats")).to_contain_text("41.7 tokens/s")
    await expect(chat.locator(".answer .stats")).not_to_contain_text("first token")
    await chat.wait_for_function(NO_SESSIONS)


async def test_a_stopped_answer_does_not_go_on(chat: Page) -> None:
    await stream(chat)
    await chat.keyboard.press("Escape")
    await expect_state(chat, "stopped")
    await chat.reload()
    await open_first_conversation(chat)
    await expect(chat.locator(".answer .note")).to_have_text("Stopped")
    await expect_model(chat, "Quick 135M")
    await chat.wait_for_function(NO_SESSIONS)
    await expect_state(chat, "stopped")


async def test_a_question_that_waits_for_its_model_survives_a_refresh(chat: Page) -> None:
    await ask(chat, "one")
    await choose_model(chat, "Slow")
    await begin(chat, "anybody there")
    await chat.evaluate("localStorage['webllm-settings'] = '{\"modelId\": \"Slow-270M\"}'")
    await chat.reload()
    await expect_model(chat, "Slow 270M", "loading")
    await open_first_conversation(chat)
    await expect_state(chat, "waiting")
    await chat.click("text=Cancel")
    await expect_state(chat, "stopped")


async def test_an_answer_of_another_model_has_stopped(chat: Page) -> None:
    await stream(chat)
    await chat.evaluate("localStorage['webllm-settings'] = '{\"modelId\": \"Next-360M\"}'")
    await chat.reload()
    await open_first_conversation(chat)
    await expect_state(chat, "stopped")
    await expect(chat.locator(".answer .markdown")).to_contain_text("Here is")
    await expect_model(chat, "Next 360M")
    await chat.wait_for_function(NO_SESSIONS)


async def test_no_session_is_left(chat: Page) -> None:
    """After an answer; after one that is stopped, replaced, or deleted with its conversation."""
    await ask(chat, "one")
    await chat.wait_for_function(NO_SESSIONS)
    await stream(chat)
    await chat.keyboard.press("Escape")
    await chat.wait_for_function(NO_SESSIONS)
    await stream(chat)
    await chat.locator(".answer [aria-label='Answer again']").first.click()
    await expect_state(chat, "done")
    await chat.wait_for_function(NO_SESSIONS)
    await stream(chat)
    await chat.locator("#conversations li").first.hover()
    await chat.locator("#conversations .delete").first.click()
    await chat.click("#confirm button:has-text('Delete')")
    await chat.wait_for_function(NO_SESSIONS)
    await chat.wait_for_function(ALL_SETTLED)


async def test_a_second_tab_needs_no_second_model(chat: Page) -> None:
    await ask(chat, "one")
    async with second_tab(chat) as other:
        await expect_model(other, "Quick 135M")
        assert other.workers == []
        await stream(other)
        await ask(chat, "two")
        await expect_state(other, "streaming")
        await expect(chat.locator("#conversations .conversation")).to_have_count(2)


async def test_tabs_show_what_others_write_and_delete(chat: Page) -> None:
    await ask(chat, "one")
    async with second_tab(chat) as other:
        await open_first_conversation(other)
        await ask(chat, "two")
        await expect(other.locator(".bubble")).to_have_text(["one", "two"])
        await expect(other.locator(".answer .markdown")).to_have_count(2)
        await ask(other, "three")
        await expect(chat.locator(".bubble")).to_have_text(["one", "two", "three"])
        await other.locator("#conversations li").hover()
        await other.locator("#conversations .delete").click()
        await other.click("#confirm button:has-text('Delete')")
        await expect(chat.locator("#conversations li")).to_have_count(0)
        await chat.reload()
        await expect(chat.locator("#welcome")).to_be_visible()
        await expect(chat.locator("#conversations li")).to_have_count(0)


async def test_the_tab_that_stays_takes_the_answer_over(chat: Page) -> None:
    whole = await whole_answer(chat)
    async with second_tab(chat) as other:
        await expect_model(other, "Quick 135M")
        await stream(other)
        await open_first_conversation(chat)
        await expect(chat.locator(".answer .markdown")).to_contain_text("Here is")
    await expect_state(chat, "done")
    assert await answers(chat) == [whole]
    await chat.wait_for_function(NO_SESSIONS)


async def test_another_tab_s_answer_can_be_stopped(chat: Page) -> None:
    await stream(chat)
    async with second_tab(chat) as other:
        await open_first_conversation(other)
        await expect(other.locator(".answer .markdown")).to_contain_text("Here is")
        await other.click("#stop")
        for tab in (other, chat):
            await expect(tab.locator(".answer .note")).to_have_text("Stopped")
        await chat.wait_for_function(NO_SESSIONS)
        await ask(other, "two")
        await expect(chat.locator(".bubble")).to_have_text(["slow code", "two"])


async def test_another_tab_s_model_is_named_and_gives_way_when_asked(chat: Page) -> None:
    await ask(chat, "one")
    async with second_tab(chat) as other:
        await expect_model(other, "Quick 135M")
        await choose_model(other, "Next")
        await expect_model(other, "Next 360M")
        await expect_model(chat, "Quick 135M", "replaced")
        bar = chat.locator("#model-bar")
        await expect(bar).to_contain_text("Another tab loaded Next 360M.")
        await chat.click("text=Load again")
        await expect_model(chat, "Quick 135M")
        await expect(bar).to_be_hidden()
        await expect_model(other, "Next 360M", "replaced")
        await ask(other, "two")  # the next question loads it
        await expect_model(other, "Next 360M")
        await expect_model(chat, "Quick 135M", "replaced")
        await chat.click("text=Use the other")
        await expect_model(chat, "Next 360M")
        await expect_model(other, "Next 360M")


async def test_an_answer_ends_as_another_tab_loads_its_model(chat: Page) -> None:
    await stream(chat)
    async with second_tab(chat) as other:
        await expect_model(other, "Quick 135M")
        await choose_model(other, "Next")
        alert = chat.locator(".answer [role=alert]")
        await expect(alert).to_have_text("The answer was interrupted. Another tab loaded Next 360M")
        await expect_model(chat, "Quick 135M", "replaced")
        await expect_model(other, "Next 360M")
        await chat.locator(".answer [aria-label='Answer again']").click()
        await expect_state(chat, "done")
        await chat.wait_for_function(NO_SESSIONS)


async def test_reading_a_long_prompt_is_shown(chat: Page) -> None:
    await begin(chat, "long prompt")
    await expect(chat.locator(".answer .note")).to_have_text("Reading the prompt, 90 %")
    await chat.keyboard.press("Escape")
    await expect(chat.locator(".answer .note")).to_have_text("Stopped")
