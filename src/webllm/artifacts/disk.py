"""What a disk refuses, as errors that name the folder and the way out."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from webllm.errors import ArtifactError, ConfigError, StorageFullError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turns an OSError of file work below `folder` into one of ours.

    Raises StorageFullError for a full disk, ConfigError where the user may not read or write,
    ArtifactError for anything else, such as a disk that fails.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or isinstance(error, ConnectionError | TimeoutError):
            raise  # not of a file
        name = error.filename or folder
        if error.errno in _FULL:
            raise StorageFullError(
                f"the disk of {folder} is full; free some space, or set WEBLLM_HOME to a folder on "
                "another disk, then fetch again"
            ) from error
        if error.errno in _NOT_OURS:
            raise ConfigError(
                f"{name} cannot be used ({error.strerror}); set WEBLLM_HOME to a folder that this "
                "user can read and write"
            ) from error
        raise ArtifactError(
            f"{name} cannot be read or written ({error.strerror}); check the disk, or set "
            "WEBLLM_HOME to another folder"
        ) from error
