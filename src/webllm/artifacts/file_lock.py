"""A lock between processes, held through an open file; the system releases it on exit."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from webllm.errors import ConfigError

if sys.platform == "win32":
    import msvcrt

    _LOCKED_BYTE = 2**31 - 2  # beyond the end of the file: nobody can read or write a locked byte

    def _lock(file: BinaryIO) -> None:
        file.seek(_LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def try_lock(file: BinaryIO) -> bool:
    """Locks an open file until it is closed, if the lock is free; returns whether it did.

    Raises ConfigError where the file system has no locks (some network shares).
    """
    try:
        _lock(file)
    except (BlockingIOError, PermissionError):  # held by another
        return False
    except OSError as error:
        raise ConfigError(
            f"{file.name} cannot be locked ({error.strerror}); "
            "set WEBLLM_HOME to a folder on a local disk"
        ) from error
    return True


class FileLock:
    """Excludes other processes, threads and tasks that lock the same path.

    The file is never removed: while a second process waits for it, a third one could lock a new
    file of the same name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def try_acquire(self) -> bool:
        """Takes the lock if it is free; returns whether it did.

        Raises ConfigError where the file system has no locks (some network shares).
        """
        file = self._path.open("ab")
        try:
            if try_lock(file):
                self._file = file
        finally:
            if self._file is not file:
                file.close()
        return self._file is file

    def release(self) -> None:
        """Releases the lock by closing its file; does nothing if it is not held."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        while not self.try_acquire():
            time.sleep(0.01)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
