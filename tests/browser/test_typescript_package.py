"""The package for TypeScript: WebLLM's documented pair of files, bundled, and its types."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from browser.site_server import ROOT, SiteServer, serving

JS = ROOT / "js"
PAIR = ["tests/documentation/main.ts", "tests/documentation/worker.ts"]
ENGINE_OF_ITS_OWN = """
async (record) => {
  const { CreateMLCEngine, ModelNotFoundError, WorkerLostError } = await import("/client.js");
  const appConfig = { model_list: [record] };
  const failed = CreateMLCEngine("nothing", { appConfig, root: "/" });
  const error = await failed.catch((error) => error);
  const engine = await CreateMLCEngine(record.model_id, { appConfig, root: "/" });
  const messages = [{ role: "user", content: "Name three colours." }];
  const reply = await engine.chat.completions.create({ messages, temperature: 0, max_tokens: 12 });
  const device = await engine.getDeviceName();
  engine.terminate();
  const after = await engine.getMessage().catch((error) => error);
  return {
    text: reply.choices[0].message.content,
    device,
    isTyped: error instanceof ModelNotFoundError,
    isLost: after instanceof WorkerLostError,
  };
}
"""
RECORD = {"model": "/models/smollm2.gguf", "model_id": "smollm2"}


@pytest.fixture
def pair_site(site: SiteServer, tmp_path: Path) -> Iterator[SiteServer]:
    """The bundled pair beside the built files; a bundler that knows workers names them itself."""
    esbuild = [JS / "node_modules" / ".bin" / "esbuild", *PAIR, "--bundle", "--format=esm"]
    names = [f"--outdir={tmp_path}", "--entry-names=documentation_[name]"]
    subprocess.run([*esbuild, *names, "--log-level=error"], cwd=JS, check=True)
    main = tmp_path / "documentation_main.js"
    main.write_text(main.read_text().replace("./worker.ts", "./documentation_worker.js"))
    for path in (*(JS / "dist").iterdir(), ROOT / "tests/browser/pages/documentation.html"):
        (tmp_path / path.name).symlink_to(path)
    with serving({**site.folders, "": tmp_path}) as server:
        yield server


async def test_the_documented_pair_runs(page: Page, pair_site: SiteServer) -> None:
    await page.goto(f"{pair_site.url}/documentation.html")
    first = page.locator("#first")
    await expect(first).to_contain_text("colours")
    reports = [float(each) for each in (await reported(page)).split()]
    assert reports == sorted(reports)
    assert (len(reports) > 3, reports[-1]) == (True, 1)
    await expect(page.locator("#stats")).to_contain_text("decoding")
    assert await page.inner_text("#message") == await first.inner_text()
    assert json.loads(await page.inner_text("#usage"))["completion_tokens"] == 12
    await expect(page.locator("#reason")).to_have_text("length")
    generated = page.locator("#generate-label")  # the first answer, until the second begins
    await expect(generated).not_to_have_text(await first.inner_text())
    await page.click("#stop")
    await expect(page.locator("#reason")).to_have_text("abort")
    await expect(page.locator("#interrupted")).not_to_be_empty()


async def reported(page: Page) -> str:
    return await page.locator("#init-label").get_attribute("data-reports") or ""


async def test_an_engine_makes_a_worker_of_its_own(page: Page) -> None:
    found = await page.evaluate(ENGINE_OF_ITS_OWN, RECORD)
    assert "Red" in found.pop("text")
    assert found.pop("device").startswith("CPU")
    assert found == {"isTyped": True, "isLost": True}


@pytest.mark.parametrize(
    "types", ["js/dist/types/client/index.d.ts", "js/node_modules/@mlc-ai/web-llm/lib/index.d.ts"]
)
def test_the_pair_compiles_with_our_types_and_with_webllms(types: str, tmp_path: Path) -> None:
    options = {"paths": {"webllm": [str(ROOT / types)]}, "typeRoots": []}
    extends = str(JS / "tsconfig.json")
    files = [str(JS / path) for path in PAIR]
    config = {"extends": extends, "compilerOptions": options, "include": files}
    (tmp_path / "tsconfig.json").write_text(json.dumps(config))
    tsc = [JS / "node_modules" / ".bin" / "tsc", "--project", tmp_path]
    done = subprocess.run(tsc, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
