"""Where a download goes: the parts of one file, stored one by one, in a folder or a browser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

PART_BYTES = 4 << 20  # stored, and fetched again, as one
WINDOW_BYTES = 2 << 20  # read as one, and verified by a checksum; a part has two


@dataclass(frozen=True, slots=True)
class RemoteVersion:
    """The version of a file on a server, from the headers of a response."""

    etag: str | None = None
    last_modified: str | None = None
    size: int | None = None  # bytes of the whole file

    @property
    def identified(self) -> bool:
        """Whether this version can be distinguished from another one."""
        return self.etag is not None or self.last_modified is not None

    def same_as(self, other: RemoteVersion) -> bool:
        """Returns whether both are known to be the same version."""
        if self.etag is not None and other.etag is not None:
            return self.etag == other.etag and self.size == other.size
        return self.last_modified is not None and self == other


class Chunk(Protocol):
    """Received bytes: `bytes`, or a view of a browser's Uint8Array, which stays in JavaScript."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice, /) -> Self: ...

    def __bytes__(self) -> bytes: ...


class Destination(Protocol):
    """The parts of one file, of PART_BYTES each except for the last, and a note of their version.

    The owner holds the lock of the file's name. Whatever ends it, even in the middle of a call,
    every part is stored whole or counts as absent. Methods raise StorageFullError where space runs
    out, ArtifactError for any other failure of the store.
    """

    part_bytes: int  # PART_BYTES, or less in tests

    async def recover(self) -> tuple[RemoteVersion, set[int]]:
        """Returns what an earlier attempt stored: the version and the parts; maybe nothing."""

    async def restart(self, version: RemoteVersion) -> None:
        """Deletes all parts; later ones belong to `version`."""

    async def require_space(self, num_bytes: int) -> None:
        """Raises StorageFullError if it is known that `num_bytes` more do not fit."""

    async def put(self, part: int, chunks: Sequence[Chunk]) -> None:
        """Stores a part, and the checksum of each of its windows."""

    async def read(self, part: int) -> bytes | None:
        """Returns a stored part; None if it is absent or damaged: then it is to be put again."""

    async def keep(self, version: RemoteVersion, sha256: str) -> None:
        """Marks the file as complete; `version` has its size, and `sha256` is its hash in hex."""

    async def drop(self) -> None:
        """Deletes the parts and the note; `restart` may follow."""
