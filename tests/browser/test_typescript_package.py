"""The package for TypeScript: WebLLM's documented pair of files, bundled, and its types."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    """Serves the bundled pair beside the built files; bundlers that support workers name them."""
    esbuild = [str(JS / "node_modules" / ".bin" / "esbuild"), *PAIR, "--bundle", "--format=esm"]
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


CONFIGURED = """
async (configs) => {
  const { WebWorkerMLCEngine } = await import("/client.js");
  const engine = new WebWorkerMLCEngine(new Worker("/worker.js", { type: "module" }));
  const errors = [];
  for (const config of configs) {
    engine.setAppConfig(config);
    const id = config.models ? "Llama-3.1-8B-Instruct" : "Llama-9";
    errors.push(await engine.reload(id).catch(({ name, message }) => `${name}: ${message}`));
  }
  engine.terminate();
  return errors;
}
"""
DOCUMENTED = [{"model_id": "Llama-3.1-8B", "model_path": "/models/llama3"}]


async def test_configurations_reach_the_worker_or_their_errors_the_caller(page: Page) -> None:
    """The last one has the built-in catalogue, and an id that is not in it."""
    found = await page.evaluate(
        CONFIGURED,
        [
            {"useIndexedDB": True, "models": DOCUMENTED},
            {"cacheBackend": "indexeddb", "models": DOCUMENTED},
            {"cacheBackend": "bogus"},
            {"cacheBackend": "cross-origin", "models": DOCUMENTED},
            {"cacheBackend": "opfs", "opfsAccessMode": "sync", "models": DOCUMENTED},
            {"useIndexedDbCache": True, "models": DOCUMENTED},
            {"useIndexedDBCache": True},
        ],
    )
    unknown = "ModelNotFoundError: no model called 'Llama-3.1-8B-Instruct'; "
    for error in found[:2]:
        assert error.startswith(f"{unknown}did you mean Llama-3.1-8B?")
    assert "ConfigError: cacheBackend has to be one of" in found[2]
    assert "received 'bogus'" in found[2]
    assert found[3].startswith("ConfigError: cacheBackend 'cross-origin' needs")
    assert found[4].startswith("ConfigError: opfsAccessMode is 'sync'; leave it out")
    hint = "AppConfig: unknown field 'useIndexedDbCache'; did you mean useIndexedDBCache?"
    assert found[5] == f"ConfigError: {hint}"
    assert found[6].startswith("ModelNotFoundError: no model called 'Llama-9'; known are SmolLM2")


OURS = "js/dist/types/js/src/client/index.d.ts"
WEBLLMS = "js/node_modules/@mlc-ai/web-llm/lib/index.d.ts"


def compiled(types: str, files: list[Path], folder: Path, **options: Any) -> str:
    """Returns the errors of tsc --strict for files that import these types as "webllm"."""
    paths = {"paths": {"webllm": [str(ROOT / types)]}, "typeRoots": []}
    extends, include = str(JS / "tsconfig.json"), [str(file) for file in files]
    config = {"extends": extends, "compilerOptions": {**paths, **options}, "include": include}
    (folder / "tsconfig.json").write_text(json.dumps(config))
    tsc: list[str | Path] = [JS / "node_modules" / ".bin" / "tsc", "--project", folder]
    return subprocess.run(tsc, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("types", [OURS, WEBLLMS])
def test_the_pair_compiles_with_our_types_and_with_webllms(types: str, tmp_path: Path) -> None:
    assert compiled(types, [JS / path for path in PAIR], tmp_path) == ""


@pytest.mark.parametrize("is_exact", [True, False])
def test_the_forms_of_webllms_examples_compile(is_exact: bool, tmp_path: Path) -> None:
    exact = {"exactOptionalPropertyTypes": is_exact, "noUncheckedIndexedAccess": is_exact}
    assert compiled(OURS, [JS / "tests/forms.ts"], tmp_path, **exact) == ""


def test_webllms_exports_are_here(tmp_path: Path) -> None:
    folder = (ROOT / WEBLLMS).parent
    index, protocols = folder / "index.d.ts", folder / "openai_api_protocols" / "index.d.ts"
    lists = re.findall(r"export \{([^}]*)\}", index.read_text() + protocols.read_text())
    exports = [each.split() for part in lists for each in part.split(",") if each.strip()]
    names = {words[-1] for words in exports}
    assert len(names) == 98
    file = tmp_path / "names.ts"
    file.write_text(f"export type {{ {', '.join(sorted(names))} }} from 'webllm';\n")
    assert compiled(OURS, [file], tmp_path) == ""
