"""The stores from TypeScript, and files that the user picked, which are never copied."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from browser.chat_page import chat_page, serving_fake
from browser.conftest import RunPython
from browser.site_server import SiteServer
from browser.store_cases import OPEN, STORES, WEIGHTS, answer, source_of, write_model


@pytest.fixture
def small_file(site: SiteServer) -> Iterator[Path]:
    """Writes a new model file into the site's folder /models/."""
    answer(site)
    yield write_model(site.folders["models"] / "small.gguf")
    answer(site)


@pytest.mark.parametrize("has_hash", [True, False])
async def test_has_and_delete_in_typescript(
    site: SiteServer, page: Page, run_python: RunPython, small_file: Path, has_hash: bool
) -> None:
    source = source_of(small_file) if has_hash else "/models/small.gguf"
    await run_python(OPEN)
    ask = """async ([source, cacheBackend]) => {
        const client = await import("/client.js");
        const appConfig = { model_list: [{ model_id: "small", model: source }], cacheBackend };
        const has = () => client.hasModelInCache("small", appConfig);
        const before = await has();
        await run(`await load("${source}", "${cacheBackend}")`);
        const after = [await has()];
        await client.deleteChatConfigInCache("small", appConfig);
        await client.deleteModelWasmInCache("small", appConfig);
        after.push(await has());
        await client.deleteModelInCache("small", appConfig);
        after.push(await has(), await run(`await kept("${cacheBackend}")`));
        await client.deleteModelAllInfoInCache("small", appConfig);
        return [before, ...after];
    }"""
    for store in STORES:
        assert await page.evaluate(ask, [source, store]) == [False, True, True, False, 0]


# Damages the stored model "small" in one way, and returns the client's result.
BREAK = """async ([key, kind, cacheBackend]) => {
    const client = await import("/client.js");
    const store = await caches.open("webllm");
    const path = (await store.keys()).find(({ url }) => url.includes(key)).url;
    const bytes = await (await store.match(path)).arrayBuffer();
    const broken = {
        "no JSON": () => "{",
        "another type": () => "[1]",
        "no fields": () => "{}",
        "parts of no bytes": () => JSON.stringify(
            { ...JSON.parse(new TextDecoder().decode(bytes)), part_bytes: 0 }),
        "a size that is none": () => JSON.stringify(
            { ...JSON.parse(new TextDecoder().decode(bytes)), size: "large" }),
        "a size without end": () => JSON.stringify(
            { ...JSON.parse(new TextDecoder().decode(bytes)), size: 1e15 }),
        "another file": () => JSON.stringify(
            { ...JSON.parse(new TextDecoder().decode(bytes)), url: "https://b.example" }),
        "deleted": undefined,
    };
    if (broken[kind]) await store.put(path, new Response(broken[kind]()));
    else await store.delete(path);
    const model = "/models/small.gguf";
    const appConfig = { model_list: [{ model_id: "small", model }], cacheBackend };
    return client.hasModelInCache("small", appConfig);
}"""
NUM_READ = """async () => {
    const { hasModelInCache } = await import("/client.js");
    const { blob } = Response.prototype;
    let numRead = 0;
    Response.prototype.blob = function () {
        numRead += 1;
        return blob.call(this);
    };
    try {
        const models = [{ model_id: "small", model: "/models/small.gguf" }];
        return [await hasModelInCache("small", { models }), numRead];
    } finally {
        Response.prototype.blob = blob;
    }
}"""
DAMAGES = [
    *[("note", kind) for kind in ("no JSON", "another type", "no fields", "parts of no bytes")],
    *[("note", kind) for kind in ("a size that is none", "a size without end", "another file")],
    *[("note", "deleted"), (".00002.", "deleted")],
]


async def test_what_is_damaged_is_kept_for_neither(
    site: SiteServer, page: Page, run_python: RunPython, small_file: Path
) -> None:
    await run_python(OPEN)
    await run_python("from webllm.artifacts.browser.models import has_model")
    assert await run_python("await load('/models/small.gguf', 'cache')") == WEIGHTS
    assert await page.evaluate(NUM_READ) == [True, 1]  # the note: Firefox copies data that is read
    for end, kind in DAMAGES:
        assert await run_python("await load('/models/small.gguf', 'cache')") == WEIGHTS
        found = await page.evaluate(BREAK, [end, kind, "cache"])
        assert (kind, found) == (kind, False)
        assert await run_python("await has_model('/models/small.gguf', 'cache')") is False


