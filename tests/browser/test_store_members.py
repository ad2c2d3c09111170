"""Models of several files from a site: in each store, resumed, with wrong shards refused."""

from __future__ import annotations

import json
import re
from hashlib import md5, sha256
from pathlib import Path

import gguf
import numpy as np
import pytest
from playwright.async_api import Page, Route

from browser.conftest import RunPython
from browser.site_server import SiteServer
from browser.store_cases import OPEN, STORES, answer

ROWS = 1280  # of the matrix in each part: 5 MiB, which are two parts in a store
NUM_PARTS = 3

# Opens the split model in a folder, and returns the first numbers of the parts' matrices.
READ = """
async def read_parts(source, store):
    with await open_model(source, store, lambda report: texts.append(report.text)) as checkpoint:
        first = []
        for name in ("matrix1", "matrix2", "matrix3"):
            [row] = await checkpoint.read(name, 0, 1)
            first.append(int(row.to_memoryview().cast("f")[0]))
        return str(first)

async def tries(source, store):
    try:
        return await read_parts(source, store)
    except WebLLMError as error:
        return f"{type(error).__name__}: {error}"
"""


def write_parts(folder: Path) -> list[str]:
    """Writes a model split into three files, each of a little over 5 MiB; returns their names."""
    folder.mkdir()
    names = [f"model-{i:05}-of-{NUM_PARTS:05}.gguf" for i in range(1, NUM_PARTS + 1)]
    for number, name in enumerate(names):
        writer = gguf.GGUFWriter(folder / name, "llama")
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", NUM_PARTS)
        writer.add_int32("split.tensors.count", NUM_PARTS)
        numbers = np.full((ROWS, 1024), number + 1, dtype=np.float32)
        writer.add_tensor(f"matrix{number + 1}", numbers)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return names


@pytest.fixture
def folder(site: SiteServer, request: pytest.FixtureRequest) -> Path:
    """A new folder of the site with a split model."""
    answer(site)
    folder = site.folders["models"] / f"split-{abs(hash(request.node.name)):x}"
    write_parts(folder)
    return folder


def source_of(folder: Path) -> str:
    return f"/models/{folder.name}/model-00002-of-00003.gguf"


HAS = """async ([model, cacheBackend]) => {
    const { hasModelInCache } = await import("/client.js");
    return hasModelInCache("m", { model_list: [{ model_id: "m", model }], cacheBackend });
}"""
DELETE = HAS.replace("hasModelInCache", "deleteModelAllInfoInCache")


@pytest.mark.parametrize("store", STORES)
async def test_a_model_of_several_files(
    site: SiteServer, page: Page, run_python: RunPython, folder: Path, store: str
) -> None:
    source = source_of(folder)
    await run_python(OPEN + READ)
    # The second file breaks off in its second part, and the server refuses the rest.
    # Three requests look for the files; the first one takes two.
    answer(site, cut_after_bytes=5 << 20, num_answers=6, pause_s=0.002)
    error = await run_python(f"await tries({source!r}, {store!r})")
    assert error.startswith("FetchError: the server answered 503")
    assert await page.evaluate(HAS, [source, store]) is False
    answer(site)
    assert await run_python(f"await read_parts({source!r}, {store!r})") == "[1, 2, 3]"
    assert f"bytes={4 << 20}-" in site.models.ranges
    assert sum(asked is None for asked in site.models.ranges) == 4  # three looked, one fetched
    size = f"{sum(each.stat().st_size for each in folder.iterdir()) / 1e6:.1f}"
    assert await run_python("texts[-1]") == f"Fetching model: {size} of {size} MB"
    for file in folder.iterdir():
        file.unlink()  # the next load reads the store
    await page.reload()
    await run_python(OPEN + READ)
    site.requested.clear()
    assert await run_python(f"await read_parts({source!r}, {store!r})") == "[1, 2, 3]"
    assert not [path for path in site.requested if path.startswith("/models/")]
    assert await page.evaluate(HAS, [source, store]) is True
    await page.evaluate(DELETE, [source, store])
    assert await page.evaluate(HAS, [source, store]) is False
    assert await run_python(f"await kept({store!r})") == 0


def write_mlc(folder: Path) -> None:
    """Writes an MLC folder of three shards of a few bytes."""
    folder.mkdir()
    shards = {f"params_shard_{i}.bin": bytes([i]) * (100 + i) for i in range(3)}
    records = [
        {"dataPath": name, "nbytes": len(data), "md5sum": md5(data).hexdigest(), "records": []}
        for name, data in shards.items()
    ]
    documents = {
        "mlc-chat-config.json": {"tokenizer_files": ["tokenizer.json"]},
        "tensor-cache.json": {"records": records},
        "tokenizer.json": {},
    }
    for name, data in shards.items():
        (folder / name).write_bytes(data)
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document))


async def test_a_wrong_shard_is_refused_and_named(
    site: SiteServer, page: Page, run_python: RunPython
) -> None:
    await run_python(OPEN + READ)
    for store in STORES:
        folder = site.folders["models"] / f"mlc-{store}"
        write_mlc(folder)
        shard = folder / "params_shard_1.bin"
        right, source = shard.read_bytes(), f"/models/{folder.name}"
        for wrong, said in ((bytes(len(right)), "its MD5 is"), (b"short", "expected 101")):
            shard.write_bytes(wrong)
            error = await run_python(f"await tries({source!r}, {store!r})")
            assert error.startswith("IntegrityError: ")
            assert f"/{folder.name}/params_shard_1.bin is not the expected file: " in error
            assert said in error
            assert await page.evaluate(HAS, [source, store]) is False
        shard.write_bytes(right)
        site.requested.clear()
        await run_python(f"await tries({source!r}, {store!r})")  # the shards have no tensors
        assert await page.evaluate(HAS, [source, store]) is True
        fetched = [path.rpartition("/")[2] for path in site.requested if path.endswith(".bin")]
        assert fetched == ["params_shard_1.bin", "params_shard_2.bin"]


