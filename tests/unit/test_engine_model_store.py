"""Stored models, natively, and the stores and paths that records and catalogues name."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest

import webllm
from webllm.artifacts.checksum import checksums
from webllm.artifacts.destination import RemoteVersion
from webllm.artifacts.resolve import ensure_artifact
from webllm.artifacts.source import HTTPSource, LocalSource, parse_source
from webllm.artifacts.store import DirectoryStore
from webllm.config import AppConfig, ModelRecord
from webllm.errors import ConfigError, IntegrityError, ModelNotFoundError

URL = "https://host/m.gguf"
CONFIG = AppConfig(model_list=(ModelRecord(model_id="m", model=URL),))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DirectoryStore:
    monkeypatch.setenv("WEBLLM_HOME", str(tmp_path))
    return DirectoryStore()


def keep(store: DirectoryStore, folder: Path) -> None:
    file = folder / "fetched"
    file.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    store.put(HTTPSource(URL), file, digest, RemoteVersion(), checksums(b"weights"))


async def test_has_and_delete(store: DirectoryStore, tmp_path: Path) -> None:
    assert not await webllm.has_model_in_cache("m", CONFIG)
    keep(store, tmp_path)
    assert await webllm.has_model_in_cache("m", CONFIG)
    await webllm.delete_chat_config_in_cache("m", CONFIG)
    assert await webllm.has_model_in_cache("m", CONFIG)
    await webllm.delete_model_in_cache("m", CONFIG)
    assert not await webllm.has_model_in_cache("m", CONFIG)
    await webllm.delete_model_all_info_in_cache("m", CONFIG)


async def test_what_a_fetch_left_is_deleted(store: DirectoryStore) -> None:
    partial = store.partial(HTTPSource(URL))
    await partial.restart(RemoteVersion())
    await partial.put(0, [b"half"])
    await webllm.delete_model_all_info_in_cache("m", CONFIG)
    assert not list((store.root / "partial").iterdir())


async def test_a_file_under_way_is_not_deleted(store: DirectoryStore) -> None:
    lock = store.lock(HTTPSource(URL))
    assert lock.try_acquire()
    with pytest.raises(webllm.WebLLMError, match="is being downloaded"):
        await webllm.delete_model_in_cache("m", CONFIG)
    lock.release()


async def test_a_local_file_is_nobodys_to_delete(store: DirectoryStore, tmp_path: Path) -> None:
    file = tmp_path / "mine.gguf"
    file.write_bytes(b"x")
    config = AppConfig(model_list=(ModelRecord(model_id="mine", model_path=str(file)),))
    assert not await webllm.has_model_in_cache("mine", config)
    await webllm.delete_model_all_info_in_cache("mine", config)
    assert file.exists()


async def test_unknown_models(store: DirectoryStore) -> None:
    with pytest.raises(ModelNotFoundError, match="no model called 'n'"):
        await webllm.delete_chat_config_in_cache("n", CONFIG)
    with pytest.raises(ConfigError, match="is not a file of a page"):
        await webllm.model_from_file("m.gguf")


def test_model_path() -> None:
    record = ModelRecord(model_id="m", model_path="/models/llama3")
    assert record.model == "/models/llama3"
    assert msgspec.convert(msgspec.to_builtins(record), ModelRecord) == record
    with pytest.raises(ConfigError, match="give one of them"):
        ModelRecord(model_id="m", model_path="/a", model="/b")
    with pytest.raises(ConfigError, match="names no source"):
        ModelRecord(model_id="m")


def test_use_indexed_db() -> None:
    assert AppConfig(model_list=(), use_indexed_db=True).cache_backend == "indexeddb"
    decoded = msgspec.json.decode(b'{"model_list": [], "useIndexedDBCache": true}', type=AppConfig)
    assert decoded.cache_backend == "indexeddb"
    assert msgspec.json.decode(msgspec.json.encode(decoded), type=AppConfig) == decoded
    with pytest.raises(ConfigError, match="cacheBackend is 'opfs' and useIndexedDBCache is true"):
        AppConfig(model_list=(), cache_backend="opfs", use_indexed_db=True)


async def test_a_local_file_has_the_hash_promised(store: DirectoryStore, tmp_path: Path) -> None:
    file = tmp_path / "mine.gguf"
    file.write_bytes(b"x")
    digest = hashlib.sha256(b"x").hexdigest()
    assert parse_source(f"{file}#sha256={digest}") == LocalSource(file, digest)
    assert await ensure_artifact(f"{file}#sha256={digest}", store) == file
    with pytest.raises(IntegrityError, match="expected 0000"):
        await ensure_artifact(f"{file}#sha256={'0' * 64}", store)
