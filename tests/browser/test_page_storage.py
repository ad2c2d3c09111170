"""The chat page where the browser's storage is blocked, damaged, full or held by another page."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect

from browser.chat_page import (
    ask,
    begin,
    chat_page,
    choose_model,
    context_of,
    keep_conversations,
    keep_records,
    request_of,
)
from browser.conftest import OpenChat
from browser.site_server import SiteServer

pytestmark = pytest.mark.asyncio(loop_scope="module")  # the shared browser's event loop

DENIED = "throw new DOMException('denied', 'SecurityError')"
FAILED_OPEN = """
  IDBFactory.prototype.open = () => {
    const request = { error: new DOMException("denied", "SecurityError") };
    queueMicrotask(() => request.onerror());
    return request;
  };
"""
NO_DATABASE = {
    "absent": "Object.defineProperty(window, 'indexedDB', { value: undefined });",
    "open throws": f"IDBFactory.prototype.open = () => {{ {DENIED} }};",
    "open fails": FAILED_OPEN,
}
NOTHING = f"""
  for (const name of ["localStorage", "indexedDB", "caches"])
    Object.defineProperty(window, name, {{ get() {{ {DENIED} }} }});
  Object.defineProperty(Navigator.prototype, "storage", {{ value: undefined }});
"""
REFUSING = f"""
  const refuse = async () => {{ {DENIED} }};
  for (const name of ["has", "open", "match"]) CacheStorage.prototype[name] = refuse;
  for (const name of ["estimate", "persist"]) StorageManager.prototype[name] = refuse;
  for (const name of ["getItem", "setItem"]) Storage.prototype[name] = () => {{ {DENIED} }};
  IDBFactory.prototype.open = () => {{ {DENIED} }};
"""
FULL = """
  const { put } = IDBObjectStore.prototype;
  IDBObjectStore.prototype.put = function (record) {
    const { transaction } = this;
    if (window.isFull) {
      const error = new DOMException("full", "QuotaExceededError");
      Object.defineProperty(transaction, "error", { value: error });
      transaction.commit = () => transaction.abort();
    }
    return put.call(this, record);
  };
"""
DAMAGED_SETTINGS = [
    "{",
    "null",
    "[]",
    '"text"',
    '{"systemPrompt": null, "sampling": null, "theme": null, "modelId": null}',
    '{"systemPrompt": 5, "sampling": [1], "theme": "pink", "modelId": {}}',
    '{"sampling": {"temperature": "hot", "top_p": 9, "seed": 1.5, "max_tokens": null}}',
]
DAMAGED_RECORDS: list[dict[str, Any]] = [
    {"id": "a"},
    {"id": 7, "changedAt": 1, "messages": []},
    {"id": "b", "changedAt": "now", "messages": []},
    {"id": "c", "changedAt": 1, "messages": [None]},
    {"id": "d", "changedAt": 1, "messages": [{"id": "m", "role": "user", "state": "done"}]},
    {"id": "e", "changedAt": 1, "messages": {"length": 1}},
]
RECORDS = """() => new Promise((resolve) => {
  indexedDB.open("webllm-chat").onsuccess = ({ target: { result: database } }) => {
    const request = database.transaction("conversations").objectStore("conversations").getAll();
    request.onsuccess = () => (database.close(), resolve(request.result));
  };
})"""
HOLD = """() => new Promise((resolve) => {
  indexedDB.open("webllm-chat", 1).onsuccess = ({ target }) => resolve((window.held = target));
}).then(() => {})"""
UPGRADE = """(isAborted) => new Promise((resolve) => {
  const opening = indexedDB.open("webllm-chat", 2);
  opening.onupgradeneeded = () => isAborted && opening.transaction.abort();
  opening.onblocked = resolve;
  opening.onerror = (event) => event.preventDefault();
  opening.onsuccess = resolve;
}).then(() => {})"""


def prepared(script: str) -> Any:
    async def prepare(context: BrowserContext) -> None:
        await context.add_init_script(script)

    return prepare


def notice(page: Page) -> Any:
    return page.locator("#notices [role=status]")


async def new_request(page: Page) -> dict[str, Any]:
    """Returns the fake worker's request from a new conversation called "echo"."""
    await page.click("#new-chat")
    return await request_of(page, "")


