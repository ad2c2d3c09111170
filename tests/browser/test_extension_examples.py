"""The unchanged examples of Chrome extensions, set up as their README.md says."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from playwright.async_api import expect

from browser.extensions import running
from browser.site_server import DIST, ROOT
from golden import compare

EXAMPLES = ("chrome-extension", "chrome-extension-webgpu-service-worker")


def set_up(example: str, folder: Path, model: Path) -> None:
    shutil.copytree(ROOT / "examples" / example, folder)
    shutil.copytree(DIST, folder / "webllm", ignore=shutil.ignore_patterns("wheels"))
    (folder / "models").mkdir()
    shutil.copy(model, folder / "models" / "model.gguf")


@pytest.mark.parametrize("example", EXAMPLES)
async def test_an_example_answers(example: str, tmp_path: Path) -> None:
    folder = tmp_path / "extension"
    await asyncio.to_thread(set_up, example, folder, await compare.model_path("smollm2-135m"))
    async with running(folder) as extension, extension.popup() as popup:
        await popup.fill("#question", "Name three colours.")
        await popup.click("#ask")
        await expect(popup.locator("#answer")).not_to_be_empty()
        await expect(popup.locator("#ask")).to_be_enabled()
