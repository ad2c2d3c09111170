"""Models of several files: found, fetched from a server here, stored, shared, deleted."""

import asyncio
import json
from collections.abc import Iterator
from hashlib import md5
from pathlib import Path

import pytest
from file_server import PART, Departure, FileServer, serving

from webllm.artifacts import hub
from webllm.artifacts.fetch_source import FetchOptions
from webllm.artifacts.files import FileSpec
from webllm.artifacts.local_folder import ModelPaths, local_model
from webllm.artifacts.progress import InitProgressReport
from webllm.artifacts.remote_folder import Listing
from webllm.artifacts.resolve import ensure_model
from webllm.artifacts.retry import RetryPolicy
from webllm.artifacts.source import HTTPSource, HubSource, parse_source
from webllm.artifacts.store import DirectoryStore
from webllm.artifacts.transfer import RemoteFile
from webllm.errors import (
    ArtifactError,
    CheckpointError,
    ConfigError,
    FetchError,
    IntegrityError,
    ModelNotFoundError,
)

QUICK = FetchOptions(RetryPolicy(attempts=3, first_pause_s=0.001))
SHARDS = {f"params_shard_{i}.bin": bytes([i, 1, 2, 3]) * (1 << 20 | i) for i in range(3)}
MLC = ["mlc-chat-config.json", "tensor-cache.json", "tokenizer.json", *SHARDS]


def mlc_folder(**changes: bytes | None) -> dict[str, bytes]:
    """Returns the files of an MLC folder; a change of None removes one."""
    records = [
        {"dataPath": name, "nbytes": len(data), "md5sum": md5(data).hexdigest(), "records": []}
        for name, data in SHARDS.items()
    ]
    files: dict[str, bytes | None] = {
        "mlc-chat-config.json": json.dumps(
            {"tokenizer_files": ["tokenizer.json", "absent.json"]}
        ).encode(),
        "tensor-cache.json": json.dumps({"records": records}).encode(),
        "tokenizer.json": b"{}",
        **SHARDS,
        **changes,
    }
    return {name: data for name, data in files.items() if data is not None}


SAFETENSORS = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    ).encode(),
    "model-1.safetensors": b"one",
    "model-2.safetensors": b"two",
    "generation_config.json": b"{}",
}
SPLIT = {f"m-Q8_0-{i:05}-of-00003.gguf": bytes([i]) * 9 for i in (1, 2, 3)}


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(FileServer()) as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


def serve(server: FileServer, files: dict[str, bytes], folder: str = "/f/") -> str:
    """Serves files in a folder; returns its URL."""
    server.files = {folder + name: data for name, data in files.items()}
    server.requested.clear()
    server.ranges.clear()
    return server.url.replace("/model.gguf", folder)


def contents(model: ModelPaths) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in model.paths.items()}


def blobs(store: DirectoryStore) -> int:
    return len([path for path in (store.root / "blobs").iterdir() if not path.suffix])


async def test_a_folder_of_a_site_is_one_model(server: FileServer, store: DirectoryStore) -> None:
    url, reports = serve(server, mlc_folder()), list[InitProgressReport]()
    source = parse_source(url)
    assert isinstance(source, HTTPSource)
    found = await ensure_model(url, store, reports.append, QUICK)
    assert (found.entry, contents(found)) == ("mlc-chat-config.json", mlc_folder())
    assert store.has(source)
    size_bytes = sum(map(len, mlc_folder().values()))
    assert store.models() == [(url, size_bytes)]
    assert (reports[-1].loaded_bytes, reports[-1].total_bytes) == (size_bytes, size_bytes)
    loaded = [report.loaded_bytes for report in reports if report.total_bytes]
    assert loaded == sorted(loaded)
    assert {report.total_bytes for report in reports} == {None, size_bytes}
    server.requested.clear()
    again = await ensure_model(url.removesuffix("/"), store)
    assert (again, server.requested) == (found, [])  # offline
    assert store.delete(source) == size_bytes
    assert (store.has(source), store.models(), blobs(store)) == (False, [], 0)
    assert not any(store.root.joinpath("sets").iterdir())


