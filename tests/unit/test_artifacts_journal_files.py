"""The journal's files: ownership among processes, permissions, durability, errors, open files."""

import asyncio
import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from journal_cases import NAME, check
from webllm.artifacts import file_lock, journal_files
from webllm.artifacts.journal_files import JournalFiles
from webllm.engine.journal import Journal
from webllm.errors import ArtifactError, ConfigError, RequestError, StorageFullError

OTHER = "f" * 64
needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX's permissions and users")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """Returns a folder that does not exist yet. No test may leave a file open."""
    before = open_files()
    yield tmp_path / "home" / "sessions"
    assert open_files() == before


@pytest.fixture
def storage(root: Path) -> JournalFiles:
    return JournalFiles(root)


def open_files() -> int:
    return len(os.listdir("/dev/fd")) if sys.platform != "win32" else 0


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def file_of(root: Path, name: str = NAME) -> Path:
    return root / f"{name}.session"


async def test_it_is_a_journal_storage(root: Path, storage: JournalFiles) -> None:
    await check(storage)
    assert not list(root.iterdir())


async def test_reading_creates_nothing(root: Path, storage: JournalFiles) -> None:
    assert await storage.names() == {}
    assert await storage.read(NAME) is None
    assert await storage.reopen(NAME) is None
    assert await storage.delete(NAME)
    assert not root.exists()


async def test_two_storages_of_one_folder(root: Path) -> None:
    first, second = JournalFiles(root), JournalFiles(root)
    writers = await asyncio.gather(first.create(NAME, b"first"), second.create(NAME, b"second"))
    (writer,) = [each for each in writers if each is not None]
    assert await first.read(NAME) in (b"first", b"second")
    assert await first.is_owned(NAME)
    assert await second.is_owned(NAME)
    await writer.close()
    reopened = await asyncio.gather(first.reopen(NAME), second.reopen(NAME))
    (writer,) = [each for each in reopened if each is not None]
    await writer.close()


async def test_foreign_files_are_left_alone(root: Path, storage: JournalFiles) -> None:
    root.mkdir(parents=True)
    (root / "notes.txt").write_text("mine")
    await Journal(storage).delete_all()
    assert (root / "notes.txt").exists()


async def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WEBLLM_HOME", str(tmp_path))
    assert JournalFiles().root == tmp_path / "sessions"


KILLED = """
import asyncio, sys
from pathlib import Path
from webllm.artifacts.journal_files import JournalFiles
from webllm.engine.journal import Begin, Journal

async def main():
    fields = {"created": 0.0, "kind": "chat", "request": {}, "seed": 1, "prompt_ids": b""}
    names = {"model_id": "m", "models": [], "forms": ""}
    begin = Begin(session_id="s", **fields, **names)
    recorder = Journal(JournalFiles(Path(sys.argv[1]))).begin(begin)
    await recorder.begun()
    for token_id in range(10**9):
        recorder.token(0, token_id, "x")
        if token_id == 1000:
            print("writing", flush=True)
        if token_id % 16 == 0:
            await asyncio.sleep(0)

asyncio.run(main())
"""


async def test_a_killed_process_owns_nothing(root: Path, storage: JournalFiles) -> None:
    journal = Journal(storage)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(root)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"writing"
        with pytest.raises(RequestError, match="under way"):
            await journal.reopen("s")
        ((name, _),) = (await storage.names()).items()
        assert await storage.is_owned(name)
        process.kill()
    assert not await storage.is_owned(name)
    reopened = await journal.reopen("s")
    assert reopened is not None
    recovered, recorder = reopened
    num_tokens = recovered.num_tokens
    assert num_tokens > 0
    assert recovered.choices[0].token_ids == list(range(num_tokens))
    recorder.token(0, num_tokens, "x")
    await recorder.close()
    found = await journal.find("s")
    assert found is not None
    assert found.choices[0].token_ids == list(range(num_tokens + 1))


