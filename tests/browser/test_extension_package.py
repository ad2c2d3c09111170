"""`webllm extension` writes packages whose model answers in Chromium."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.async_api import expect

from browser.chat_page import begin, shorten_answers
from browser.extensions import PAGES, running
from browser.site_server import serving
from browser.test_extension_popup import ASLEEP, ask_again, facts, load
from golden import compare
from remote_code import REMOTE_CODE
from webllm.cli.extension_manifest import Kind


def write_extension(out: Path, model: str, kind: Kind, *options: str) -> None:
    """Runs the command with a model's path or address; nothing of this disk's store is used."""
    catalogue = out.with_name("models.json")
    record = {"model": model, "model_id": "SmolLM2", "overrides": {"temperature": 0}}
    catalogue.write_text(json.dumps({"model_list": [record]}))
    command = [sys.executable, "-m", "webllm", "extension", str(out), "--kind", kind.value]
    home = {"WEBLLM_MODELS": str(catalogue), "WEBLLM_HOME": str(out.with_name("home"))}
    subprocess.run([*command, "--model", "SmolLM2", *options], check=True, env=os.environ | home)


@pytest.mark.parametrize("kind", Kind)
async def test_the_model_of_a_package_answers(kind: Kind, tmp_path: Path) -> None:
    out = tmp_path / "extension"
    write_extension(out, str(await compare.model_path("smollm2-135m")), kind, "--include-models")
    for file in out.rglob("*"):
        if file.suffix in (".js", ".mjs", ".html", ".css", ".json", ".svg"):
            found = REMOTE_CODE.search(file.read_text())
            assert not found, f"{file}: {found and found[0]}"
    requested = []
    async with running(out) as extension:
        extension.context.on("request", lambda request: requested.append(request.url))
        async with extension.popup() as popup:
            await begin(popup, "Name three colours.")
            await expect(popup.locator(".answer .markdown")).to_contain_text("Red")
            [command] = await popup.evaluate("chrome.commands.getAll()")
            assert command["shortcut"] == "Ctrl+Shift+Y", "Chrome has these keys itself"
        assert [url for url in requested if not url.startswith(extension.origin)] == []


async def test_a_fetched_model_answers_asleep_and_offline(tmp_path: Path) -> None:
    """It renders with a template of webllm's own, and is fetched once."""
    out, profile = tmp_path / "extension", tmp_path / "profile"
    model = await compare.model_path("smollm2-135m")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "smollm2.gguf").symlink_to(model)
    with serving({"": PAGES, "models": tmp_path / "models"}) as site:
        site.allows_all = True
        write_extension(out, f"{site.url}/models/smollm2.gguf", Kind.BACKGROUND)
        site.models.sent_bytes = 0
        async with running(out, profile=profile) as extension, extension.popup() as popup:
            assert (await facts(popup))["Source"] == site.url.removeprefix("http://")
            await load(popup)
            assert site.models.sent_bytes == model.stat().st_size
            await popup.click("#open-sidebar")
            await shorten_answers(popup)
            await popup.keyboard.press("Escape")
            await ask_again(popup, "Name three colours.")
            text = await popup.inner_text(".answer .markdown")
            assert "Red" in text
            await extension.sleep()
            await popup.wait_for_selector(ASLEEP)
            await popup.click("#quick-new")
            await ask_again(popup, "Name three colours.")
            assert await popup.inner_text(".answer .markdown") == text
        assert site.models.sent_bytes == model.stat().st_size
    async with running(out, profile=profile) as extension, extension.popup() as popup:
        await popup.wait_for_selector(ASLEEP)
        await popup.click("#quick-new")
        await ask_again(popup, "Name three colours.")
        assert await popup.inner_text(".answer .markdown") == text
    [record] = json.loads((out / "models.json").read_text())["model_list"]
    assert record["overrides"]["builtin_template"] == "smollm2"
