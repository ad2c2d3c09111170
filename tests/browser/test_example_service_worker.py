"""The Service Worker example, and the documentation's own sw.ts and main.ts, with Vite."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from browser.service_workers import WorkerVersions, quiet_context
from browser.site_server import DIST, ROOT, SiteServer, serving
from browser.test_example_vite import VITE, vite_serving

JS = ROOT / "js"
EXAMPLE = ROOT / "examples" / "browser" / "service_worker"
# As WebLLM's documentation has it; the handler is made too late, as it said for years.
SW = """
// sw.ts
import { ServiceWorkerMLCEngineHandler } from "webllm/service_worker.js";

let handler: ServiceWorkerMLCEngineHandler;

self.addEventListener("activate", function (event) {
  handler = new ServiceWorkerMLCEngineHandler();
  console.log("Service Worker is ready");
});
"""
MAIN = """
// main.ts
import {
  MLCEngineInterface,
  CreateServiceWorkerMLCEngine,
} from "webllm";

if ("serviceWorker" in navigator) {
  navigator.serviceWorker.register(
    new URL("sw.ts", import.meta.url), // worker script
    { type: "module" },
  );
}

const engine: MLCEngineInterface = await CreateServiceWorkerMLCEngine(
  selectedModel,
  { initProgressCallback }, // engineConfig
);
"""
BEFORE = """
const selectedModel = "smollm2";
const initProgressCallback = (report: { text: string }) => (document.title = report.text);
"""
AFTER = """
Object.assign(window, { engine });
document.title = "ready";
"""
ASK = """
async () => {
  const messages = [{ role: "user", content: "Name three colours." }];
  const request = { messages, temperature: 0, max_tokens: 8 };
  return (await engine.chat.completions.create(request)).choices[0].message.content;
}
"""


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with quiet_context() as context:
        yield await context.new_page()


@pytest.fixture
def project(site: SiteServer, tmp_path: Path) -> Path:
    """Follows the steps that the example's index.html describes."""
    folder = tmp_path / "project"
    shutil.copytree(EXAMPLE, folder)
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    (folder / "node_modules").mkdir()
    (folder / "node_modules" / "webllm").symlink_to(JS)
    return folder


def documentation(folder: Path, host: str = "service-worker") -> None:
    """Writes sw.ts and main.ts; only "service-worker" has to be asked for on a CPU."""
    main = MAIN if host == "tab" else MAIN.replace("{ init", f'{{ host: "{host}", init')
    (folder / "sw.ts").write_text(SW)
    (folder / "main.ts").write_text(main.replace("\n\nif (", f"\n{BEFORE}\nif (") + AFTER)


@contextmanager
def serving_built(folder: Path, models: Path) -> Iterator[SiteServer]:
    """Serves a built project, with webllm's files beside its scripts."""
    for file in DIST.iterdir():
        if file.name != "models.json" and not (folder / file.name).exists():
            (folder / file.name).symlink_to(file)
    record = {"model_id": "smollm2", "model": "/models/smollm2.gguf"}
    (folder / "models.json").write_text(json.dumps({"model_list": [record]}))
    with serving({"": folder, "models": models}) as server:
        yield server


def vite_build(project: Path) -> Path:
    config = project / "vite.config.js"
    config.write_text(config.read_text().replace("build: {", "build: { copyPublicDir: false,"))
    subprocess.run([*VITE, "build", "--logLevel=warn"], cwd=project, check=True)
    return project / "dist"


async def test_vite_serves_the_example(site: SiteServer, project: Path, page: Page) -> None:
    (project / "public").mkdir()
    (project / "public" / "webllm").symlink_to(DIST)
    (project / "public" / "models").symlink_to(site.folders["models"])
    async with vite_serving(project) as url:
        await page.goto(url)
        await expect(page.locator("#text")).to_contain_text("Red")
        await page.goto("about:blank")


async def test_the_documentations_example(site: SiteServer, project: Path, page: Page) -> None:
    """After a stop, the browser starts the worker without activating it."""
    documentation(project)
    with serving_built(vite_build(project), site.folders["models"]) as server:
        await page.goto(f"{server.url}/index.html")
        await expect(page).to_have_title("ready")
        assert await page.evaluate("engine.host") == "service-worker"
        text = await page.evaluate(ASK)
        assert "Red" in text
        await (await WorkerVersions.of(page)).stop()
        assert await page.evaluate(ASK) == text
        await page.reload()
        await expect(page).to_have_title("ready")
        assert await page.evaluate(ASK) == text
