"""A partly downloaded file: its bytes so far, their hash, and the version they belong to."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

from webllm.artifacts.destination import RemoteVersion
from webllm.artifacts.storage_errors import FULL
from webllm.errors import StorageFullError

_CHUNK_BYTES = 1 << 20


class PartialFile:
    """The bytes at `path`, and a note beside it with their remote version.

    The note is written before the first byte, so bytes without a note are never resumed. There is
    one writer at a time: it holds the store's lock for the source.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.version = RemoteVersion()
        self.num_bytes = 0
        self._note = path.with_suffix(".json")
        self._hash = hashlib.sha256()
        self._file = path.open("ab", buffering=0)

    def recover(self) -> None:
        """Resumes the bytes of an earlier attempt and hashes them; starts empty without a note."""
        try:
            version = RemoteVersion(**json.loads(self._note.read_bytes()))
        except (OSError, ValueError, TypeError):
            self.restart(RemoteVersion())
            return
        with self.path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                self._hash.update(chunk)
                self.num_bytes += len(chunk)
        self.version = version

    def restart(self, version: RemoteVersion) -> None:
        """Deletes all bytes; later ones belong to `version`."""
        self._file.truncate(0)
        self._hash = hashlib.sha256()
        self.num_bytes = 0
        self.version = version
        self._note.write_text(json.dumps(asdict(version)))

    def append(self, chunk: bytes) -> None:
        """Writes and hashes more bytes; raises StorageFullError if the disk is full."""
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise StorageFullError(
                f"the disk filled up after {self.num_bytes} bytes of {self.path}; free some space, "
                "then try again: the download resumes"
            ) from error
        self._hash.update(chunk)
        self.num_bytes += len(chunk)

    def hexdigest(self) -> str:
        """SHA-256 of all bytes so far."""
        return self._hash.hexdigest()

    def sync(self) -> None:
        """Flushes all bytes to the disk, so that a rename is never more durable than they are."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file; its bytes and note stay for the next attempt."""
        self._file.close()

    def drop(self) -> None:
        """Deletes the bytes and the note."""
        self.close()
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