async def test_what_is_no_model_says_so(site: SiteServer, run_python: RunPython) -> None:
    await run_python(OPEN + READ)
    error = await run_python("await tries('/models/owner/repo', 'none')")
    assert error.startswith("ModelNotFoundError: ")
    assert "has no model that we know; name a folder with mlc-chat-config.json" in error
    assert error.endswith("a repository of Hugging Face is hf:owner/repo")


async def test_several_picked_files_are_one_model(
    page: Page, run_python: RunPython, folder: Path
) -> None:
    await run_python(OPEN + READ)
    model = await page.evaluate(
        """async (folder) => {
            const { modelFromFile } = await import("/client.js");
            const files = [3, 1, 2].map(async (part) => {
                const name = `model-0000${part}-of-00003.gguf`;
                return new File([await (await fetch(`${folder}/${name}`)).blob()], name);
            });
            return modelFromFile(await Promise.all(files));
        }""",
        f"/models/{folder.name}",
    )
    assert model["model_id"] == "model"
    assert await run_python(f"await read_parts({model['model']!r}, 'cache')") == "[1, 2, 3]"
    assert await run_python("await kept('cache')") == 0


LOAD_OF_HUB = """
from webllm.artifacts.hub_access import HubAccess

async def load_of_hub(source, *hub):
    with await open_model(source, "none", None, HubAccess(*hub)) as checkpoint:
        return len(checkpoint.tensors)
"""


async def test_a_repository_of_the_hub_and_of_a_mirror_with_a_token(
    page: Page, run_python: RunPython, folder: Path
) -> None:
    names = sorted(file.name for file in folder.iterdir())
    described = [
        {
            "rfilename": f"sub/{name}",
            "size": (folder / name).stat().st_size,
            "lfs": {"sha256": sha256((folder / name).read_bytes()).hexdigest()},
        }
        for name in names
    ]
    asked: list[tuple[str, str | None]] = []

    async def answer_as_hub(route: Route) -> None:
        url = route.request.url
        asked.append((url, await route.request.header_value("authorization")))
        headers = {"Access-Control-Allow-Origin": "*"}
        file = folder / url.rpartition("/")[2]
        if re.search(
            r"(huggingface\.co|mirror\.example)/api/models/o/r/revision/main\?blobs=", url
        ):
            await route.fulfill(json={"sha": "c0ffee", "siblings": described}, headers=headers)
        elif re.search(r"/o/r/resolve/(c0ffee|main)/sub/", url) and file.is_file():
            await route.fulfill(path=file, headers=headers)
        else:
            await route.fulfill(status=404, headers=headers)

    for host in ("huggingface.co", "mirror.example", "static.example"):
        await page.context.route(f"https://{host}/**", answer_as_hub)
    await run_python(OPEN + LOAD_OF_HUB)
    source = "https://huggingface.co/o/r/tree/main/sub"
    assert await run_python(f"await load_of_hub({source!r})") == 3
    assert {(url.split("/")[2], token) for url, token in asked} == {("huggingface.co", None)}
    asked.clear()
    code = "await load_of_hub('hf:o/r:f32', 'https://mirror.example/', 'secret')"
    for described_file in described:
        described_file["rfilename"] = str(described_file["rfilename"]).replace("model", "model-F32")
    error = await run_python(f"""
        try:
            await {code.removeprefix("await ")}
        except WebLLMError as error:
            message = str(error)
        message
    """)
    assert "/o/r/resolve/c0ffee/sub/model-F32-00001-of-00003.gguf" in error
    assert "secret" not in error
    assert {(url.split("/")[2], token) for url, token in asked} == {
        ("mirror.example", "Bearer secret")
    }
    asked.clear()  # of a mirror that has the files alone
    code = f"await load_of_hub('hf:o/r/sub/{names[1]}', 'https://static.example')"
    assert await run_python(code) == 3


SPELLINGS = [
    *("/models/a", "/models/a/", "models/b/mlc-chat-config.json", "https://a.example"),
    *("https://a.example/x-00001-of-00002.gguf?x=1", "hf:o/r", "hf:o/r/", "hf:o/r@v1:Q4_K_M"),
    *("hf:o/r@a%2Fb%25/s p".replace(" ", "+"), "hf:o/r@refs/pr/1/sub/model.safetensors"),
    *("https://huggingface.co/mlc-ai/X-MLC", "https://huggingface.co/o/r/resolve/main/"),
    *("https://huggingface.co/o/r/tree/refs%2Fpr%2F1/a%20b", "https://huggingface.co/o/r/tree/v1/"),
    "https://huggingface.co/o/r/blob/main/x-00001-of-00002.gguf",
]


async def test_both_languages_know_a_model_by_the_same_address(
    page: Page, run_python: RunPython
) -> None:
    for source in SPELLINGS:
        await run_python(f"""
            from webllm.artifacts.browser.models import _address, _place
            from webllm.artifacts.browser.store import ModelStore
            from webllm.artifacts.manifest import Manifest
            from webllm.artifacts.source import has_several_files

            place = _place({source!r})
            assert has_several_files(place)
            manifest = Manifest(_address(place), place, "model.gguf", ())
            await (await ModelStore.open("cache")).set(_address(place)).put(manifest)
        """)
        assert (source, await page.evaluate(HAS, [source, "cache"])) == (source, True)
        await page.evaluate(DELETE, [source, "cache"])
        assert (source, await page.evaluate(HAS, [source, "cache"])) == (source, False)
