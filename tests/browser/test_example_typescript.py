"""The TypeScript example passes type checks and answers when bundled."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from browser.site_server import ROOT, SiteServer, serving

JS = ROOT / "js"
TOOLS = JS / "node_modules" / ".bin"
EXAMPLE = ROOT / "examples" / "browser" / "typescript"
SOURCES = [str(EXAMPLE / "main.ts"), str(EXAMPLE / "worker.ts")]
CLIENT = f"--alias:webllm={JS / 'dist' / 'client.js'}"


@pytest.fixture
def example_site(site: SiteServer, tmp_path: Path) -> Iterator[SiteServer]:
    """Serves the built site with the bundled example."""
    bundle: list[str | Path] = [TOOLS / "esbuild", *SOURCES, "--bundle", "--format=esm", CLIENT]
    entries = ["--entry-names=example_[name]", f"--outdir={tmp_path}", "--log-level=error"]
    subprocess.run([*bundle, *entries], cwd=JS, check=True)
    main = tmp_path / "example_main.js"
    main.write_text(main.read_text().replace("./worker.js", "./example_worker.js"))
    page = (EXAMPLE / "index.html").read_text().replace("main.js", "example_main.js")
    (tmp_path / "example.html").write_text(page)
    for path in (JS / "dist").iterdir():
        (tmp_path / path.name).symlink_to(path)
    with serving({**site.folders, "": tmp_path}) as server:
        yield server


async def test_the_typescript_example_answers(page: Page, example_site: SiteServer) -> None:
    await page.goto(f"{example_site.url}/example.html")
    await expect(page.locator("#text")).to_contain_text("Red")