FAILURES = """async () => {
    const client = await import("/client.js");
    const appConfig = { model_list: [{ model_id: "m", model: "m.gguf" }] };
    const errors = [];
    for (const name of ["SecurityError", "InvalidStateError"]) {
        const fail = async () => { throw new DOMException("broken", name); };
        for (const method of ["has", "match", "open"]) CacheStorage.prototype[method] = fail;
        for (const ask of [client.hasModelInCache, client.deleteModelAllInfoInCache]) {
            errors.push(await ask("m", appConfig).catch((error) => `${error}`));
        }
    }
    return errors;
}"""


async def test_what_the_browsers_store_throws_is_an_error_of_ours(page: Page) -> None:
    errors = await page.evaluate(FAILURES)
    for error in errors[:2]:
        assert error.startswith("StorageFullError: the browser lets this site store nothing; ")
    for error in errors[2:]:
        assert error.startswith("ArtifactError: the browser's store failed (InvalidStateError); ")
    assert all('cacheBackend "none"' in error for error in errors)


async def test_every_spelling_of_a_store(page: Page, run_python: RunPython) -> None:
    found = await page.evaluate("""async () => {
        const { hasModelInCache } = await import("/client.js");
        const models = [{ model_id: "m", model_path: "m.gguf" }];
        const spelled = [
            { useIndexedDB: true, models },
            { useIndexedDBCache: true, model_list: models },
            { cacheBackend: "cross-origin", models },
            { cacheBackend: "bogus", models },
            { cacheBackend: "opfs", useIndexedDB: true, models },
        ];
        const found = [];
        for (const config of spelled) {
            found.push(await hasModelInCache("m", config).catch((error) => `${error}`));
        }
        found.push((await indexedDB.databases()).length);
        return found;
    }""")
    assert found[:2] == [False, False]
    for message in found[2:5]:
        assert message.startswith("ConfigError: ")
    assert '"cross-origin"; give one of "cache", "indexeddb", "opfs", "none"' in found[2]
    assert found[5] == 0  # looking creates no store


WITHOUT_TLS = """() => {
    for (const name of ["caches", "isSecureContext", "FileSystemFileHandle"])
        delete globalThis[name];
    Object.defineProperty(Navigator.prototype, "storage", { value: undefined });
    Object.defineProperty(Navigator.prototype, "locks", { value: undefined });
    Object.defineProperty(crypto, "subtle", { value: undefined });
    Object.defineProperty(crypto, "randomUUID", { value: undefined });
}"""


async def test_without_tls_pages_have_indexeddb_and_pick_files(page: Page) -> None:
    await page.evaluate(WITHOUT_TLS)
    found = await page.evaluate("""async () => {
        const client = await import("/client.js");
        const models = [{ model_id: "m", model: "m.gguf" }];
        const sha256 = "ab".repeat(32);
        const known = [{ model_id: "m", model: "m.gguf", sha256 }];
        const ask = (config) => client.hasModelInCache("m", config).catch((error) => error.name);
        const found = [
            await ask({ models }),
            await ask({ models, cacheBackend: "cache" }),
            await ask({ models, cacheBackend: "opfs" }),
            await ask({ models: known, cacheBackend: "indexeddb" }),
            await ask({ models, cacheBackend: "indexeddb" }),
            await client.deleteModelAllInfoInCache("m", { models }),
        ];
        const picked = await client.modelFromFile(new File(["GGUF"], "mine.gguf"));
        return [...found, /^picked:[0-9a-f]{32}.mine.gguf$/.test(picked.model)];
    }""")
    assert found == [False, "ConfigError", "ConfigError", False, False, None, True]


async def test_a_page_without_tls_keeps_models(
    site: SiteServer, page: Page, run_python: RunPython, small_file: Path
) -> None:
    """As of an address of the local network: by default models are in IndexedDB."""
    await page.goto(f"http://pi.test:{site.server_port}/tests/index.html")
    assert await page.evaluate("[isSecureContext, 'caches' in window]") == [False, False]
    ask = """async (delete_) => {
        const { deleteModelInCache, hasModelInCache } = await import("/client.js");
        const appConfig = { model_list: [{ model_id: "small", model: "/models/small.gguf" }] };
        if (delete_) await deleteModelInCache("small", appConfig);
        return hasModelInCache("small", appConfig);
    }"""
    for _ in range(2):
        await run_python(OPEN)
        assert await run_python("await load('/models/small.gguf', None)") == WEIGHTS
        assert await page.evaluate(ask, False)
        await page.reload()
    assert site.models.ranges == [None]
    assert not await page.evaluate(ask, True)
    await run_python(OPEN)
    assert await run_python("await kept('indexeddb')") == 0


