"""Models of several files in Chromium: MLC folders, sharded safetensors, split GGUF."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Page, Route

from browser.conftest import RunPython
from browser.site_server import SiteServer
from model_files.forms import write_form
from model_files.gguf_writer import split_gguf
from model_files.made_up import made_up

# Source in the page, and the GGUF file of the same values.
FORMS = {
    "mlc": ("/models/mlc/", "q4f16_1"),
    "safetensors": ("/models/safetensors/", "f16"),
    "mlx": ("/models/mlx/model.safetensors", "mlx4"),
    "split": ("/models/split/whole-00001-of-00003.gguf", "f16"),
}
MODEL = made_up("tiny-llama")
# GGUF files have tokens for the padding of the embedding table, which folders leave out.
UNUSED = {str(i): -100 for i in range(MODEL.vocabulary.num_active, MODEL.config["vocab_size"])}
ASK = """
from webllm import AppConfig, MLCEngineConfig, ModelRecord, create_mlc_engine

record = ModelRecord(model={source!r}, model_id="tiny")
config = MLCEngineConfig(
    app_config=AppConfig(model_list=[record], cache_backend={store!r}), device="cpu"
)
async with await create_mlc_engine("tiny", config) as engine:
    answer = await engine.completions.create(
        prompt="abc", max_tokens=12, temperature=0, ignore_eos=True, logit_bias={unused!r}
    )
answer.choices[0].text
"""
# An id of WebLLM's list; its files are answered by this test.
CONFIG = "mlc-chat-config.json"
LISTED = "SmolLM2-360M-Instruct-q4f16_1-MLC"
NPM = """
async (id) => {
  const webllm = await import("/node_modules/@mlc-ai/web-llm/lib/index.js");
  const worker = new Worker("/worker.js", { type: "module" });
  const engine = await webllm.CreateWebWorkerMLCEngine(worker, id);
  const record = webllm.prebuiltAppConfig.model_list.find((each) => each.model_id === id);
  const reply = await engine.completions.create({ prompt: "abc", max_tokens: 12 });
  return [record.model, reply.usage.completion_tokens, reply.choices[0].text.length > 0];
}
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes a made-up model in several forms, and each form's values as one GGUF file."""
    folder = tmp_path_factory.mktemp("forms")
    for form in {form for _, form in FORMS.values()}:
        write_form(MODEL, folder / f"{form}.gguf", f"gguf-{form}")
    write_form(MODEL, folder / "mlc", "q4f16_1", shard_bytes=20_000)
    write_form(MODEL, folder / "safetensors", "f16", shard_bytes=100_000)
    write_form(MODEL, folder / "mlx", "mlx4")
    (folder / "split").mkdir()
    (folder / "whole.gguf").symlink_to(folder / "f16.gguf")
    split_gguf(folder / "whole.gguf", folder / "split", 8)
    return folder


@pytest.fixture
def served(site: SiteServer, folders: Path) -> Iterator[SiteServer]:
    before = site.folders["models"]
    site.folders["models"] = folders
    yield site
    site.folders["models"] = before


@pytest.mark.parametrize("form", FORMS)
async def test_they_answer_as_one_gguf_file_of_the_same_values(
    served: SiteServer, run_python: RunPython, form: str
) -> None:
    source, values = FORMS[form]

    async def ask(source: str, store: str) -> str:
        text: str = await run_python(ASK.format(source=source, store=store, unused=UNUSED))
        return text

    expected = await ask(f"/models/{values}.gguf", "none")
    for store in ("cache", "indexeddb", "opfs"):
        assert await ask(source, store) == expected
        served.requested.clear()
        assert await ask(source, store) == expected
        assert [path for path in served.requested if path.startswith("/models/")] == []


async def test_the_npm_clients_own_record(page: Page, folders: Path) -> None:
    """WebLLM's prebuilt record, as its package has it; the hub is answered here."""
    config = json.loads((folders / "mlc" / CONFIG).read_text())
    config["model_config"]["context_window_size"] = 4096  # as in the record's overrides
    asked = []

    async def answer(route: Route) -> None:
        _, _, name = route.request.url.rpartition("/resolve/main/")
        file, headers = folders / "mlc" / name, {"Access-Control-Allow-Origin": "*"}
        asked.append(name)
        if name == CONFIG:
            await route.fulfill(status=200, body=json.dumps(config), headers=headers)
        elif name and file.is_file():
            await route.fulfill(status=200, body=file.read_bytes(), headers=headers)
        else:
            await route.fulfill(status=404, headers=headers)

    await page.context.route("https://huggingface.co/**", answer)
    model, num_tokens, has_text = await page.evaluate(NPM, LISTED)
    assert model == f"https://huggingface.co/mlc-ai/{LISTED}"
    assert (num_tokens, has_text) == (12, True)
    assert {CONFIG, "tensor-cache.json", "params_shard_0.bin", "tokenizer.json"} <= set(asked)
