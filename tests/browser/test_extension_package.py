"""`webllm extension` writes packages whose model answers in Chromium."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.async_api import expect

from browser.chat_page import begin
from browser.extensions import running
from golden import compare
from remote_code import REMOTE_CODE
from webllm.cli.extension_manifest import Kind


@pytest.mark.parametrize("kind", Kind)
async def test_the_model_of_a_package_answers(kind: Kind, tmp_path: Path) -> None:
    out, catalogue = tmp_path / "extension", tmp_path / "models.json"
    model = str(await compare.model_path("smollm2-135m"))
    record = {"model": model, "model_id": "SmolLM2", "overrides": {"temperature": 0}}
    catalogue.write_text(json.dumps({"model_list": [record]}))
    command = [sys.executable, "-m", "webllm", "extension", str(out), "--kind", kind.value]
    environment = os.environ | {"WEBLLM_MODELS": str(catalogue)}
    options = ["--include-models", "--model", "SmolLM2"]
    subprocess.run([*command, *options], check=True, env=environment)
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
