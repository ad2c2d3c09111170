"""The chat page when the model changes or fails while an answer runs."""

from __future__ import annotations

import json

import pytest
from playwright.async_api import BrowserContext, Page, expect

from browser.chat_page import answers, ask, begin, choose_model
from browser.conftest import OpenChat

pytestmark = pytest.mark.asyncio(loop_scope="module")  # the shared browser's event loop


CRASH = "setTimeout(() => { throw new Error('out of luck') })"

POSTED = """() => {
  const post = BroadcastChannel.prototype.postMessage;
  window.posted = [];
  BroadcastChannel.prototype.postMessage = function (message) {
    window.posted.push(message.kind);
    post.call(this, message);
  };
}"""


async def stream(page: Page, text: str = "slow code") -> None:
    """Asks a question and waits until a part of the answer has arrived."""
    await begin(page, text)
    await expect(page.locator(".answer:last-child .markdown")).to_contain_text("Here is")


async def expect_model(page: Page, name: str, phase: str = "ready") -> None:
    await expect(page.locator("#model-name")).to_have_text(name)
    await expect(page.locator("#model-dot")).to_have_attribute("data-phase", phase)


async def test_a_switch_in_mid_answer_stops_the_answer_and_loads(chat: Page) -> None:
    await stream(chat)
    await chat.click("#new-chat")
    await stream(chat)
    await choose_model(chat, "Next")
    await expect_model(chat, "Next 360M")
    await expect(chat.locator("#model-bar")).to_be_hidden()
    await expect(chat.locator("#conversations .busy")).to_have_count(0)
    for conversation in await chat.locator("#conversations .conversation").all():
        await conversation.click()
        await expect(chat.locator(".answer .note")).to_have_text("Stopped")
        await expect(chat.locator(".answer .markdown")).to_contain_text("Here is")
    await expect(chat.get_by_role("alert")).to_have_count(0)
    await ask(chat, "and now")
    assert "You asked: “and now”" in (await answers(chat))[-1]


async def test_a_question_waits_for_the_model_that_is_chosen_at_last(chat: Page) -> None:
    await choose_model(chat, "Slow")
    await begin(chat, "to whom it may concern")
    await choose_model(chat, "Slow")
    await choose_model(chat, "Next")
    await expect_model(chat, "Next 360M")
    await expect(chat.locator(".answer .markdown")).to_contain_text("You asked: “to whom")
    await expect(chat.get_by_role("alert")).to_have_count(0)


async def test_cancelling_the_load_stops_the_question(chat: Page) -> None:
    await choose_model(chat, "Slow")
    await begin(chat, "anybody there")
    await chat.click("text=Cancel")
    await expect(chat.locator(".answer .note")).to_have_text("Stopped")
    await expect_model(chat, "Slow 270M", "none")


@pytest.mark.parametrize("end", [CRASH, "close()"])
async def test_an_idle_worker_that_ends_is_replaced_unnoticed(chat: Page, end: str) -> None:
    await ask(chat, "one")
    await chat.workers[-1].evaluate(end)
    await ask(chat, "two")
    await expect(chat.get_by_role("alert")).to_have_count(0)
    await expect(chat.locator("#model-bar")).to_be_hidden()
    assert "You asked: “two”" in (await answers(chat))[-1]


async def test_a_load_goes_on_after_its_worker_crashed(chat: Page) -> None:
    await choose_model(chat, "Slow")
    await begin(chat, "anybody there")
    await expect(chat.locator(".model-bar-detail")).to_have_text("44 MB of 98 MB")
    async with chat.expect_worker():
        await chat.workers[-1].evaluate(CRASH)
    await expect_model(chat, "Slow 270M", "loading")
    await choose_model(chat, "Quick")
    await expect(chat.locator(".answer .markdown")).to_contain_text("You asked: “anybody there”")
    await expect(chat.get_by_role("alert")).to_have_count(0)