@pytest.mark.parametrize(
    ("files", "entry", "names"),
    [
        (mlc_folder(), "mlc-chat-config.json", MLC),
        (
            {
                **mlc_folder(**{"tensor-cache.json": None}),
                "ndarray-cache.json": mlc_folder()[MLC[1]],
            },
            "mlc-chat-config.json",
            [MLC[0], "ndarray-cache.json", *MLC[2:]],
        ),
        (
            mlc_folder(**{"tokenizer_config.json": b"{}"}),
            "mlc-chat-config.json",
            [*MLC, "tokenizer_config.json"],
        ),
        (SAFETENSORS, "model.safetensors.index.json", [*SAFETENSORS]),
        (
            {"model.safetensors": b"x", "config.json": b"{}", "tokenizer.model": b"t"},
            "model.safetensors",
            ["model.safetensors", "config.json", "tokenizer.model"],
        ),
        ({"model.gguf": b"GGUF", "config.json": b"{}"}, "model.gguf", ["model.gguf"]),
    ],
)
async def test_what_is_found_in_a_folder(
    server: FileServer,
    store: DirectoryStore,
    tmp_path: Path,
    files: dict[str, bytes],
    entry: str,
    names: list[str],
) -> None:
    found = await ensure_model(serve(server, files), store, None, QUICK)
    assert (found.entry, sorted(found.paths)) == (entry, sorted(names))
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    local = await local_model(folder)
    assert (local.entry, len(local.paths)) == (entry, len(names))
    assert sorted(contents(local).values()) == sorted(contents(found).values())
    assert await local_model(folder / entry) == local
    webllms = serve(server, files, "/webllm/resolve/main/").removesuffix("resolve/main/")
    again = await ensure_model(webllms, store, None, QUICK)  # where WebLLM looks for it
    assert (again.entry, contents(again)) == (entry, contents(found))


async def test_a_page_in_place_of_every_file_is_none(
    server: FileServer, store: DirectoryStore
) -> None:
    server.body, server.headers = b"<html>", {"Content-Type": "text/html; charset=utf-8"}
    url = server.url.replace("model.gguf", "folder/")
    with pytest.raises(ModelNotFoundError, match="has no model that we know; name a folder with"):
        await ensure_model(url, store, None, QUICK)


BROKEN = [Departure(status=500)] * 3


@pytest.mark.parametrize("broken", MLC)
async def test_a_download_broken_at_any_file_is_resumed(
    server: FileServer, store: DirectoryStore, broken: str
) -> None:
    url = serve(server, mlc_folder())
    source = parse_source(url)
    assert isinstance(source, HTTPSource)
    server.scripts = {f"/f/{broken}": [*BROKEN]}
    with pytest.raises(FetchError, match=broken):
        await ensure_model(url, store, None, QUICK)
    assert (store.has(source), store.models()) == (False, [])
    server.requested.clear()
    assert contents(await ensure_model(url, store, None, QUICK)) == mlc_folder()
    whole = [name for name in SHARDS if f"/f/{name}" not in server.requested]
    assert whole == [name for name in MLC[: MLC.index(broken)] if name in SHARDS]


async def test_a_shard_goes_on_where_it_broke_off(
    server: FileServer, store: DirectoryStore
) -> None:
    url = serve(server, mlc_folder())
    server.scripts = {"/f/params_shard_2.bin": [Departure(cut=PART + 5), *BROKEN]}
    with pytest.raises(FetchError, match=rf"params_shard_2.bin failed .* {PART} bytes are stored"):
        await ensure_model(url, store, None, QUICK)
    server.ranges.clear()
    reports: list[InitProgressReport] = []
    assert contents(await ensure_model(url, store, reports.append, QUICK)) == mlc_folder()
    assert server.ranges[-1] == f"bytes={PART}-"
    before = sum(map(len, mlc_folder().values())) - len(SHARDS["params_shard_2.bin"]) + PART
    assert min(each.loaded_bytes for each in reports if each.loaded_bytes) >= before


