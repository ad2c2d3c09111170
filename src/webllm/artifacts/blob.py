"""A complete file of the directory store, and the checksums that notice when it is damaged.

sha256-…            the file, named by its hash
sha256-….xxh64      the checksum of each of its windows: 8 bytes each, little endian
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from webllm.artifacts.checksum import damaged_windows, file_checksums
from webllm.artifacts.destination import WINDOW_BYTES

_log = logging.getLogger(__name__)
_SUM_BYTES = 8


class Blob:
    """The blob with a hash in `folder`; it may not exist."""

    def __init__(self, folder: Path, sha256: str) -> None:
        self.sha256 = sha256
        self.path = folder / f"sha256-{sha256}"
        self._sums_path = folder / f"sha256-{sha256}.xxh64"

    def has_size(self, num_bytes: int) -> bool:
        """Returns whether the file exists and has this size."""
        try:
            return self.path.stat().st_size == num_bytes
        except OSError:
            return False

    def damaged_windows(self) -> list[int]:
        """Reads the file and returns its damaged windows.

        The checksums decide. Where they are missing or deny the file, its SHA-256 decides: if that
        is right, the checksums are written anew.
        """
        expected = self.checksums()
        if expected is not None:
            damaged = damaged_windows(self.path, expected)
            if not damaged:
                return []
        else:
            damaged = list(range(-(-self.path.stat().st_size // WINDOW_BYTES)))
        with self.path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != self.sha256:
                return damaged
        try:
            self.write_checksums(file_checksums(self.path))
        except OSError as error:  # a read-only store is verified by SHA-256 each time
            _log.info("the checksums of %s cannot be stored: %s", self.path, error)
        return []

    def checksums(self) -> list[int] | None:
        """Returns the stored checksums; None if there are none, or not one for each window."""
        try:
            stored = self._sums_path.read_bytes()
        except OSError:
            return None
        if len(stored) != -(-self.path.stat().st_size // WINDOW_BYTES) * _SUM_BYTES:
            return None
        starts = range(0, len(stored), _SUM_BYTES)
        return [int.from_bytes(stored[i : i + _SUM_BYTES], "little") for i in starts]

    def write_checksums(self, sums: Sequence[int]) -> None:
        write_whole(self._sums_path, b"".join(each.to_bytes(_SUM_BYTES, "little") for each in sums))

    def unlink(self) -> None:
        self.path.unlink(missing_ok=True)
        self._sums_path.unlink(missing_ok=True)


def write_whole(file: Path, data: bytes) -> None:
    """Writes a small file of which never a part is seen, even after a power cut."""
    new = file.with_suffix(".new")
    try:
        with new.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(new, file)
    except OSError:
        new.unlink(missing_ok=True)
        raise