KEEP_IN_OPFS = """async (name) => {
    const root = await navigator.storage.getDirectory();
    const folder = await root.getDirectoryHandle("webllm", { create: true });
    const put = async (key, text) => {
        const writable = await (await folder.getFileHandle(key, { create: true })).createWritable();
        await writable.write(text);
        await writable.close();
    };
    await put(`${name}.00000.0123456789abcdef`, "model");
    await put(`${name}.note`, JSON.stringify({ size: 5, part_bytes: 4194304, sha256: name }));
}"""
LEFT_IN_OPFS = """async () => {
    const root = await navigator.storage.getDirectory();
    return (await Array.fromAsync((await root.getDirectoryHandle("webllm")).keys())).length;
}"""


async def test_the_page_looks_and_deletes_where_its_site_keeps_models(tmp_path: Path) -> None:
    with serving_fake(tmp_path) as server:
        catalogue = json.loads((tmp_path / "models.json").read_text())
        (tmp_path / "models.json").write_text(json.dumps({**catalogue, "cacheBackend": "opfs"}))
        async with chat_page(server.url) as chat:
            await chat.evaluate(KEEP_IN_OPFS, "sha256-" + "ab" * 32)
            await chat.click("#open-models")
            full = chat.locator("#models .model-option:has-text('Full')")
            await expect(full).to_contain_text("90 MB in this browser")
            await full.get_by_label("Delete Full 90M from this browser").click()
            await chat.click("#confirm button:has-text('Delete')")
            await expect(full).to_contain_text("90 MB to download")
            assert await chat.evaluate(LEFT_IN_OPFS) == 0


async def chromium_kib(page: Page) -> int:
    """Returns the memory of all of the browser's processes."""
    assert page.context.browser
    session = await page.context.browser.new_browser_cdp_session()
    processes = (await session.send("SystemInfo.getProcessInfo"))["processInfo"]
    pids = ",".join(str(process["id"]) for process in processes)
    command = ["ps", "-o", "rss=", "-p", pids]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return sum(map(int, listed.split()))


async def test_a_picked_file_is_not_copied(
    site: SiteServer, page: Page, run_python: RunPython, small_file: Path
) -> None:
    with small_file.open("r+b") as file:
        file.truncate(1 << 30)  # its tensors, and a hole
    await run_python(OPEN)
    await page.evaluate("document.body.innerHTML = '<input type=file>'")
    await page.set_input_files("input", small_file)
    before = await chromium_kib(page)
    record = await page.evaluate("""async () => {
        const { modelFromFile } = await import("/client.js");
        return modelFromFile(document.querySelector("input").files[0], "mine");
    }""")
    assert record["model_id"] == "mine"
    assert await run_python(f"await load({record['model']!r}, None)") == WEIGHTS
    assert await chromium_kib(page) - before < 100 << 10
    assert await run_python("await kept('cache')") == 0
    assert site.models.ranges == []


async def test_a_file_offered_by_python(run_python: RunPython, small_file: Path) -> None:
    await run_python(OPEN)
    found = await run_python("""
        import js
        import webllm
        from pyodide.ffi import to_js

        response = await js.fetch("/models/small.gguf")
        file = js.File.new(to_js([await response.blob()]), "small.gguf")
        record = await webllm.model_from_file(file)
        assert not await webllm.has_model_in_cache(
            record.model_id, webllm.AppConfig(model_list=(record,))
        )
        record.model_id + " " + await load(record.source, None)
    """)
    assert found == f"small {WEIGHTS}"


async def test_a_page_that_is_gone(run_python: RunPython) -> None:
    await run_python(OPEN)
    error = await run_python("""
        from webllm.artifacts.browser.store import answered

        opening = (await stores_module()).openPicked("picked:unknown/small.gguf", 200)
        try:
            await answered(opening)
        except WebLLMError as error:
            message = f"{type(error).__name__}: {error}"
        message
    """)
    assert error.startswith("ModelNotFoundError: picked:unknown/small.gguf is no longer open")
