"""What a disk refuses, as errors of ours."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from webllm.errors import ArtifactError, StorageFullError

FULL = (errno.ENOSPC, errno.EDQUOT)
_ANOTHER_HOME = "set WEBLLM_HOME to a folder on another disk"


@contextmanager
def storage_errors(place: object, advice: str = _ANOTHER_HOME) -> Iterator[None]:
    """Raises StorageFullError for a full disk, ArtifactError for any other OSError.

    place: named where the error names no file; advice: the way out, besides the obvious one.
    """
    try:
        yield
    except OSError as error:
        where, reason = error.filename or place, error.strerror or str(error)
        if error.errno in FULL:
            raise StorageFullError(
                f"the disk of {where} is full ({reason}); free some space, or {advice}"
            ) from error
        raise ArtifactError(
            f"{where} cannot be read or written: {reason}; check its permissions, or {advice}"
        ) from error