async def test_what_a_broken_download_left_is_deleted(
    server: FileServer, store: DirectoryStore
) -> None:
    url = serve(server, mlc_folder())
    source = parse_source(url)
    assert isinstance(source, HTTPSource)
    server.scripts = {"/f/params_shard_2.bin": [Departure(cut=PART + 5), *BROKEN]}
    with pytest.raises(FetchError):
        await ensure_model(url, store, None, QUICK)
    whole = mlc_folder(**{"params_shard_2.bin": None})
    assert store.delete(source) == sum(map(len, whole.values())) + PART
    assert not any((store.root / "partial").iterdir())


async def test_an_attempt_with_another_version_begins_with_that(
    server: FileServer, store: DirectoryStore
) -> None:
    url = serve(server, mlc_folder())
    server.scripts = {"/f/params_shard_1.bin": [*BROKEN]}
    with pytest.raises(FetchError):
        await ensure_model(url, store, None, QUICK)
    newer = mlc_folder(**{"tokenizer.json": b'{"newer": true}'})
    newer["params_shard_2.bin"] = b"another"
    records = json.loads(newer["tensor-cache.json"])["records"]
    records[2] |= {"nbytes": 7, "md5sum": md5(b"another").hexdigest()}
    newer["tensor-cache.json"] = json.dumps({"records": records}).encode()
    serve(server, newer)
    assert contents(await ensure_model(url, store, None, QUICK)) == newer
    assert "/f/params_shard_0.bin" not in server.requested


async def test_a_wrong_hash_names_the_shard(server: FileServer, store: DirectoryStore) -> None:
    wrong = bytes(len(SHARDS["params_shard_1.bin"]))
    url = serve(server, mlc_folder(**{"params_shard_1.bin": wrong}))
    with pytest.raises(IntegrityError, match=r"params_shard_1\.bin is not .*MD5 is") as caught:
        await ensure_model(url, store, None, QUICK)
    expected = md5(SHARDS["params_shard_1.bin"]).hexdigest()
    assert (caught.value.expected, caught.value.actual) == (expected, md5(wrong).hexdigest())
    serve(server, mlc_folder())
    assert contents(await ensure_model(url, store, None, QUICK)) == mlc_folder()
    assert "/f/params_shard_0.bin" not in server.requested


async def test_a_wrong_size_is_found_before_a_byte_is_stored(
    server: FileServer, store: DirectoryStore
) -> None:
    url = serve(server, mlc_folder(**{"params_shard_0.bin": b"short"}))
    expected = len(SHARDS["params_shard_0.bin"])
    with pytest.raises(IntegrityError, match=rf"shard_0.*has 5 bytes, expected {expected}"):
        await ensure_model(url, store, None, QUICK)
    assert not list((store.root / "partial").glob("*.part"))


@pytest.mark.parametrize("missing", ["tensor-cache.json", "tokenizer.json", "params_shard_1.bin"])
async def test_a_missing_file_is_named(
    server: FileServer, store: DirectoryStore, tmp_path: Path, missing: str
) -> None:
    url = serve(server, mlc_folder(**{missing: None}))
    with pytest.raises(ModelNotFoundError, match=missing):
        await ensure_model(url, store, None, QUICK)
    for name, data in mlc_folder(**{missing: None}).items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ModelNotFoundError, match=f"{missing} is missing in .*not complete"):
        await local_model(tmp_path)


