"""The files of a user's daemon, in a folder that is closed to everybody else."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from webllm.artifacts.file_lock import FileLock
from webllm.errors import ConfigError
from webllm.workers.unix_socket import check_path, no_unix_sockets

_MAX_LOG_BYTES = 1 << 20
_OTHERS = 0o077  # permissions of the group and of all


@dataclass(frozen=True, slots=True)
class DaemonFiles:
    """`folder` exists, belongs to this user and is open to nobody else."""

    folder: Path

    @classmethod
    def find(cls) -> DaemonFiles:
        """Makes the folder if there is none.

        It is `WEBLLM_RUNTIME_DIR`, `webllm` in `XDG_RUNTIME_DIR`, or `webllm-<user id>` in the
        system's folder for temporary files. Raises ConfigError if it is not this user's alone.
        """
        if sys.platform == "win32":
            raise no_unix_sockets()
        files = cls(_folder())
        check_path(files.socket)
        try:
            files.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_owner(files.folder)
        except OSError as error:
            raise ConfigError(
                f"{files.folder} cannot be used for the shared engine ({error.strerror}); set "
                "WEBLLM_RUNTIME_DIR to a folder of your own"
            ) from error
        return files

    @property
    def socket(self) -> Path:
        return self.folder / "daemon.sock"

    @property
    def log(self) -> Path:
        """What the daemon printed."""
        return self.folder / "daemon.log"

    def lock(self) -> FileLock:
        """The daemon holds it for as long as it lives."""
        return FileLock(self._lock_file)

    def starting_lock(self) -> FileLock:
        """A program holds it while it starts the daemon."""
        return FileLock(self.folder / "starting.lock")

    def write_pid(self) -> None:
        """Records this process, which holds the lock, in the lock's file."""
        self._lock_file.write_text(f"{os.getpid()}\n")

    def read_pid(self) -> int | None:
        """Returns the process id of the daemon that lives, or None."""
        lock = self.lock()
        if lock.try_acquire():
            lock.release()
            return None
        try:
            return int(self._lock_file.read_text())
        except (OSError, ValueError):
            return None  # it has just been started

    def trim_log(self) -> None:
        """Empties a log that has grown large."""
        if self.log.exists() and self.log.stat().st_size > _MAX_LOG_BYTES:
            os.truncate(self.log, 0)

    @property
    def _lock_file(self) -> Path:
        return self.folder / "daemon.lock"


def _folder() -> Path:
    if folder := os.environ.get("WEBLLM_RUNTIME_DIR"):
        return Path(folder).absolute()
    if folder := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(folder, "webllm").absolute()
    return Path(tempfile.gettempdir(), f"webllm-{_user_id()}").absolute()


def _check_owner(folder: Path) -> None:
    """Raises ConfigError for a folder that others own or may enter, and for a symbolic link."""
    found = folder.lstat()
    why = None
    if not stat.S_ISDIR(found.st_mode):
        why = "is no folder"
    elif found.st_uid != _user_id():
        why = f"belongs to the user {found.st_uid}, and you are {_user_id()}"
    elif found.st_mode & _OTHERS:
        why = f"is open to other users (mode {stat.S_IMODE(found.st_mode):o})"
    if why is not None:
        raise ConfigError(
            f"{folder} {why}, so that others could use or read your engine; `chmod 700` your own "
            "folder, or set WEBLLM_RUNTIME_DIR to another one"
        )


def _user_id() -> int:
    assert sys.platform != "win32"
    return os.getuid()
