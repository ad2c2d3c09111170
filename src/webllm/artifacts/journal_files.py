"""The storage of the journal in a folder: one file for each session, for the user alone.

The owner of a session holds a lock on its file; the system releases it when the process ends. The
files' content is the journal's business, see `engine.journal`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import stat
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from io import FileIO
from pathlib import Path
from typing import TypeVar

from webllm.artifacts.file_lock import try_lock
from webllm.artifacts.storage_errors import storage_errors
from webllm.artifacts.store import default_root
from webllm.errors import ArtifactError, ConfigError

_T = TypeVar("_T")
_Write = tuple[FileIO, bytes, asyncio.Future[None]]  # the last: when it is written
_IS_WINDOWS = sys.platform == "win32"  # a user's folders are private; open files stay
_SUFFIX = ".session"
_FILE = re.compile(r"[0-9a-f]{64}\.session")
_PRIVATE_FOLDER, _PRIVATE_FILE = 0o700, 0o600
_OTHERS = 0o077  # what these forbid
_MAX_BYTES = 1 << 28  # of one session; far more than any context window needs
# Flags that open neither the target of a link nor wait for the other end of a pipe.
_AS_IT_IS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_LOCK_TRIES, _LOCK_PAUSE_S = 20, 0.001  # a process holds a lock briefly to see if it is free


class JournalFiles:
    """A `JournalStorage` in `root`; default: `sessions` in the folder of all that webllm stores.

    The folder is created with the first session. Every method raises ArtifactError
    (StorageFullError for a full disk), or ConfigError if the folder is another user's or has no
    locks.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = default_root() / "sessions" if root is None else root
        self._thread = _Threads(1)
        self._creators = _Threads(4)  # each waits for the disk, which serves them together
        self._creating: set[str] = set()

    async def create(self, name: str, data: bytes) -> FileWriter | None:
        """Writes a new file and flushes it to the disk; returns None if there is one."""
        path = self._path(name)
        self._creating.add(name)
        try:
            file = await self._creators.run(path, lambda: self._create(path, data), _remove)
        finally:
            self._creating.discard(name)
        return None if file is None else FileWriter(file, self._thread)

    async def reopen(self, name: str) -> FileWriter | None:
        """Owns a file; returns None if there is none, or if another has it open for writing."""
        path = self._path(name)
        file = await self._thread.run(path, lambda: self._take(path), _close)
        return None if file is None else FileWriter(file, self._thread)

    async def read(self, name: str) -> bytes | None:
        path = self._path(name)
        return await self._thread.run(path, lambda: self._read(path))

    async def is_owned(self, name: str) -> bool:
        path = self._path(name)
        if name in self._creating:
            return True
        return await self._thread.run(path, lambda: self._is_owned(path))

    async def delete(self, name: str) -> bool:
        """Deletes a file unless it has an owner; returns whether there is none now."""
        path = self._path(name)
        return await self._thread.run(path, lambda: self._delete(path))

    async def names(self) -> dict[str, float]:
        """Returns the time of the last change of each file, Unix time in seconds."""
        return await self._thread.run(self.root, self._names)

    def _path(self, name: str) -> Path:
        file = f"{name}{_SUFFIX}"
        assert _FILE.fullmatch(file), name
        return self.root / file

    def _create(self, path: Path, data: bytes) -> FileIO | None:
        self._make_folder()
        try:
            file = _open(path, os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return None
        is_anothers = False
        try:
            is_anothers = not (_lock_soon(file) and _is_at(file, path))
            if is_anothers:
                raise ArtifactError(f"another program holds or has deleted {path}; try again")
            _write(file, data)
            os.fsync(file.fileno())
            _sync_folder(self.root)
        except BaseException:
            if is_anothers:
                file.close()
            else:
                _remove(file)
            raise
        return file

    def _take(self, path: Path) -> FileIO | None:
        """Opens and locks a file; returns None if it is absent or has an owner."""
        while (file := self._opened(path)) is not None:
            with ExitStack() as unless_taken:
                unless_taken.callback(file.close)
                if not _lock_soon(file):
                    return None
                if _is_at(file, path):
                    unless_taken.pop_all()
                    return file
        return None

    def _read(self, path: Path) -> bytes | None:
        file = self._opened(path)
        if file is None:
            return None
        with file:
            if os.fstat(file.fileno()).st_size > _MAX_BYTES:
                raise ArtifactError(f"{path} has more than {_MAX_BYTES} bytes; remove it")
            return file.readall()

    def _is_owned(self, path: Path) -> bool:
        file = self._opened(path)
        if file is None:
            return False
        with file:
            return not try_lock(file)

    def _delete(self, path: Path) -> bool:
        file = self._take(path)
        if file is None:
            return not path.exists()
        _remove(file)
        return True

    def _names(self) -> dict[str, float]:
        changed = {}
        with suppress(FileNotFoundError):  # nothing was stored yet
            self._check_folder()
            for file in self.root.iterdir():
                if _FILE.fullmatch(file.name):
                    with suppress(FileNotFoundError):  # deleted meanwhile
                        status = file.lstat()
                        if stat.S_ISREG(status.st_mode):
                            changed[file.name.removesuffix(_SUFFIX)] = status.st_mtime
        return changed

    def _opened(self, path: Path) -> FileIO | None:
        """Opens an existing file and makes it private; returns None if it is absent."""
        try:
            self._check_folder()
            file = _open(path)
        except FileNotFoundError:
            return None
        try:
            if not _IS_WINDOWS and os.fstat(file.fileno()).st_mode & _OTHERS:
                os.fchmod(file.fileno(), _PRIVATE_FILE)
        except BaseException:
            file.close()
            raise
        return file

    def _make_folder(self) -> None:
        if not self.root.exists():
            self.root.mkdir(_PRIVATE_FOLDER, parents=True, exist_ok=True)
            _sync_folder(self.root.parent)
        self._check_folder()

    def _check_folder(self) -> None:
        """Makes the folder private; raises ConfigError if it is another user's."""
        if _IS_WINDOWS:
            return
        status = self.root.stat()
        if status.st_uid != os.geteuid():
            raise ConfigError(
                f"{self.root} belongs to another user (id {status.st_uid}), who could read what is "
                "asked and answered; set WEBLLM_HOME to a folder of your own"
            )
        if status.st_mode & _OTHERS:
            self.root.chmod(_PRIVATE_FOLDER)


class FileWriter:
    """The owner's open and locked file."""

    def __init__(self, file: FileIO, thread: _Threads) -> None:
        self._file, self._thread = file, thread

    async def append(self, data: bytes) -> None:
        await self._thread.write(self._file, data)

    async def cut(self, num_bytes: int) -> None:
        """Removes what follows the first `num_bytes` bytes."""
        await self._thread.run(self._file.name, lambda: self._file.truncate(num_bytes))

    async def close(self) -> None:
        """Closes the file, which ends the ownership; does nothing if it is closed."""
        await self._thread.run(self._file.name, self._file.close)


class _Threads:
    """Works on files beside the event loop: `num_calls` at a time, first come, first served."""

    def __init__(self, num_calls: int) -> None:
        self._executor = ThreadPoolExecutor(num_calls, "webllm-journal")
        self._writes: list[_Write] = []  # asked for since the event loop's last turn

    def write(self, file: FileIO, data: bytes) -> asyncio.Future[None]:
        """Appends data; writes that are asked for together take one call of the thread."""
        loop = asyncio.get_running_loop()
        written: asyncio.Future[None] = loop.create_future()
        self._writes.append((file, data, written))
        if len(self._writes) == 1:
            loop.call_soon(self._start_writes)
        return written

    def _start_writes(self) -> None:
        writes, self._writes = self._writes, []
        calls = [(file, data) for file, data, _ in writes]

        def finish(done: asyncio.Future[list[Exception | None]]) -> None:
            if done.cancelled():
                for *_, written in writes:
                    written.cancel()
                return
            for (*_, written), error in zip(writes, done.result(), strict=True):
                if written.cancelled():
                    continue
                if error is None:
                    written.set_result(None)
                else:
                    written.set_exception(error)

        loop = asyncio.get_running_loop()
        loop.run_in_executor(self._executor, _write_all, calls).add_done_callback(finish)

    async def run(
        self, place: object, work: Callable[[], _T], undo: Callable[[_T], None] | None = None
    ) -> _T:
        """Calls `work` to its end. If the caller is cancelled meanwhile, undoes it."""
        running = self.start(place, work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            while not running.done():  # also if it is cancelled again
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([running])
            if running.exception() is None and undo is not None:
                undo(running.result())
            raise

    def start(self, place: object, work: Callable[[], _T]) -> asyncio.Future[_T]:
        """Calls `work`, unless the future is cancelled before its turn."""

        def with_our_errors() -> _T:
            with storage_errors(place):
                return work()

        return asyncio.get_running_loop().run_in_executor(self._executor, with_our_errors)


def _write_all(writes: list[tuple[FileIO, bytes]]) -> list[Exception | None]:
    """Appends to files; returns the error of each."""
    errors: list[Exception | None] = []
    for file, data in writes:
        try:
            with storage_errors(file.name):
                _write(file, data)
            errors.append(None)
        except Exception as error:
            errors.append(error)
    return errors


def _open(path: Path, flags: int = 0) -> FileIO:
    """Opens a file to read and append. Raises ArtifactError for links, pipes and the like."""

    def opener(name: str, default_flags: int) -> int:
        flags_here = default_flags | os.O_APPEND | _AS_IT_IS | flags
        descriptor = os.open(name, flags_here, _PRIVATE_FILE)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _no_session(path)
        return descriptor

    try:
        return FileIO(str(path), "r+", opener=opener)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a pipe without a reader
            raise _no_session(path) from None
        raise


def _no_session(path: Path) -> ArtifactError:
    return ArtifactError(f"{path} is no file of a session; remove it")


def _write(file: FileIO, data: bytes) -> None:
    while data:
        data = data[file.write(data) :]


def _close(file: FileIO | None) -> None:
    if file is not None:
        file.close()


def _remove(file: FileIO | None) -> None:
    """Deletes an owned file and closes it."""
    if file is None:
        return
    path = Path(file.name)
    if _IS_WINDOWS:
        file.close()
    try:
        path.unlink(missing_ok=True)
    finally:
        file.close()


def _lock_soon(file: FileIO) -> bool:
    """Locks a file; waits for those that hold the lock for a moment only."""
    for _ in range(_LOCK_TRIES):
        if try_lock(file):
            return True
        time.sleep(_LOCK_PAUSE_S)
    return False


def _is_at(file: FileIO, path: Path) -> bool:
    """Returns whether `path` still names this file: it was open, but not locked, for a moment."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    """Makes new names in a folder durable."""
    if _IS_WINDOWS:  # its file systems do so by themselves
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
