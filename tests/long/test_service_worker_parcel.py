"""The documentation's Service Worker, built with Parcel as WebLLM's own example is."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from playwright.async_api import expect

from browser.service_workers import WorkerVersions, quiet_context
from browser.site_server import DIST, ROOT
from browser.test_example_service_worker import ASK, documentation, serving_built
from golden import compare

# What WebLLM's example has; the last three stand for Node's modules, which Parcel looks for.
PACKAGES = ("parcel@2", "typescript@4", "tslib@2", "buffer@6", "process@0.11", "url@0.11")
PAGE = """<!doctype html>
<meta charset="utf-8" />
<title>Parcel</title>
<link rel="icon" href="data:," />
<script type="module" src="./main.ts"></script>
"""


@pytest.fixture
async def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "smollm2.gguf").symlink_to(await compare.model_path("smollm2-135m"))
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "src").mkdir(parents=True)
    (folder / "package.json").write_text('{"private": true}')
    install = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", *PACKAGES]
    subprocess.run(install, cwd=folder, check=True)
    package = folder / "node_modules" / "webllm"
    package.mkdir()
    for name in ("package.json", "index.js", "service_worker.js"):
        shutil.copy(ROOT / "js" / name, package)
    (package / "dist").mkdir()
    for script in DIST.glob("*.js"):
        shutil.copy(script, package / "dist")
    (folder / "src" / "index.html").write_text(PAGE)
    return folder


@pytest.mark.parametrize("host", ["tab", "service-worker"])
async def test_parcel_builds_the_documentations_example(
    project: Path, models: Path, host: str
) -> None:
    documentation(project / "src", host)
    parcel = [str(project / "node_modules" / ".bin" / "parcel"), "build", "src/index.html"]
    subprocess.run([*parcel, "--dist-dir=dist", "--no-autoinstall"], cwd=project, check=True)
    async with quiet_context() as context:
        page = await context.new_page()
        with serving_built(project / "dist", models) as server:
            await page.goto(f"{server.url}/index.html")
            await expect(page).to_have_title("ready")
            assert await page.evaluate("engine.host") == host
            text = await page.evaluate(ASK)
            assert "Red" in text
            await (await WorkerVersions.of(page)).stop()
            assert await page.evaluate(ASK) == text