@pytest.mark.parametrize(
    ("name", "document", "message"),
    [
        ("mlc-chat-config.json", b"[]", "mlc-chat-config.json in .* is not a JSON object"),
        ("mlc-chat-config.json", b"{", "is not JSON"),
        ("mlc-chat-config.json", b'{"tokenizer_files": "x"}', "tokenizer_files .* not a list"),
        ("mlc-chat-config.json", b'{"tokenizer_files": ["../x"]}', "names the file '../x'"),
        ("tensor-cache.json", b"{}", "lists no records"),
        ("tensor-cache.json", b'{"records": [1]}', "has the record 1"),
        ("tensor-cache.json", b'{"records": [{"dataPath": "a"}]}', "the nbytes None"),
        ("tensor-cache.json", b'{"records": [{"dataPath": "/a", "nbytes": 1}]}', "file '/a'"),
        ("tensor-cache.json", b'{"records": [{"dataPath": "a/../b", "nbytes": 1}]}', "a/../b"),
        ("tensor-cache.json", b'{"records": [{"nbytes": 1}]}', "names the file None"),
        (
            "tensor-cache.json",
            b'{"records": [{"dataPath": "a", "nbytes": 1, "md5sum": "z"}]}',
            "the md5sum 'z'",
        ),
    ],
)
async def test_what_is_wrong_in_a_document_is_named(
    tmp_path: Path, name: str, document: bytes, message: str
) -> None:
    for other, data in mlc_folder(**{name: document}).items():
        (tmp_path / other).write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        await local_model(tmp_path)


async def test_split_files_by_any_of_their_parts(
    server: FileServer, store: DirectoryStore, tmp_path: Path
) -> None:
    url = serve(server, SPLIT)
    for name, data in SPLIT.items():
        (tmp_path / name).write_bytes(data)
    for place in (*(url + name for name in SPLIT), *(tmp_path / name for name in SPLIT), tmp_path):
        found = await ensure_model(str(place), store, None, QUICK)
        assert (list(found.paths), contents(found)) == (list(SPLIT), SPLIT)
    missing = "m-Q8_0-00002-of-00003.gguf"
    (tmp_path / missing).unlink()
    with pytest.raises(ModelNotFoundError, match=rf"{missing} is missing in {tmp_path}"):
        await local_model(tmp_path / "m-Q8_0-00003-of-00003.gguf")
    del server.files[f"/f/{missing}"]  # type: ignore[union-attr]
    with pytest.raises(ModelNotFoundError, match=f"{missing} is missing in"):
        await ensure_model(url + "m-Q8_0-00001-of-00003.gguf?again", store, None, QUICK)


async def test_files_that_two_sources_share_stay_until_both_are_gone(
    server: FileServer, store: DirectoryStore
) -> None:
    url = serve(server, mlc_folder())
    one, two = parse_source(url), parse_source(f"{url}mlc-chat-config.json")
    assert isinstance(one, HTTPSource)
    assert isinstance(two, HTTPSource)
    for source in (one, two):
        await ensure_model(source, store, None, QUICK)
    num_files = len(mlc_folder())
    assert (blobs(store), len(store.models())) == (num_files, 2)
    assert store.delete(one) == 0
    assert (store.has(one), store.has(two), blobs(store)) == (False, True, num_files)
    server.files = {}
    assert contents(await ensure_model(two, store)) == mlc_folder()
    assert store.delete(two) > 0
    assert blobs(store) == 0


async def test_a_damaged_file_of_a_model_is_repaired(
    server: FileServer, store: DirectoryStore
) -> None:
    url = serve(server, mlc_folder())
    found = await ensure_model(url, store, None, QUICK)
    shard = found.paths["params_shard_1.bin"]
    with shard.open("r+b") as file:
        file.seek(8)
        file.write(b"damage")
    server.requested.clear()
    server.ranges.clear()
    assert contents(await ensure_model(url, store, None, QUICK)) == mlc_folder()
    assert (server.requested, server.ranges) == (["/f/params_shard_1.bin"], ["bytes=0-4194303"])


