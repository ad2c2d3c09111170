"""The unchanged examples of Chrome extensions, set up as their README.md says."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from pathlib import Path

import pytest
from playwright.async_api import expect

from browser.extensions import running
from browser.site_server import DIST, ROOT
from golden import compare

EXAMPLES = ("chrome-extension", "chrome-extension-webgpu-service-worker")


def set_up(example: str, folder: Path, model: Path | None) -> None:
    shutil.copytree(ROOT / "examples" / example, folder)
    shutil.copytree(DIST, folder / "webllm", ignore=shutil.ignore_patterns("wheels"))
    if model is None:
        return
    (folder / "models").mkdir()
    shutil.copy(model, folder / "models" / "model.gguf")


@pytest.mark.parametrize("example", EXAMPLES)
async def test_an_example_answers(example: str, tmp_path: Path) -> None:
    folder = tmp_path / "extension"
    await asyncio.to_thread(set_up, example, folder, await compare.model_path("smollm2-135m"))
    async with running(folder) as extension, extension.popup() as popup:
        await expect(popup.locator("#ask")).to_be_enabled()
        await popup.fill("#question", "Name three colours.")
        await popup.press("#question", "Enter")
        await expect(popup.locator("#answer")).not_to_be_empty()
        await expect(popup.locator("#ask")).to_be_enabled()


@pytest.mark.parametrize("example", EXAMPLES)
async def test_an_example_without_its_model_says_so(example: str, tmp_path: Path) -> None:
    folder = tmp_path / "extension"
    await asyncio.to_thread(set_up, example, folder, None)
    async with running(folder) as extension:
        popup = await extension.context.new_page()
        await popup.goto(f"{extension.origin}/popup.html")
        wanted = (
            "/models/model.gguf failed 3 times in a row; last error: the extension has no such file"
        )
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
