"""`webllm extension` writes packages whose model answers in Chromium."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from browser.chat_page import answers, ask
from browser.extensions import running
from remote_code import REMOTE_CODE
from webllm.cli.extension_manifest import Kind


@pytest.mark.parametrize("kind", Kind)
async def test_the_model_of_a_package_answers(kind: Kind, tmp_path: Path) -> None:
    out = tmp_path / "extension"
    command = [sys.executable, "-m", "webllm", "extension", str(out), "--kind", kind.value]
    subprocess.run([*command, "--include-models"], check=True)
    for file in out.rglob("*"):
        if file.suffix in (".js", ".mjs", ".html", ".css", ".json", ".svg"):
            found = REMOTE_CODE.search(file.read_text())
            assert not found, f"{file}: {found and found[0]}"
    requested = []
    async with running(out) as extension:
        extension.context.on("request", lambda request: requested.append(request.url))
        async with extension.popup() as popup:
            await ask(popup, "Name three colours.")
            assert (await answers(popup))[-1]
        assert [url for url in requested if not url.startswith(extension.origin)] == []
