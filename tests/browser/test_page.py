"""The chat page with a fake worker: asking, stopping, changing and keeping conversations."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Page, expect

from browser.chat_page import answers, ask, begin, choose_model, request_of

pytestmark = pytest.mark.asyncio(loop_scope="module")  # the shared browser's event loop


async def test_loads_a_model_and_says_where_it_runs(chat: Page) -> None:
    await expect(chat.locator("#model-bar")).to_contain_text("98 MB to download once")
    await chat.click("text=Load model")
    await expect(chat.locator("#model-dot")).to_have_attribute("data-phase", "ready")
    await expect(chat.locator("#device-badge")).to_have_text("CPU")
    note = "Runs on the CPU (WebAssembly, 2 threads): this browser has no WebGPU."
    await expect(chat.locator("#device-note")).to_contain_text(note)


async def test_shows_sizes_and_what_does_not_fit(chat: Page) -> None:
    await chat.click("#open-models")
    quick, *_, broken = await chat.locator("#models .model-option").all_inner_texts()
    assert "98 MB to download · 250 MB of memory" in quick
    assert "Fits this device" in quick
    assert "Too large to run without WebGPU" in broken


async def test_load_progress_can_be_cancelled(chat: Page) -> None:
    await choose_model(chat, "Slow")
    await expect(chat.locator(".model-bar-detail")).to_have_text("44 MB of 98 MB")
    value = await chat.locator("progress").evaluate("bar => bar.value")
    assert 0 < value < 0.8
    await chat.click("text=Cancel")
    await expect(chat.locator("#model-bar")).to_contain_text("Load model")


async def test_a_failed_load_offers_a_way_out(chat: Page) -> None:
    await choose_model(chat, "Broken")
    alert = chat.locator("#model-bar [role=alert]")
    await expect(alert).to_contain_text("could not be downloaded: the server answered 404")
    await chat.click("text=Other model")
    await chat.click("#models label:has-text('Quick')")
    await chat.click("#models button:has-text('Load model')")
    await expect(chat.locator("#model-dot")).to_have_attribute("data-phase", "ready")


async def test_streams_markdown_and_measures_it(chat: Page) -> None:
    await ask(chat, "code")
    answer = chat.locator(".answer")
    await expect(answer.locator("h5")).to_have_text("The sieve")
    await expect(answer.locator("ol > li")).to_have_count(3)
    await expect(answer.locator("td").first).to_have_text("1,000")
    await expect(answer.locator(".stats")).to_contain_text("41.7 tokens/s · first token after")
    await answer.locator("button[aria-label='Copy code']").click()
    copied = await chat.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("def primes(limit: int)")


async def test_what_streams_looks_as_what_is_whole(chat: Page) -> None:
    await ask(chat, "code")
    await expect(chat.locator(".markdown blockquote")).to_contain_text("the sieve.")
    streamed = await chat.inner_html(".markdown")
    await chat.reload()
    await chat.click("#conversations .conversation")
    await expect(chat.locator(".markdown blockquote")).to_contain_text("the sieve.")
    assert await chat.inner_html(".markdown") == streamed


async def test_lists_that_stream_item_by_item_are_whole(chat: Page) -> None:
    await ask(chat, "lists")
    answer = chat.locator(".answer .markdown")
    await expect(answer.locator("> :last-child")).to_have_text("The end.")
    assert await answer.locator("> ol").evaluate_all("all => all.map(each => each.start)") == [3]
    assert await answer.locator("> ol > li").count() == 3
    assert await answer.locator("> ol > li > p").count() == 4  # the empty line makes it loose
    assert await answer.locator("> ul > li").all_inner_texts() == ["a point", "☑ a task"]
    streamed = await answer.inner_html()
    await chat.reload()
    await chat.click("#conversations .conversation")
    await expect(answer.locator("> :last-child")).to_have_text("The end.")
    assert await answer.inner_html() == streamed


async def test_what_a_model_says_does_nothing(chat: Page) -> None:
    await ask(chat, "hostile")
    text = (await answers(chat))[-1]
    assert "<script>window.hacked = 1</script>" in text
    assert '<b style="position:fixed">bold</b>' in text
    assert await chat.locator(".answer :is(img, script, b, [style], [onerror])").count() == 0
    links = await chat.locator(".answer a").evaluate_all("all => all.map(a => a.href)")
    assert links == ["", "https://example.org/track.png"]
    assert await chat.evaluate("window.hacked") is None


async def test_stop_keeps_what_has_come(chat: Page) -> None:
    await begin(chat, "slow code")
    await expect(chat.locator(".markdown")).to_contain_text("Here is")
    await chat.keyboard.press("Escape")
    await expect(chat.locator(".answer .note")).to_have_text("Stopped")
    text = (await answers(chat))[-1]
    await asyncio.sleep(0.3)
    assert (await answers(chat))[-1] == text
    assert len(text) < 200


async def test_answers_again_and_edits(chat: Page) -> None:
    await ask(chat, "one")
    await ask(chat, "two")
    await chat.locator(".answer:last-child [aria-label='Answer again']").click()
    await expect(chat.locator(".answer:last-child")).to_have_attribute("aria-busy", "false")
    await expect(chat.locator(".answer")).to_have_count(2)
    await chat.locator("[aria-label='Edit message']").first.click()
    await chat.fill(".edit textarea", "three")
    await chat.click(".edit button:has-text('Send')")
    await expect(chat.locator(".bubble")).to_have_text(["three"])
    await expect(chat.locator(".answer .markdown")).to_contain_text("You asked: “three”")


async def test_the_model_is_told_what_was_said_before(chat: Page) -> None:
    await ask(chat, "one")
    request = await request_of(chat, "two")
    roles = [message["role"] for message in request["messages"]]
    assert roles == ["user", "assistant", "user"]


async def test_settings_reach_the_model_and_stay(chat: Page) -> None:
    await chat.click("#open-settings")
    await chat.fill("#settings textarea", "Be brief.")
    await chat.get_by_label("Temperature").fill("0.5")
    await chat.get_by_label("Seed").fill("7")
    await chat.get_by_label("Top p").fill("9")  # out of range: not taken
    await chat.keyboard.press("Escape")
    request = await request_of(chat, "one")
    assert request["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (request["temperature"], request["seed"]) == (0.5, 7)
    assert "top_p" not in request
    await chat.reload()
    await chat.click("#open-settings")
    await expect(chat.locator("#settings textarea")).to_have_value("Be brief.")


async def test_conversations_stay_in_the_browser(chat: Page) -> None:
    await ask(chat, "first question")
    await chat.click("#new-chat")
    await ask(chat, "second question")
    await chat.reload()
    titles = chat.locator("#conversations .conversation-title")
    await expect(titles).to_have_text(["second question", "first question"])
    await expect(chat.locator("#model-dot")).to_have_attribute("data-phase", "ready")
    await titles.last.click()
    await expect(chat.locator(".answer .markdown")).to_contain_text("first question")
    await chat.locator("#conversations li").last.hover()
    await chat.locator("#conversations li .delete").last.click()
    await chat.click("#confirm button:has-text('Delete')")
    await expect(titles).to_have_text(["second question"])
    await expect(chat.locator("#welcome")).to_be_visible()


async def test_two_conversations_are_answered_at_once(chat: Page) -> None:
    await begin(chat, "slow code")
    await chat.click("#new-chat")
    await ask(chat, "quick")
    await expect(chat.locator("#conversations .busy")).to_have_count(1)
    await chat.locator("#conversations .conversation").last.click()
    await expect(chat.locator("#stop")).to_be_visible()
    await expect(chat.locator(".markdown")).to_contain_text("Here is")


async def test_an_error_is_shown_where_the_answer_would_be(chat: Page) -> None:
    await ask(chat, "refuse")
    alert = chat.locator(".answer [role=alert]")
    await expect(alert).to_have_text("No answer. Temperature is 9; it has to be at most 2")
    await ask(chat, "and now")
    assert len(await answers(chat)) == 2


async def test_a_lost_worker_is_replaced_unnoticed(chat: Page) -> None:
    await ask(chat, "stumble")
    assert await answers(chat) == ["You asked: “stumble”. This is a short answer."]
    await expect(chat.get_by_role("alert")).to_have_count(0)
    await expect(chat.locator("#model-bar")).to_be_hidden()


async def test_a_question_that_ends_every_worker_is_given_up(chat: Page) -> None:
    await ask(chat, "crash")
    alert = chat.locator(".answer [role=alert]")
    await expect(alert).to_contain_text("5 workers in a row were lost with this request")
    await expect(chat.locator("#model-bar [role=alert]")).to_be_visible()
    await ask(chat, "again")
    await expect(chat.locator("#model-bar")).to_be_hidden()
    assert "You asked: “again”" in (await answers(chat))[-1]