async def test_expiry_by_the_files_times(root: Path, storage: JournalFiles) -> None:
    for name in (NAME, OTHER):
        writer = await storage.create(name, b"damaged")
        assert writer is not None
        await writer.close()
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(file_of(root), (two_days_ago, two_days_ago))
    assert await Journal(storage).list() == []
    assert [path.name for path in root.iterdir()] == [file_of(root, OTHER).name]


@needs_posix
async def test_only_the_user_may_read(root: Path, storage: JournalFiles) -> None:
    writer = await storage.create(NAME, b"secret")
    assert writer is not None
    assert mode(root) == 0o700
    assert mode(file_of(root)) == 0o600
    await writer.close()
    root.chmod(0o755)
    file_of(root).chmod(0o644)
    assert await storage.read(NAME) == b"secret"
    assert mode(root) == 0o700
    assert mode(file_of(root)) == 0o600
    root.chmod(0o750)
    await storage.names()
    assert mode(root) == 0o700


@needs_posix
async def test_a_folder_of_another_user_is_refused(
    root: Path, storage: JournalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.mkdir(parents=True)
    file_of(root).write_bytes(b"planted")
    monkeypatch.setattr(os, "geteuid", lambda: root.stat().st_uid + 1)
    for work in (
        storage.create(OTHER, b""),
        storage.reopen(NAME),
        storage.read(NAME),
        storage.is_owned(NAME),
        storage.delete(NAME),
        storage.names(),
    ):
        with pytest.raises(ConfigError, match=r"another user \(id .*set WEBLLM_HOME"):
            await work
    assert [path.name for path in root.iterdir()] == [file_of(root).name]


async def test_a_file_in_the_folders_place(root: Path, storage: JournalFiles) -> None:
    root.parent.mkdir()
    root.write_text("a file")
    with pytest.raises(ArtifactError, match="cannot be read or written"):
        await storage.create(NAME, b"")


async def test_a_new_session_is_on_the_disk(
    root: Path, storage: JournalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    fsync = os.fsync

    def recording_fsync(descriptor: int) -> None:
        fsync(descriptor)
        status = os.fstat(descriptor)
        synced.append((status.st_ino, status.st_size))

    monkeypatch.setattr(os, "fsync", recording_fsync)
    writer = await storage.create(NAME, b"begin")
    assert writer is not None
    file = file_of(root).stat()
    folders = [each.stat().st_ino for each in (root.parent, root)]
    assert (file.st_ino, len(b"begin")) in synced
    if sys.platform != "win32":
        assert [inode for inode, _ in synced] == [folders[0], file.st_ino, folders[1]]
    await writer.close()


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def write_half(file: object, data: bytes) -> None:
        write(file, data[: len(data) // 2])  # type: ignore[arg-type]
        raise OSError(errno.ENOSPC, "No space left on device")

    write = journal_files._write
    monkeypatch.setattr(journal_files, "_write", write_half)


async def test_a_full_disk(
    root: Path, storage: JournalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = await storage.create(NAME, b"begin")
    assert writer is not None
    fill_disk(monkeypatch)
    with pytest.raises(StorageFullError, match=NAME):
        await writer.append(b"0123")
    with pytest.raises(StorageFullError):
        await storage.create(OTHER, b"begin")
    await writer.close()
    assert list(await storage.names()) == [NAME]
    assert await storage.read(NAME) == b"begin01"


async def test_a_disk_without_locks(
    root: Path, storage: JournalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(file_lock, "_lock", refuse)
    with pytest.raises(ConfigError, match="local disk"):
        await storage.create(NAME, b"begin")
    assert not list(root.iterdir())
    file_of(root, OTHER).write_bytes(b"begin")
    with pytest.raises(ConfigError, match="local disk"):
        await storage.reopen(OTHER)
    with pytest.raises(ConfigError, match="local disk"):
        await storage.is_owned(OTHER)


async def test_a_lock_that_is_held_for_a_moment(
    root: Path, storage: JournalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process looks whether the file has an owner."""
    lock = file_lock._lock
    refusals = [BlockingIOError(), BlockingIOError()]

    def refuse_first(file: object) -> None:
        if refusals:
            raise refusals.pop()
        lock(file)  # type: ignore[arg-type]

    monkeypatch.setattr(file_lock, "_lock", refuse_first)
    writer = await storage.create(NAME, b"begin")
    assert writer is not None
    await writer.close()
    refusals.append(BlockingIOError())
    writer = await storage.reopen(NAME)
    assert writer is not None
    await writer.close()
    refusals.append(BlockingIOError())
    assert await storage.delete(NAME)


@needs_posix
async def test_a_file_that_is_replaced_before_it_is_locked(
    root: Path, storage: JournalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = file_lock._lock
    replacements: list[bytes | None] = []  # what another process puts in the file's place

    def replace_first(file: object) -> None:
        if replacements:
            file_of(root).unlink()
            if (data := replacements.pop(0)) is not None:
                file_of(root).write_bytes(data)
        lock(file)  # type: ignore[arg-type]

    monkeypatch.setattr(file_lock, "_lock", replace_first)
    replacements[:] = [b"another's"]
    with pytest.raises(ArtifactError, match="try again"):
        await storage.create(NAME, b"ours")
    assert await storage.read(NAME) == b"another's"
    replacements[:] = [b"a new one", b"a newer one"]
    writer = await storage.reopen(NAME)
    assert writer is not None
    await writer.append(b", ours")
    await writer.close()
    assert await storage.read(NAME) == b"a newer one, ours"
    replacements[:] = [b"a new one", None]
    assert await storage.reopen(NAME) is None


class Pause:
    """Stops the thread at a function of os until the test lets it go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self._function = getattr(os, name)
        self._loop = asyncio.get_running_loop()
        self._go_on = threading.Event()
        self.reached = asyncio.Event()
        monkeypatch.setattr(os, name, self._wait)

    def _wait(self, *arguments: Any) -> Any:
        self._loop.call_soon_threadsafe(self.reached.set)
        self._go_on.wait()
        return self._function(*arguments)

    async def cancel(self, task: asyncio.Task[Any]) -> None:
        """Cancels a task twice, first while its thread is at the function."""
        await self.reached.wait()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        self._go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_cancelled_call_leaves_nothing(
    storage: JournalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = Pause(monkeypatch, "fsync")
    await pause.cancel(asyncio.create_task(storage.create(NAME, b"begin")))
    assert await storage.names() == {}

    writer = await storage.create(NAME, b"begin")
    assert writer is not None
    await writer.close()
    pause = Pause(monkeypatch, "fstat")
    await pause.cancel(asyncio.create_task(storage.reopen(NAME)))
    assert not await storage.is_owned(NAME)
    assert await storage.read(NAME) == b"begin"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", refuse_permission)
        pause = Pause(patch, "fsync")
        await pause.cancel(asyncio.create_task(storage.create(OTHER, b"begin")))
    assert list(await storage.names()) == [NAME]


def refuse_permission(descriptor: int) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")


async def test_links_and_pipes_are_no_sessions(root: Path, storage: JournalFiles) -> None:
    writer = await storage.create(NAME, b"x")
    assert writer is not None
    await writer.close()
    target = root.parent / "target"
    target.write_text("secret")
    target.chmod(0o644)
    link, pipe = "a" * 64, "b" * 64
    file_of(root, link).symlink_to(target)
    os.mkfifo(file_of(root, pipe))
    for name in (link, pipe):
        assert list(await storage.names()) == [NAME]
        for act in (storage.read, storage.reopen, storage.delete):
            with pytest.raises(ArtifactError, match="is no file of a session; remove it"):
                await act(name)
    assert mode(target) == 0o644


async def test_a_huge_file_is_not_read(
    root: Path, storage: JournalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_files, "_MAX_BYTES", 10)
    writer = await storage.create(NAME, b"12345678901")
    assert writer is not None
    await writer.close()
    with pytest.raises(ArtifactError, match="more than 10 bytes; remove it"):
        await storage.read(NAME)
