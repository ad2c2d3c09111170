"""The directory store: shared blobs, deletion, damage, space, locks."""

import errno
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from webllm.artifacts import fetch_source, file_lock
from webllm.artifacts.checksum import checksums
from webllm.artifacts.destination import RemoteVersion
from webllm.artifacts.file_lock import FileLock
from webllm.artifacts.resolve import ensure_artifact
from webllm.artifacts.source import HTTPSource, RemoteSource
from webllm.artifacts.store import DirectoryStore, StoreEntry, default_root
from webllm.errors import (
    ArtifactError,
    ConfigError,
    IntegrityError,
    ModelNotFoundError,
    StorageFullError,
)

A, B = HTTPSource("https://host/a"), HTTPSource("https://host/b")


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


def add(store: DirectoryStore, source: RemoteSource, data: bytes) -> Path:
    file = store.root / "new"
    file.write_bytes(data)
    store.put(source, file, sha256(data).hexdigest(), RemoteVersion(), checksums(data))
    return store.path(source)


def test_put_and_find(store: DirectoryStore) -> None:
    assert not store.has(A)
    with pytest.raises(ModelNotFoundError, match="host/a"):
        store.path(A)
    path = add(store, A, b"bytes")
    assert store.has(A)
    assert store.path(A) == path
    assert path.read_bytes() == b"bytes"
    assert path.name == f"sha256-{sha256(b'bytes').hexdigest()}"
    assert not list((store.root / "partial").iterdir())
    assert DirectoryStore(store.root).entries() == [
        StoreEntry("https://host/a", sha256(b"bytes").hexdigest(), 5)
    ]


def test_two_sources_share_a_blob(store: DirectoryStore) -> None:
    path = add(store, A, b"same")
    assert add(store, B, b"same") == path
    assert len(list((store.root / "blobs").iterdir())) == 2  # with its checksums
    assert store.delete(A) == 0
    assert (store.has(A), store.has(B), path.exists()) == (False, True, True)
    assert store.delete(B) == 4
    assert not list((store.root / "blobs").iterdir())
    with pytest.raises(ModelNotFoundError):
        store.delete(B)


def test_nothing_is_deleted_while_it_is_fetched(store: DirectoryStore) -> None:
    path = add(store, A, b"bytes")
    with store.lock(A):
        with pytest.raises(ArtifactError, match=r"host/a is being downloaded"):
            store.delete(A)
        assert path.read_bytes() == b"bytes"
        assert store.has(A)
    assert store.delete(A) == 5


async def test_deleting_takes_an_interrupted_fetch_along(store: DirectoryStore) -> None:
    partial = store.partial(A)
    await partial.restart(RemoteVersion())
    await partial.put(0, [b"1234"])
    (store.scratch(A) / "wheel").write_bytes(b"x")
    assert store.delete(A) == 4
    assert not list((store.root / "partial").iterdir())
    with pytest.raises(ModelNotFoundError):
        store.delete(A)


def refusing(number: int) -> Any:
    """Makes a function that fails with a system error."""

    def refuse(path: Any, *arguments: Any, **named: Any) -> Any:
        raise OSError(number, os.strerror(number), str(path))

    return refuse


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (errno.EACCES, ArtifactError, "Permission denied; check its permissions, or set WEBLLM"),
        (errno.EROFS, ArtifactError, "Read-only file system"),
        (errno.EIO, ArtifactError, "Input/output error"),
        (errno.ENOSPC, StorageFullError, "is full.*free some space"),
        (errno.EDQUOT, StorageFullError, "is full.*free some space"),
    ],
)
def test_what_the_disk_refuses_is_an_error_of_ours(
    store: DirectoryStore,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[ArtifactError],
    said: str,
) -> None:
    add(store, A, b"bytes")
    new = store.root / "new"
    new.write_bytes(b"new")
    refuse = refusing(number)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        for ask in (lambda: store.has(A), lambda: store.path(A)):
            with pytest.raises(kind, match=said):
                ask()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(kind, match=said):
            store.put(B, new, sha256(b"new").hexdigest(), RemoteVersion(), checksums(b"new"))
        with pytest.raises(kind, match=said):
            store.adopt(B, sha256(b"bytes").hexdigest())
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)  # of the lock
        with pytest.raises(kind, match=said):
            store.delete(A)
    assert store.has(A)
    assert {file.suffix for file in (store.root / "index").iterdir()} == {".json"}


async def test_what_the_disk_refuses_of_a_fetch(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "open", refusing(errno.EACCES))
    with pytest.raises(ArtifactError, match=r"Permission denied.*WEBLLM_HOME"):
        await ensure_artifact(A, store)
    monkeypatch.undo()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetch_source, "download", full)
    with pytest.raises(StorageFullError, match=str(store.root)):
        await ensure_artifact(A, store)