async def test_damaged_settings_are_those_of_a_new_page(chat: Page) -> None:
    for text in DAMAGED_SETTINGS:
        await chat.evaluate("text => localStorage.setItem('webllm-settings', text)", text)
        await chat.reload()
        request = await new_request(chat)
        assert [each["role"] for each in request["messages"]] == ["user"], text
        assert not {"temperature", "top_p", "max_tokens"} & set(request), text
        assert isinstance(request["seed"], int), text
    await expect(notice(chat)).to_have_count(0)


async def test_what_is_right_among_damaged_settings_holds(chat: Page) -> None:
    kept = '{"systemPrompt": "Be brief.", "theme": 7, "sampling": {"seed": 7, "top_p": "?"}}'
    await chat.evaluate("text => localStorage.setItem('webllm-settings', text)", kept)
    await chat.reload()
    request = await new_request(chat)
    assert request["messages"][0] == {"role": "system", "content": "Be brief."}
    assert request["seed"] == 7
    assert "top_p" not in request


async def test_settings_that_could_not_be_read_are_not_overwritten(open_chat: OpenChat) -> None:
    kept = {"systemPrompt": "Be brief.", "theme": "dark", "of a newer page": [1]}
    script = f"""
      localStorage.setItem("webllm-settings", '{json.dumps(kept)}');
      window.getItem = Storage.prototype.getItem;
      Storage.prototype.getItem = () => {{ {DENIED} }};
    """
    async with open_chat(prepare=prepared(script)) as page:
        text = "Settings are not saved: the browser blocks storage for this site."
        await expect(notice(page)).to_contain_text(text)
        await page.click("#open-settings")
        await expect(page.locator("#settings")).to_contain_text("Not saved: the browser blocks")
        await page.evaluate("void (Storage.prototype.getItem = window.getItem)")
        await page.get_by_label("Seed").fill("7")
        await expect(notice(page)).to_have_count(0)
        now = json.loads(await page.evaluate("localStorage.getItem('webllm-settings')"))
        assert now.items() >= kept.items()
        assert now["sampling"]["seed"] == 7


async def test_settings_that_are_no_settings_are_set_aside(chat: Page) -> None:
    await chat.evaluate("localStorage.setItem('webllm-settings', '{\"systemPrompt\": \"Long')")
    await chat.reload()
    await chat.click("#open-settings")
    await chat.get_by_label("Seed").fill("7")
    await chat.wait_for_function("JSON.parse(localStorage['webllm-settings']).sampling.seed === 7")
    aside = await chat.evaluate("localStorage.getItem('webllm-settings-unreadable')")
    assert aside == '{"systemPrompt": "Long'


