"""The Vite example, on Vite's own server and built, and its messages if a step was forgotten."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from browser.chromium import new_context
from browser.site_server import DIST, ROOT, SiteServer, serving

JS = ROOT / "js"
VITE = [str(JS / "node_modules" / ".bin" / "vite")]
WITHOUT_ROOT = """
import { CreateMLCEngine, CreateWebWorkerMLCEngine } from "webllm";
const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
const tried = [CreateMLCEngine("m"), CreateWebWorkerMLCEngine(worker, "m")];
const errors = await Promise.all(tried.map((each) => each.catch(String)));
document.getElementById("text")!.textContent = errors.join("\\n");
"""


def without_colours(text: str) -> str:
    """Removes colours: Vite colours each letter of quoted code, also in a pipe."""
    return re.sub(r"\x1b\[[\d;]*m", "", text)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Follows the steps that the example's index.html describes."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "examples" / "browser" / "vite", folder)
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    (folder / "public").mkdir()
    (folder / "public" / "webllm").symlink_to("../node_modules/webllm/dist")
    (folder / "node_modules").mkdir()
    (folder / "node_modules" / "webllm").symlink_to(JS)
    return folder


@asynccontextmanager
async def vite_serving(folder: Path) -> AsyncIterator[str]:
    """Runs Vite's own server; yields its address."""
    process = await asyncio.create_subprocess_exec(
        *VITE, "--host=127.0.0.1", "--port=0", cwd=folder, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        said = ""
        while not (address := re.search(r"http://127\.0\.0\.1:\d+", said)):
            line = await process.stdout.readline()
            assert line, said
            said += without_colours(line.decode())
        yield address[0]
    finally:
        process.terminate()
        await process.wait()


async def test_vite_serves_the_example(site: SiteServer, project: Path, page: Page) -> None:
    (project / "public" / "models").symlink_to(site.folders["models"])
    async with vite_serving(project) as url:
        await page.goto(url)
        await expect(page.locator("#text")).to_contain_text("Red")
        await page.goto("about:blank")


async def test_vite_builds_the_example(site: SiteServer, project: Path, page: Page) -> None:
    build = [*VITE, "build", "--logLevel=warn"]
    config = "export default { build: { copyPublicDir: false, target: 'es2022' } };"
    (project / "vite.config.js").write_text(config)
    subprocess.run(build, cwd=project, check=True)
    folders = {"": project / "dist", "webllm": DIST, "models": site.folders["models"]}
    with serving(folders) as server:
        await page.goto(f"{server.url}/index.html")
        await expect(page.locator("#text")).to_contain_text("Red")


async def test_without_root_the_error_says_so(project: Path) -> None:
    (project / "main.ts").write_text(WITHOUT_ROOT)
    worker = project / "worker.ts"
    worker.write_text(worker.read_text().replace('{ root: "/webllm/" }', ""))
    async with vite_serving(project) as url, new_context() as context:
        page = await context.new_page()
        await page.goto(url)
        await expect(page.locator("#text")).to_contain_text("WorkerLostError")
        own, pair = (await page.inner_text("#text")).split("\n")
    for error, way_out in (
        (own, 'say where by root: CreateMLCEngine(modelId, { root: "/webllm/" })'),
        (pair, 'say where by root: new WebWorkerMLCEngineHandler({ root: "/webllm/" })'),
    ):
        assert "is webllm's folder js/dist served as http://127.0.0.1" in error
        assert way_out in error
    assert "/host.js" in pair


def test_without_a_build_bundlers_say_what_to_run(project: Path) -> None:
    package = project / "node_modules" / "webllm"
    package.unlink()
    package.mkdir()
    for name in ("package.json", "index.js"):  # what the repository has before `make site`
        shutil.copy(JS / name, package)
    (project / "public" / "webllm").unlink()
    esbuild = [str(JS / "node_modules" / ".bin" / "esbuild"), "main.ts", "--bundle"]
    for command in (esbuild, [*VITE, "build"]):
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert 'run "make site"' in without_colours(done.stdout + done.stderr)