async def test_a_progress_callback_that_loses_its_listener_is_no_error_of_the_disk(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(*_: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(fetch_source, "download", leave)
    with pytest.raises(BrokenPipeError):
        await ensure_artifact(A, store)


def test_known_hash_is_adopted(store: DirectoryStore) -> None:
    path = add(store, A, b"same")
    assert store.adopt(B, "0" * 64) is None
    assert store.adopt(B, sha256(b"same").hexdigest()) == path == store.path(B)


def test_damaged_entries_and_blobs_count_as_absent(store: DirectoryStore) -> None:
    path = add(store, A, b"bytes")
    path.write_bytes(b"byt")
    assert not store.has(A)
    add(store, A, b"bytes")
    assert store.has(A)
    [entry] = (store.root / "index").iterdir()
    add(store, B, b"more bytes")
    wrong_types = {"source": 5, "sha256": None, "size_bytes": "9"}
    for text in ("{", "[]", "[" * 100_000, json.dumps({"other": 1}), json.dumps(wrong_types)):
        entry.write_text(text)
        assert not store.has(A)
        assert [each.source for each in store.entries()] == [str(B)]


def test_blob_in_use_is_kept(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "in use")

    add(store, A, b"bytes")
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(ArtifactError, match="in use"):
        store.delete(A)
    assert store.has(A)


async def test_space_is_checked(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    partial = store.partial(A)
    await partial.require_space(1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=99))
    await partial.require_space(99)
    with pytest.raises(StorageFullError, match=r"host/a needs 100 bytes more.* has 99 bytes free"):
        await partial.require_space(100)


def test_an_unreadable_entry_hides_no_other_model_and_loses_no_blob(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add(store, A, b"same")
    [unreadable] = (store.root / "index").iterdir()
    path = add(store, B, b"same")
    read_bytes = Path.read_bytes

    def refuse(file: Path) -> bytes:
        if file == unreadable:
            raise PermissionError(errno.EACCES, "Permission denied", str(file))
        return read_bytes(file)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert [entry.source for entry in store.entries()] == [str(B)]
    assert f"{unreadable} cannot be read" in caplog.text
    with pytest.raises(ArtifactError, match="Permission denied"):
        store.delete(B)  # the entry may share the blob
    assert store.path(B) == path


def test_lock_excludes(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.try_acquire()
    assert not second.try_acquire()
    first.release()
    first.release()
    with second:
        assert not first.try_acquire()
    assert first.try_acquire()
    first.release()


def test_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(file_lock, "_lock", refuse)
    with pytest.raises(ConfigError, match="local disk"):
        FileLock(tmp_path / "lock").try_acquire()


def test_default_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WEBLLM_HOME", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.delenv("WEBLLM_HOME")
    assert default_root().name == "webllm"
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    with pytest.raises(ConfigError, match=r"webllm\[native\]"):
        default_root()


def test_root_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="WEBLLM_HOME"):
        DirectoryStore(tmp_path / "file")


@contextmanager
def as_another_user() -> Iterator[None]:
    """Runs the block as an ordinary user: root may write in read-only folders."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def others_store() -> Iterator[DirectoryStore]:
    """A read-only store with A in it."""
    root = Path(tempfile.mkdtemp())
    store = DirectoryStore(root)
    add(store, A, b"bytes")
    folders = [root, *(path for path in root.iterdir() if path.is_dir())]
    for path in root.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    root.chmod(0o555)
    yield store
    for folder in folders:
        folder.chmod(0o700)
    shutil.rmtree(root)


async def test_a_read_only_store_still_gives_what_is_in_it(others_store: DirectoryStore) -> None:
    with as_another_user():
        assert DirectoryStore(others_store.root).has(A)
        assert await ensure_artifact(A, others_store) == others_store.path(A)


async def test_a_read_only_store_is_verified(others_store: DirectoryStore) -> None:
    """Without checksums by SHA-256 each time, because none can be stored."""
    file, blobs = others_store.path(A), others_store.root / "blobs"
    blobs.chmod(0o755)
    Path(f"{file}.xxh64").unlink()
    blobs.chmod(0o555)
    with as_another_user():
        assert await ensure_artifact(A, others_store) == file
    assert list(blobs.iterdir()) == [file]
    file.chmod(0o644)
    file.write_bytes(b"bytez")
    with (
        as_another_user(),
        pytest.raises(
            IntegrityError, match=r"damaged \(parts: 1\).*Permission denied.*WEBLLM_HOME"
        ),
    ):
        await ensure_artifact(A, others_store)


async def test_a_read_only_store_says_so(others_store: DirectoryStore) -> None:
    with as_another_user():
        with pytest.raises(ArtifactError, match="set WEBLLM_HOME to a folder"):
            others_store.delete(A)
        with pytest.raises(ArtifactError, match="set WEBLLM_HOME to a folder"):
            await ensure_artifact(B, others_store)
    assert others_store.has(A)


def test_other_users_may_read_the_index(store: DirectoryStore) -> None:
    add(store, A, b"bytes")
    umask = os.umask(0o022)
    os.umask(umask)
    modes = {file.stat().st_mode & 0o777 for file in (store.root / "index").iterdir()}
    assert modes == {0o666 & ~umask}


def test_another_users_index_is_not_taken_for_empty(others_store: DirectoryStore) -> None:
    for file in (others_store.root / "index").iterdir():
        file.chmod(0o600)
    with as_another_user(), pytest.raises(ArtifactError, match="cannot be read or written"):
        others_store.has(A)


def test_a_home_that_cannot_be_made_says_so(others_store: DirectoryStore) -> None:
    with as_another_user(), pytest.raises(ConfigError, match="set WEBLLM_HOME to a folder"):
        DirectoryStore(others_store.root / "blobs" / "home")
