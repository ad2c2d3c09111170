"""The unchanged examples of Chrome extensions, set up as their README.md says."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from playwright.async_api import expect

from browser.chat_page import until
from browser.extensions import running
from browser.site_server import DIST, ROOT, SiteServer, serving
from golden import compare

EXAMPLES = ("chrome-extension", "chrome-extension-webgpu-service-worker")


SHARED = ("popup.html", "popup.css", "popup.js", "models.js")
MODELS = {"smollm2.gguf": "smollm2-135m", "gemma3.gguf": "gemma3-270m"}
PAGE = "<!doctype html><title>Whales</title><main>Blue whales eat krill.</main>"
KEPT = "JSON.parse(localStorage.getItem('chat'))"
ANSWERED = "!document.querySelector('#ask').disabled && document.querySelector('#stop').hidden"


def set_up(example: str, folder: Path, models: Mapping[str, Path]) -> None:
    shutil.copytree(ROOT / "examples" / example, folder)
    shutil.copytree(DIST, folder / "webllm", ignore=shutil.ignore_patterns("wheels"))
    (folder / "models").mkdir()
    for name, file in models.items():
        shutil.copy(file, folder / "models" / name)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SiteServer]:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "whales.html").write_text(PAGE)
    with serving({"": folder}) as server:
        yield server


@pytest.mark.parametrize("example", EXAMPLES)
async def test_an_example_answers_and_goes_on(
    example: str, tmp_path: Path, site: SiteServer
) -> None:
    models = {name: await compare.model_path(model) for name, model in MODELS.items()}
    folder = tmp_path / "extension"
    await asyncio.to_thread(set_up, example, folder, models)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["host_permissions"] = ["http://127.0.0.1/*"]  # no button is clicked here
    (folder / "manifest.json").write_text(json.dumps(manifest))
    async with running(folder) as extension:
        async with extension.popup() as popup:
            await expect(popup.locator("#ask")).to_be_enabled()
            await popup.fill("#question", "Tell a long story about a fox.")
            await popup.press("#question", "Enter")
            await expect(popup.locator(".assistant")).not_to_be_empty()
            first = await popup.locator(".assistant").inner_text()
        async with extension.popup() as popup:
            await expect(popup.locator(".user")).to_have_text("Tell a long story about a fox.")
            length = "document.querySelector('.assistant').textContent.length"
            await until(popup, f"{length} > {len(first)}")
            await popup.click("#stop")
            await until(popup, ANSWERED)
            assert (await popup.locator(".assistant").inner_text()).startswith(first.rstrip())
            page = await extension.context.new_page()
            await page.goto(f"{site.url}/whales.html")
            await popup.bring_to_front()
            tab = {"id": await extension.tab_id(page), "title": "Whales"}
            await popup.evaluate("(tab) => (chrome.tabs.query = async () => [tab])", tab)
            await popup.select_option("#model", "Gemma 3 270M")
            await expect(popup.locator("#ask")).to_be_enabled()
            await popup.check("#page")
            await popup.fill("#question", "What do blue whales eat?")
            await popup.press("#question", "Enter")
            await expect(popup.locator(".assistant").nth(1)).not_to_be_empty()
            await popup.click("#stop")
            await until(popup, ANSWERED)
            kept = await popup.evaluate(KEPT)
            assert kept["model"] == "Gemma 3 270M"
            assert [each["role"] for each in kept["messages"]] == ["user", "assistant"] * 2
            assert "Blue whales eat krill." in kept["messages"][2]["page"]
            assert kept["messages"][3]["content"]
            await popup.click("#clear")
            await expect(popup.locator("#log")).to_be_empty()


def test_the_examples_differ_in_their_engines() -> None:
    for name in SHARED:
        one, other = (ROOT / "examples" / each / name for each in EXAMPLES)
        assert one.read_bytes() == other.read_bytes(), name


@pytest.mark.parametrize("example", EXAMPLES)
async def test_an_example_without_its_model_says_so(example: str, tmp_path: Path) -> None:
    folder = tmp_path / "extension"
    await asyncio.to_thread(set_up, example, folder, {})
    async with running(folder) as extension:
        popup = await extension.context.new_page()
        await popup.goto(f"{extension.origin}/popup.html")
        wanted = "smollm2.gguf failed 3 times in a row; last error: the extension has no such file"
        await expect(popup.locator("#status")).to_contain_text(wanted)
        await expect(popup.locator("#ask")).to_be_disabled()


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_s_manifest_is_as_the_documentation_says(example: str) -> None:
    """All hosts of models but the extension itself are left out; so is a popup's background."""
    manifest = json.loads((ROOT / "examples" / example / "manifest.json").read_text())
    page = (ROOT / "docs" / "browser.md").read_text()
    (text,) = re.findall(r"```json\n(\{\n  \"minimum_chrome_version.*?)```", page, re.DOTALL)
    said = json.loads(text)
    policy = said["content_security_policy"]["extension_pages"]
    said["content_security_policy"]["extension_pages"] = re.sub(r" https://\S+", "", policy)
    assert "offscreen" in said.pop("permissions")
    if example == "chrome-extension":
        del said["background"]
    else:
        assert "offscreen" in manifest["permissions"]
    assert {key: manifest.get(key) for key in said} == said
    assert all(
        (DIST / icon.removeprefix("webllm/")).exists() for icon in manifest["icons"].values()
    )