async def test_a_damaged_manifest_is_found_anew(server: FileServer, store: DirectoryStore) -> None:
    url = serve(server, mlc_folder())
    await ensure_model(url, store, None, QUICK)
    [manifest] = (store.root / "sets").iterdir()
    for damage in (
        b"",
        b"{",
        b"[]",
        b'{"source": 1}',
        manifest.read_bytes().replace(b"http", b"x"),
    ):
        manifest.write_bytes(damage)
        source = parse_source(url)
        assert isinstance(source, HTTPSource)
        assert not store.has(source)
        assert contents(await ensure_model(url, store, None, QUICK)) == mlc_folder()


async def test_a_model_under_way_is_not_deleted_and_is_fetched_once(
    server: FileServer, store: DirectoryStore
) -> None:
    url = serve(server, mlc_folder())
    source, errors = parse_source(url), list[str]()
    assert isinstance(source, HTTPSource)

    def delete(_: InitProgressReport) -> None:
        try:
            store.delete(source)
        except ArtifactError as error:
            errors.append(str(error))

    both = await asyncio.gather(
        ensure_model(url, store, delete, QUICK), ensure_model(url, store, None, QUICK)
    )
    assert both[0] == both[1]
    assert server.requested.count("/f/params_shard_0.bin") == 1
    assert errors[0] == f"{url} is being downloaded; stop that, then delete it"


FILES_OF_HUB = {
    "README.md": 10,
    "a/m-Q4_K_M.gguf": 11,
    "m.IQ4_K_M.gguf": 12,
    **{f"big/{name}": len(data) for name, data in SPLIT.items()},
    "m-q5_0.gguf": 13,
    "m-UD-Q5_0.gguf": 14,
    "mmproj-F16.gguf": 15,
}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("hf:o/r:Q4_K_M", "a/m-Q4_K_M.gguf"),
        ("hf:o/r:iq4_k_m", "m.IQ4_K_M.gguf"),
        ("hf:o/r:q8_0", "big/m-Q8_0-00001-of-00003.gguf"),
        ("hf:o/r/big", "m-Q8_0-00001-of-00003.gguf"),
        ("hf:o/r/big/m-Q8_0-00002-of-00003.gguf", "m-Q8_0-00002-of-00003.gguf"),
        ("hf:o/r:Q4_K", "no .gguf file with the quantization 'Q4_K'; there are: a/m-Q4_K_M.gguf"),
        ("hf:o/r:Q5_0", "several .gguf files .*'Q5_0'; there are: m-UD-Q5_0.gguf, m-q5_0.gguf"),
        ("hf:o/r:F16", "no .gguf file with the quantization 'F16'"),
        ("hf:o/r", "contains several .gguf files: a/m-Q4_K_M.gguf, big/.*; name one"),
        ("hf:o/r/b/", "contains no model that we know"),
    ],
)
async def test_models_of_a_repository(
    server: FileServer,
    store: DirectoryStore,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    found: str,
) -> None:
    server.files = {f"/{name}": b"x" * size for name, size in FILES_OF_HUB.items()}
    files = {name: FileSpec(name, size) for name, size in FILES_OF_HUB.items()}
    monkeypatch.setattr(hub, "list_files", lambda source: Listing("c0ffee", files))
    monkeypatch.setattr(hub, "address", lambda source: located(server, source))
    if " " in found:
        with pytest.raises(ModelNotFoundError, match=found):
            await ensure_model(source, store, None, QUICK)
        return
    model = await ensure_model(source, store, None, QUICK)
    assert model.entry == found
    if "Q8_0" in found:
        assert len(model.paths) == 3


def located(server: FileServer, source: HubSource) -> RemoteFile:
    assert source.revision == "c0ffee"
    return RemoteFile(server.url.replace("model.gguf", source.filename))


async def test_a_repository_without_its_prefix(store: DirectoryStore) -> None:
    with pytest.raises(ModelNotFoundError, match=r"write hf:owner/repo for a repository"):
        await ensure_model("owner/repo", store)


async def test_one_hash_of_a_folder_is_refused(store: DirectoryStore, tmp_path: Path) -> None:
    for name, data in mlc_folder().items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match="one hash for a model of several files"):
        await ensure_model(f"{tmp_path}#sha256={'0' * 64}", store)
