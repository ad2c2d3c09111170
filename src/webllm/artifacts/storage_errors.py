"""Turns errors of a disk into ours."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from webllm.errors import ArtifactError, StorageFullError

FULL = (errno.ENOSPC, errno.EDQUOT)
ANOTHER_HOME = "set WEBLLM_HOME to a folder on another disk"


@contextmanager
def storage_errors(place: object, advice: str | None = None) -> Iterator[None]:
    """Raises StorageFullError for a full disk, ArtifactError for any other error of a disk.

    `place` is named if the error names no file. `advice` ends the message: an additional way out.
    """
    try:
        yield
    except ConnectionError:  # from a progress callback that writes to a pipe or socket
        raise
    except OSError as error:
        where, reason = error.filename or place, error.strerror or str(error)
        if error.errno in FULL:
            raise StorageFullError(
                f"the disk of {where} is full ({reason}); free some space, or "
                f"{advice or ANOTHER_HOME}"
            ) from error
        raise ArtifactError(
            f"{where} cannot be read or written: {reason}; check its permissions, or "
            f"{advice or 'set WEBLLM_HOME to a folder of your own'}"
        ) from error


def require_space(folder: Path, num_bytes: int, what: object, advice: str = ANOTHER_HOME) -> None:
    """Raises StorageFullError unless `num_bytes` more fit on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise StorageFullError(
            f"{what} needs {num_bytes} bytes more, but {folder} has {free} bytes free; "
            f"free some space, or {advice}"
        )
