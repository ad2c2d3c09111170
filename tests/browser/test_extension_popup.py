"""The popup of Chrome extensions, in Chromium with an unpacked extension."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from browser.chat_page import ask, begin, shorten_answers, until
from browser.extensions import (
    MODELS,
    Extension,
    running,
    write_fake_package,
    write_package,
    write_real_package,
)
from browser.service_workers import WorkerVersions
from browser.site_server import DIST, SiteServer, serving
from browser.test_page_access import FOCUSED, OUTSIDE, violations_in_both_themes
from golden import compare

ARTICLE = """<!doctype html><meta charset="utf-8"><title>Snails</title>
<style>.away { display: none }</style><nav>Home</nav><header>Site</header>
<main><article><h1>Garden snails</h1><p>The  snail\n eats <b>leaves</b>.</p>
<script>var hidden = "code"</script><p class="away">away</p><aside>advertisement</aside>
<ul><li>one</li><li>two</li></ul><table><tr><th>a</th><th>b</th></tr></table>
<p>LONG</p></article></main><footer>Imprint</footer>"""
LONG = "It sleeps in winter. " * 10
TEXT = f"Garden snails\n\nThe snail eats leaves.\n\n- one\n- two\n\na | b\n\n{LONG.strip()}"
PAGES = {
    "article.html": ARTICLE.replace("LONG", LONG),
    "long.html": f"<title>Long</title><main>{'<p>' + LONG + '</p>'} </main>".replace(
        LONG, LONG * 100
    ),
    "empty.html": "<title>Empty</title><nav>Home</nav>",
}
LAST_ANSWER = """() => new Promise((resolve) => {
  indexedDB.open("webllm-chat", 1).onsuccess = ({ target }) => {
    const table = target.result.transaction("conversations").objectStore("conversations");
    table.getAll().onsuccess = (event) => resolve(event.target.result[0].messages.at(-1).text);
  };
})"""
JSON_SETTINGS = '{"modelId": "ID"}'
HAS_GPU = """
const gpu = { requestAdapter: async () => ({ info: {}, limits: {}, features: new Set() }) };
Object.defineProperty(Navigator.prototype, "gpu", { value: gpu });
"""
READY = "#model-dot[data-phase=ready]"
ASLEEP = "#model-dot[data-phase=asleep]"
NOTE_PHASES = """() => {
    const dot = document.querySelector("#model-dot");
    globalThis.phases = [];
    const note = () => phases.push(dot.dataset.phase);
    new MutationObserver(note).observe(dot, { attributeFilter: ["data-phase"] });
}"""


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteServer]:
    """Serves the web pages that the popup reads."""
    folder = tmp_path_factory.mktemp("web")
    for name, html in PAGES.items():
        (folder / name).write_text(html)
    with serving({"": folder}) as server:
        yield server


async def load(popup: Page) -> None:
    """Agrees to the first model."""
    await popup.click("#first-run .primary")
    await popup.wait_for_selector(READY)


async def load_inside(popup: Page) -> None:
    """Loads a model of the package: waking it asks nothing."""
    await popup.click("#open-models")
    await popup.click("#models label:has-text('Inside')")
    await popup.click("#models button:has-text('Load model')")
    await popup.wait_for_selector(READY)


async def ask_again(popup: Page, text: str) -> None:
    """Asks in a conversation that has answers."""
    count = await popup.locator(".answer").count()
    await popup.fill("#prompt", text)
    await popup.press("#prompt", "Enter")
    await expect(popup.locator(".answer")).to_have_count(count + 1)
    await popup.wait_for_selector(".answer:last-child[aria-busy=false]")


async def open_web(extension: Extension, url: str) -> Page:
    page = await extension.context.new_page()
    await page.goto(url)
    return page


async def content_of(popup: Page, text: str) -> str:
    """Returns what the model got for a question."""
    await ask_again(popup, f"{text} echo")
    request = json.loads(await popup.evaluate(LAST_ANSWER))  # what is shown is Markdown
    content: str = request["messages"][-1]["content"]
    return content


async def facts(popup: Page) -> dict[str, str]:
    await popup.wait_for_selector("#first-run dd")
    names = await popup.locator("#first-run dt").all_inner_texts()
    return dict(zip(names, await popup.locator("#first-run dd").all_inner_texts(), strict=True))


async def test_asks_before_anything_is_downloaded(popup_folder: Path) -> None:
    async with running(popup_folder) as extension, extension.popup() as popup:
        await popup.wait_for_selector("#first-run dd")
        assert await facts(popup) == {
            "Model": "Quick 135M",
            "Size": "98 MB",
            "Source": "huggingface.co (org/quick)",
        }
        await popup.fill("#prompt", "hello")
        await popup.press("#prompt", "Enter")
        await expect(popup.locator("#confirm")).to_contain_text("98 MB from huggingface.co")
        await popup.keyboard.press("Escape")
        await expect(popup.locator("#send")).to_be_enabled()  # the question is put off
        await expect(popup.locator("#prompt")).to_have_value("hello")
        await expect(popup.locator(".answer")).to_have_count(0)
        await popup.press("#prompt", "Enter")
        await popup.click("#confirm button:has-text('Download')")
        await expect(popup.locator(".answer .markdown")).to_contain_text("You asked: “hello”")
        await expect(popup.locator("#device-note")).to_contain_text("It takes 215 MB of memory")


async def test_a_model_of_the_package_needs_no_download(popup_folder: Path) -> None:
    async with running(popup_folder) as extension, extension.popup() as popup:
        await popup.click("#open-models")
        inside = popup.locator("#models label:has-text('Inside')")
        await expect(inside).to_contain_text("270 MB in this extension")
        await popup.keyboard.press("Escape")
        await load_inside(popup)
        await popup.reload()
        await popup.wait_for_selector(READY)  # as the one that was loaded last


async def test_models_of_the_package_are_not_said_to_be_downloaded(tmp_path: Path) -> None:
    folder = write_fake_package(tmp_path, has_background=False)
    write_package(folder, [MODELS[1]], has_background=False)
    async with running(folder) as extension:
        await extension.context.add_init_script(HAS_GPU)
        async with extension.popup() as popup:
            await popup.click("#open-models")
            text = popup.locator("#models .dialog-text")
            await expect(text).to_have_text("All tabs use the one that is loaded.")


async def test_the_package_s_name_is_shown(tmp_path: Path) -> None:
    folder, name = write_fake_package(tmp_path, has_background=False), "Acme " * 15
    for file in folder.glob("_locales/*/messages.json"):
        messages = json.loads(file.read_text())
        file.write_text(json.dumps(messages | {"appName": {"message": name}}))
    async with running(folder) as extension, extension.popup() as popup:
        await popup.click("#open-sidebar")
        await expect(popup.locator(".brand")).to_have_text(name)
        await expect(popup.locator("#close-sidebar")).to_be_in_viewport(ratio=1)
        assert await popup.locator("#sidebar").evaluate(OUTSIDE) == []


async def test_what_is_written_and_asked_stays(popup_folder: Path) -> None:
    async with running(popup_folder) as extension:
        async with extension.popup() as popup:
            await load_inside(popup)
            await begin(popup, "slow code")
            await expect(popup.locator(".answer .markdown")).to_contain_text("Here is")
            await popup.fill("#prompt", "and then")
        async with extension.popup() as popup:
            await expect(popup.locator(".bubble")).to_have_text("slow code")
            await expect(popup.locator("#prompt")).to_have_value("and then")
            await expect(popup.locator("#prompt")).to_be_focused()
            await expect(popup.locator(".answer .markdown")).to_contain_text("See the sieve.")
            await expect(popup.locator(".answer")).to_have_attribute("aria-busy", "false")


async def test_a_model_that_is_gone_is_not_downloaded_unasked(popup_folder: Path) -> None:
    """The fake keeps no model, as if the browser had evicted it."""
    async with running(popup_folder) as extension:
        async with extension.popup() as popup:
            await load(popup)
        async with extension.popup() as popup:
            await expect(popup.locator("#first-run .primary")).to_have_text("Download")
            await load(popup)


async def test_a_question_carries_the_open_page_once(popup_folder: Path, web: SiteServer) -> None:
    async with running(popup_folder) as extension:
        page = await open_web(extension, f"{web.url}/article.html")
        async with extension.popup(page) as popup:
            chip = popup.locator("#page-chip")
            await expect(chip).to_have_text("This page: Snails")
            await expect(chip).to_have_attribute("aria-pressed", "false")
            await load(popup)
            assert await content_of(popup, "without") == "without echo"
            await chip.click()
            await expect(chip).to_have_attribute("aria-pressed", "true")
            content = await content_of(popup, "with")
            assert f'"""\n{TEXT}\n"""' in content
            assert content.endswith("with echo")
            assert '"Snails"' in content
            assert await content_of(popup, "again") == "again echo"
            await expect(popup.locator(".page-card")).to_have_count(1)
            await expect(popup.locator(".page-card")).to_contain_text("The whole page")
        async with extension.popup(page) as popup:
            await expect(popup.locator("#page-chip")).to_have_attribute("aria-pressed", "true")
            await expect(popup.locator(".page-card-title")).to_have_text("Snails")


async def test_one_click_sums_up_the_page(popup_folder: Path, web: SiteServer) -> None:
    async with running(popup_folder) as extension:
        page = await open_web(extension, f"{web.url}/article.html")
        async with extension.popup(page) as popup:
            await load(popup)
            await popup.click("text=Sum up this page")
            await expect(popup.locator(".page-card-title")).to_have_text("Snails")
            await expect(popup.locator(".bubble")).to_have_text(
                "Sum up this page in a few sentences."
            )
            await expect(popup.locator("#page-chip")).to_have_attribute("aria-pressed", "true")


async def test_a_long_page_is_cut_to_the_context_window(
    popup_folder: Path, web: SiteServer
) -> None:
    async with running(popup_folder) as extension:
        page = await open_web(extension, f"{web.url}/long.html")
        async with extension.popup(page) as popup:
            await load(popup)
            await popup.click("#page-chip")
            await expect(popup.locator("#page-chip")).to_have_attribute("aria-pressed", "true")
            await ask(popup, "long?")
            note = popup.locator(".page-card-note")
            await expect(note).to_have_text(re.compile(r"The first 1\d % of the page"))


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("{web}/empty.html", "This page has no text that could be read."),
        ("chrome://version/", "Chrome lets this page be read once you open the popup on it"),
    ],
)
async def test_says_why_a_page_cannot_be_read(
    popup_folder: Path, web: SiteServer, address: str, reason: str
) -> None:
    async with running(popup_folder) as extension:
        page = await open_web(extension, f"{web.url}/article.html")
        async with extension.popup(page) as popup:
            await popup.click("#page-chip")
            await expect(popup.locator("#page-chip")).to_have_attribute("aria-pressed", "true")
            await page.goto(address.format(web=web.url))
            await popup.reload()
            await expect(popup.locator("#page-note")).to_contain_text(reason)
            await expect(popup.locator("#page-chip")).to_be_disabled()
            await load(popup)
            await ask(popup, "without it")
            await expect(popup.locator(".page-card")).to_have_count(0)


async def test_a_page_that_could_not_be_read_is_left_behind(
    popup_folder: Path, web: SiteServer
) -> None:
    """In a tab, the popup stays open when its page goes on to another address."""
    async with running(popup_folder) as extension:
        page = await open_web(extension, f"{web.url}/empty.html")
        async with extension.popup(page) as popup:
            await load(popup)
            await popup.click("#page-chip")
            await expect(popup.locator("#page-note")).to_contain_text("no text")
            await page.goto(f"{web.url}/article.html")
            await ask(popup, "what is it?")
            await expect(popup.locator(".page-card-title")).to_have_text("Snails")
            await expect(popup.locator("#page-note")).to_have_text("")
            await expect(popup.locator("#page-chip")).to_have_text("This page: Snails")
            await page.goto(f"{web.url}/empty.html")
            await ask_again(popup, "and this?")
            await expect(popup.locator(".page-card")).to_have_count(1)
            await expect(popup.locator("#page-note")).to_contain_text("no text")


async def test_the_model_stays_ready_without_the_background_worker(
    background_folder: Path,
) -> None:
    """It is in the offscreen document, which goes on."""
    async with running(background_folder) as extension, extension.popup() as popup:
        await load_inside(popup)
        await popup.evaluate(NOTE_PHASES)
        await (await WorkerVersions.of(popup)).stop()
        await until(popup, "phases.at(-1)", "ready")
        assert "asleep" not in await popup.evaluate("phases")
        await extension.sleep()
        await popup.wait_for_selector(ASLEEP)


async def test_the_engine_sleeps_and_wakes(background_folder: Path) -> None:
    async with running(background_folder) as extension:
        async with extension.popup() as popup:
            await load_inside(popup)
            await ask(popup, "one")
            await extension.sleep()
            await popup.wait_for_selector(ASLEEP)
            await expect(popup.locator("#model-bar")).to_contain_text("It takes no memory")
            await ask_again(popup, "two")
            await popup.wait_for_selector(READY)
            await expect(popup.locator(".answer .markdown").last).to_contain_text("“two”")
            await extension.sleep()
            await popup.wait_for_selector(ASLEEP)
        async with extension.popup() as popup:
            await popup.wait_for_selector(ASLEEP)  # opening it wakes nothing
            worker = await extension.background()
            assert await worker.evaluate("chrome.runtime.getContexts({}).then(all => all.length)")
            assert not await worker.evaluate("chrome.offscreen.hasDocument()")
            await popup.click("text=Wake up")
            await popup.wait_for_selector(READY)


async def test_opening_it_leaves_the_model_of_a_website_loaded(background_folder: Path) -> None:
    async with running(background_folder) as extension:
        async with extension.popup() as popup:
            await load_inside(popup)
        async with extension.popup() as popup:
            await popup.wait_for_selector(READY)
            last = JSON_SETTINGS.replace("ID", "Slow-270M")  # as if a website had loaded the other
            await popup.evaluate(f"localStorage.setItem('webllm-settings', '{last}')")
        async with extension.popup() as popup:
            await expect(popup.locator("#first-run")).to_contain_text("Slow 270M")
            await load_inside(popup)


async def test_an_answer_survives_the_end_of_the_engine(background_folder: Path) -> None:
    async with running(background_folder) as extension, extension.popup() as popup:
        await load_inside(popup)
        await begin(popup, "slow code")
        await expect(popup.locator(".answer .markdown")).to_contain_text("Here is")
        await extension.end_engine()
        await expect(popup.locator(".answer .markdown")).to_contain_text("See the sieve.")
        await expect(popup.locator(READY)).to_have_count(1)


async def test_settings_of_the_engine(background_folder: Path) -> None:
    async with running(background_folder) as extension, extension.popup() as popup:
        origins = ["https://one.test", "https://two.test"]
        await popup.evaluate(
            "(allowedOrigins) => chrome.storage.local.set({ allowedOrigins })", origins
        )
        await popup.click("#open-sidebar")
        await popup.click("#open-settings")
        minutes = popup.get_by_label("Sleep after")
        await expect(minutes).to_have_value("10")
        await minutes.fill("-3")  # not taken
        await minutes.fill("25")
        await popup.get_by_label("Remove https://one.test").click()
        await expect(popup.locator(".sites li")).to_have_count(1)
        await popup.get_by_label("Remove https://two.test").click()
        await expect(popup.locator("text=None. A website")).to_be_visible()
        wanted = {"idleMinutes": 25, "allowedOrigins": []}
        assert await popup.evaluate("chrome.storage.local.get()") == wanted
        denied = "chrome.storage.session.get().then(({ deniedOrigins }) => deniedOrigins?.join())"
        await until(popup, denied, ",".join(origins))
        await popup.click("#settings .dialog-actions button")  # resets what is above it alone
        await expect(popup.get_by_label("Sleep after")).to_have_value("25")
        reset = popup.locator("#settings .dialog-actions ~ .engine-settings")
        await expect(reset).to_contain_text("may not use the model")


@pytest.mark.parametrize("language", ["en", "de"])
async def test_axe_finds_nothing_in_the_popup(background_folder: Path, language: str) -> None:
    options: dict[str, Any] = {"language": language, "flags": [f"--lang={language}"]}
    async with (
        running(background_folder, **options, bypass_csp=True) as extension,
        extension.popup() as popup,
    ):
        await popup.wait_for_selector("#first-run dd")
        await expect(popup.locator("html")).to_have_attribute("lang", language)
        assert await violations_in_both_themes(popup) == []
        await load(popup)
        await ask(popup, "code")
        assert await violations_in_both_themes(popup) == []
        await extension.sleep()
        await popup.wait_for_selector(ASLEEP)
        assert await violations_in_both_themes(popup) == []
        await popup.click("#open-sidebar")
        await popup.click("#open-settings")
        await popup.wait_for_selector(".engine-settings .field")
        assert await violations_in_both_themes(popup) == []


async def test_keys_reach_everything_in_the_popup(popup_folder: Path) -> None:
    async with running(popup_folder) as extension, extension.popup() as popup:
        await popup.wait_for_selector("#first-run dd")
        assert await popup.evaluate(FOCUSED) == "prompt"
        assert await popup.evaluate("document.documentElement.scrollWidth") == 400
        assert await popup.evaluate("document.documentElement.scrollHeight") == 600
        assert await popup.locator("#main").evaluate(OUTSIDE) == []
        reached = []
        await popup.evaluate("document.activeElement.blur(); document.body.focus()")
        for _ in range(9):
            await popup.keyboard.press("Tab")
            reached.append(await popup.evaluate("document.activeElement.id"))
        order = ["open-sidebar", "open-models", "quick-new", "open-tab"]
        assert [each for each in reached if each in order] == order


async def test_a_low_popup_shows_what_it_asks(popup_folder: Path, web: SiteServer) -> None:
    options: dict[str, Any] = {"screen": {"width": 1280, "height": 690}}
    low = running(popup_folder, viewport={"width": 400, "height": 480}, **options)
    async with low as extension:
        page = await open_web(extension, f"{web.url}/article.html")
        async with extension.popup(page) as popup:
            await expect(popup.locator("#page-chip")).to_have_text("This page: Snails")
            assert await popup.evaluate("document.documentElement.scrollHeight") == 480
            await expect(popup.locator("#first-run .primary")).to_be_in_viewport(ratio=1)
            await popup.locator("#first-run .primary").click(trial=True)
            await expect(popup.locator("#to-latest")).to_be_hidden()


async def test_a_german_browser_has_a_german_popup(popup_folder: Path) -> None:
    german = running(popup_folder, language="de", flags=["--lang=de"])
    async with german as extension, extension.popup() as popup:
        title = popup.locator("#first-run .welcome-title")
        await expect(title).to_have_text("Vor der ersten Frage")
        await expect(popup.locator("html")).to_have_attribute("lang", "de")
        await expect(popup.locator("#prompt")).to_have_attribute("placeholder", "Frage etwas")
        await load(popup)
        await ask(popup, "hallo")
        await expect(popup.locator(".answer .stats")).to_contain_text("41,7 Tokens/s")


def test_every_text_is_a_message_of_chrome() -> None:
    tables = [
        json.loads((DIST / "_locales" / language / "messages.json").read_text())
        for language in ("en", "de")
    ]
    english, german = tables
    assert set(english) == set(german)
    for key, entry in english.items():
        assert re.fullmatch(r"\w+", key)
        placeholders = re.findall(r"\$\d", entry["message"])
        assert sorted(placeholders) == sorted(re.findall(r"\$\d", german[key]["message"]))
    assert len(english["appDescription"]["message"]) <= 132
    assert len(german["appDescription"]["message"]) <= 132


@pytest.mark.parametrize("has_background", [False, True])
async def test_a_real_model_answers_in_the_popup(
    tmp_path: Path, web: SiteServer, has_background: bool
) -> None:
    model = await compare.model_path("smollm2-135m")
    folder = await asyncio.to_thread(
        partial(write_real_package, tmp_path, model, has_background=has_background)
    )
    async with running(folder) as extension:
        page = await open_web(extension, f"{web.url}/article.html")
        async with extension.popup(page) as popup:
            assert (await facts(popup))["Source"] == "Inside this extension: nothing is downloaded"
            await popup.click("#open-sidebar")
            await shorten_answers(popup)
            await popup.keyboard.press("Escape")
            await popup.click("#page-chip")
            await expect(popup.locator("#page-chip")).to_have_attribute("aria-pressed", "true")
            await begin(popup, "What does the snail eat?")
            await expect(popup.locator(".answer .markdown")).not_to_be_empty()
        async with extension.popup(page) as popup:  # the answer goes on
            await popup.wait_for_selector(".answer:last-child[aria-busy=false]")
            assert await popup.inner_text(".answer .markdown")
            await expect(popup.locator("#device-note")).to_contain_text("It takes")
            await expect(popup.locator(".page-card")).to_contain_text("The whole page")