async def test_full_storage_for_settings(chat: Page) -> None:
    fill = "for (let n = 2 ** 22; n; n >>= 1) try { localStorage[n] = 'x'.repeat(n) } catch {}"
    await chat.evaluate(fill)
    await chat.click("#open-settings")
    await chat.fill("#settings textarea", "Be brief.")
    text = "Settings are not saved: browser storage for this site is full."
    await expect(notice(chat)).to_contain_text(text)
    await chat.keyboard.press("Escape")
    request = await new_request(chat)
    assert request["messages"][0] == {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize("script", [NOTHING, REFUSING])
async def test_without_any_storage_the_page_works(open_chat: OpenChat, script: str) -> None:
    async with open_chat(prepare=prepared(script)) as page:
        await expect(notice(page)).to_have_text(
            "Conversations, settings, and models are not saved: the browser blocks storage for "
            "this site. They last until you close this tab."
        )
        await choose_model(page, "Full")  # which the fake worker loads only if it is not kept
        await expect(page.locator("#model-dot")).to_have_attribute("data-phase", "ready")
        await page.get_by_label("Dismiss").click()
        await page.click("#open-settings")
        await page.fill("#settings textarea", "Be brief.")
        await page.click("#settings label:has-text('Dark')")
        await page.keyboard.press("Escape")
        request = await new_request(page)
        assert request["messages"][0] == {"role": "system", "content": "Be brief."}
        await page.click("#new-chat")
        await ask(page, "two")
        titles = page.locator("#conversations .conversation-title")
        await expect(titles).to_have_text(["two", "echo"])
        await page.locator("#conversations li").first.hover()
        await page.locator("#conversations .delete").first.click()
        await page.click("#confirm button:has-text('Delete')")
        await expect(titles).to_have_text(["echo"])
        await expect(notice(page)).to_have_count(0)  # reported once


@pytest.mark.parametrize("how", NO_DATABASE)
async def test_conversations_without_a_database(open_chat: OpenChat, how: str) -> None:
    async with open_chat(prepare=prepared(NO_DATABASE[how])) as page:
        text = "Conversations are not saved: the browser blocks storage for this site."
        await expect(notice(page)).to_contain_text(text)
        await ask(page, "one")
        await ask(page, "two")
        await expect(page.locator(".bubble")).to_have_text(["one", "two"])


async def test_full_storage_for_conversations(open_chat: OpenChat) -> None:
    async with open_chat(prepare=prepared(FULL)) as page:
        titles = page.locator("#conversations .conversation-title")
        await ask(page, "one")
        await page.evaluate("window.isFull = true")
        await page.click("#new-chat")
        await ask(page, "two")
        text = "Conversations are not saved: browser storage for this site is full."
        await expect(notice(page)).to_contain_text(text)
        await page.locator("#conversations li").last.hover()  # full storage can be emptied
        await page.locator("#conversations .delete").last.click()
        await page.click("#confirm button:has-text('Delete')")
        await expect(titles).to_have_text(["two"])
        await page.evaluate("window.isFull = false")
        await page.click("#new-chat")
        await ask(page, "three")
        await expect(notice(page)).to_have_count(0)
        await page.reload()
        await expect(titles).to_have_text(["three", "two"])


async def test_damaged_conversations_stay_as_they_are(chat: Page) -> None:
    await keep_records(chat, DAMAGED_RECORDS)
    await keep_conversations(chat, ["good", "better"])
    await chat.reload()
    await expect(notice(chat)).to_have_text(
        "6 conversations in this browser could not be read. They were left unchanged."
    )
    titles = chat.locator("#conversations .conversation-title")
    await expect(titles).to_have_text(["good", "better"])
    await ask(chat, "new")
    await chat.locator("#conversations li").last.hover()
    await chat.locator("#conversations .delete").last.click()
    await chat.click("#confirm button:has-text('Delete')")
    await expect(titles).to_have_text(["new", "good"])
    await chat.reload()
    await expect(titles).to_have_text(["new", "good"])
    records = await chat.evaluate(RECORDS)
    assert [each for each in records if each in DAMAGED_RECORDS] == sorted(
        DAMAGED_RECORDS, key=lambda each: (isinstance(each["id"], str), each["id"])
    )


async def test_one_record_that_cannot_be_read_hides_no_other(open_chat: OpenChat) -> None:
    async with open_chat() as page:
        await keep_conversations(page, ["good", "lost", "better"])
        await page.add_init_script("""
          const { get } = IDBObjectStore.prototype;
          IDBObjectStore.prototype.getAll = () => { throw new DOMException("", "DataError"); };
          IDBObjectStore.prototype.get = function (key) {
            if (key.endsWith("1")) throw new DOMException("", "DataError");
            return get.call(this, key);
          };
        """)
        await page.reload()
        titles = page.locator("#conversations .conversation-title")
        await expect(titles).to_have_text(["good", "better"])
        await expect(notice(page)).to_contain_text(
            "One conversation in this browser could not be read."
        )
        assert len(await page.evaluate("indexedDB.databases()")) == 1


async def test_a_database_without_its_table_is_left_alone(
    fake_site: SiteServer, chromium: Browser
) -> None:
    async with context_of(chromium) as context:
        other = await context.new_page()
        await other.goto(f"{fake_site.url}/models.json")
        await other.evaluate(
            "new Promise(r => { indexedDB.open('webllm-chat', 1).onsuccess = r })"
            ".then(({ target }) => target.result.close())"
        )
        page = await context.new_page()
        await page.goto(f"{fake_site.url}/index.html")
        unread = "The conversations in this browser could not be read."
        await expect(notice(page).first).to_contain_text(unread)
        await ask(page, "one")
        await expect(notice(page).last).to_contain_text("Conversations are not saved")
        await ask(page, "two")


async def test_a_newer_page_takes_the_database_over(chat: Page) -> None:
    await ask(chat, "one")
    other = await chat.context.new_page()
    await other.goto(chat.url.replace("index.html", "models.json"))
    await other.evaluate(UPGRADE, False)  # not blocked by the older page
    await ask(chat, "two")
    text = "Conversations are not saved: a newer version of this page has changed them."
    await expect(notice(chat)).to_contain_text(text)
    await ask(chat, "three")


async def test_conversations_that_another_page_holds_back_come_later(
    fake_site: SiteServer, chromium: Browser
) -> None:
    async with chat_page(fake_site.url, browser=chromium) as page:
        await keep_conversations(page, ["kept"])
        holder, upgrader = [await page.context.new_page() for _ in range(2)]
        for each in (holder, upgrader):
            await each.goto(f"{fake_site.url}/models.json")
        await holder.evaluate(HOLD)
        await page.goto(f"{fake_site.url}/models.json")
        await upgrader.evaluate(UPGRADE, True)
        await page.clock.install()
        await page.goto(f"{fake_site.url}/index.html")
        await begin(page, "one")
        await expect(page.locator(".answer .markdown")).to_contain_text("You asked: “one”")
        await page.clock.fast_forward(5000)
        text = "Conversations are not saved: another tab of this site is blocking them."
        await expect(notice(page)).to_contain_text(text)
        await holder.close()
        titles = page.locator("#conversations .conversation-title")
        await expect(titles).to_have_text(["one", "kept"])
        await expect(notice(page)).to_have_count(0)
        await page.reload()
        await expect(titles).to_have_text(["one", "kept"])


async def test_what_nobody_caught_is_shown_beside_the_conversation(
    fake_site: SiteServer, chromium: Browser
) -> None:
    async with context_of(chromium) as context:
        page = await context.new_page()
        await page.goto(f"{fake_site.url}/index.html")
        await ask(page, "one")
        alert = page.locator("#notices [role=alert]")
        for fault in (
            "setTimeout(() => { throw new Error('a bug') })",
            "void Promise.reject('two')",
        ):
            await page.evaluate(fault)
            word = "a bug" if "bug" in fault else "two"
            await expect(alert).to_contain_text(f"Something went wrong in this page: {word}.")
            await expect(page.locator(".answer .markdown")).to_contain_text("You asked: “one”")
            await alert.get_by_label("Dismiss").click()
            await expect(alert).to_have_count(0)
        await page.evaluate("setTimeout(() => { throw new Error('a bug') })")
        await ask(page, "two")
        await alert.get_by_role("button", name="Reload").click()
        await expect(page.locator(".bubble")).to_have_text(["one", "two"])
        await expect(page.locator("#conversations .conversation")).to_have_count(1)


async def test_without_the_list_of_models_conversations_can_be_read(
    fake_site: SiteServer, chromium: Browser
) -> None:
    async with context_of(chromium) as context:
        page = await context.new_page()
        await page.goto(f"{fake_site.url}/index.html")
        await page.wait_for_selector("#welcome .suggestion")
        await keep_conversations(page, ["kept"])
        await context.route("**/models.json", lambda route: route.fulfill(body="<html>"))
        await page.reload()
        alert = page.locator("#notices [role=alert]")
        await expect(alert).to_contain_text("the list of models could not be fetched")
        await page.click("#conversations .conversation")
        await expect(page.locator(".bubble")).to_have_text("kept")
        await ask(page, "one")
        await expect(page.locator(".answer [role=alert]")).to_contain_text(
            "The list of models is empty"
        )