async def test_every_answer_goes_on_after_a_crash(chat: Page) -> None:
    await ask(chat, "code")
    [whole] = await answers(chat)
    for _ in range(2):
        await chat.click("#new-chat")
        await stream(chat)
    await chat.workers[-1].evaluate(CRASH)
    await expect(chat.locator("#conversations .busy")).to_have_count(0)
    for conversation in await chat.locator("#conversations .conversation").all():
        await conversation.click()
        await expect(chat.locator(".answer .markdown")).to_contain_text("See the sieve.")
        assert await answers(chat) == [whole]
    await expect(chat.get_by_role("alert")).to_have_count(0)


async def test_after_a_lost_device_the_next_question_loads_anew(chat: Page) -> None:
    await ask(chat, "lost device")
    await expect(chat.locator(".answer [role=alert]")).to_contain_text("The GPU stopped answering")
    await expect_model(chat, "Quick 135M", "failed")
    await ask(chat, "two")
    await expect_model(chat, "Quick 135M")


async def test_answering_again_ends_the_answer_that_streams(chat: Page) -> None:
    await chat.evaluate(POSTED)
    await ask(chat, "one")
    await stream(chat)
    await chat.click("#new-chat")
    await stream(chat)
    await chat.locator("#conversations .conversation").last.click()
    await chat.locator(".answer [aria-label='Answer again']").first.click()
    await expect(chat.locator(".bubble")).to_have_text(["one"])
    await expect(chat.locator(".answer .markdown")).to_contain_text("You asked: “one”")
    await expect(chat.locator("#conversations .busy")).to_have_count(1)  # the other continues
    assert (await chat.evaluate("posted")).count("abort") == 1


async def test_deleting_the_conversation_that_is_answered(chat: Page) -> None:
    await ask(chat, "one")
    await chat.click("#new-chat")
    await stream(chat)
    await chat.locator("#conversations li").first.hover()
    await chat.locator("#conversations .delete").first.click()
    await chat.click("#confirm button:has-text('Delete')")
    await expect(chat.locator("#conversations .conversation-title")).to_have_text(["one"])
    await expect(chat.locator("#welcome")).to_be_visible()
    await ask(chat, "two")
    await expect(chat.locator("#conversations .conversation-title")).to_have_text(["two", "one"])


WITHOUT_EVENTS = """
  const listen = EventTarget.prototype.addEventListener;
  EventTarget.prototype.addEventListener = function (event, ...others) {
    if (!%s.includes(event)) listen.call(this, event, ...others);
  };
"""


@pytest.mark.parametrize("lost", [[], ["pagehide", "visibilitychange"]])
async def test_an_answer_left_by_reloading_goes_on(open_chat: OpenChat, lost: list[str]) -> None:
    """Also where the browser drops what is written as the page is left."""

    async def prepare(context: BrowserContext) -> None:
        await context.add_init_script(WITHOUT_EVENTS % json.dumps(lost))

    async with open_chat(prepare=prepare) as chat:
        await ask(chat, "code")
        [whole] = await answers(chat)
        await chat.click("#new-chat")
        await stream(chat)
        await chat.reload()
        await chat.click("#conversations .conversation")
        await expect(chat.locator(".answer")).to_have_attribute("data-state", "streaming")
        await expect(chat.locator(".answer .markdown")).to_contain_text("Here is")
        await expect(chat.locator(".answer")).to_have_attribute("data-state", "done")
        assert await answers(chat) == [whole]


async def test_a_question_is_kept_at_once(open_chat: OpenChat) -> None:
    """It is kept without any event of the page's end, as after a crash of the browser."""
    events = ["beforeunload", "pagehide", "visibilitychange"]

    async def prepare(context: BrowserContext) -> None:
        await context.add_init_script(WITHOUT_EVENTS % json.dumps(events))
        await context.add_init_script("window.setTimeout = () => 0")  # no later write

    async with open_chat(prepare=prepare) as chat:
        await begin(chat, "slow code")
        await expect(chat.locator(".answer")).to_have_count(1)
        await chat.wait_for_function(
            """async () => {
              const opening = indexedDB.open("webllm-chat", 1);
              const db = await new Promise((resolve) => {
                opening.onsuccess = () => resolve(opening.result);
              });
              const all = db.transaction("conversations").objectStore("conversations").getAll();
              const records = await new Promise((resolve) => {
                all.onsuccess = () => resolve(all.result);
              });
              db.close();
              return records[0]?.messages[0]?.text === "slow code";
            }"""
        )
