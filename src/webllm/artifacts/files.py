"""The files of one model, by their names: what to fetch, and how to read what is there.

A name is a path relative to the model's folder, with slashes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from webllm.artifacts.checkpoint import RawBytes

Span = tuple[int, int]  # start and end, in bytes


@dataclass(frozen=True, slots=True)
class FileSpec:
    """A file of a model, with its size and hashes as far as they are known beforehand."""

    name: str
    size: int | None = None  # bytes
    sha256: str | None = None  # in hex
    md5: str | None = None  # in hex
    is_optional: bool = False  # whether a model without it is whole


class Folder(Protocol):
    """The place of a model's files before they are fetched: a folder, a site, a repository."""

    def __str__(self) -> str:
        """Returns the place, for people."""

    async def load(self, name: str) -> bytes | None:
        """Returns a small document; None if there is no such file."""

    async def find(self, name: str) -> FileSpec | None:
        """Returns what is known of a file without fetching it; None if there is no such file."""

    async def names(self) -> Sequence[str] | None:
        """Returns the names of all files, sorted; None for a site, which does not list them."""


class Files(Protocol):
    """The open files of one model. All methods raise KeyError for a name that is not in `names`."""

    @property
    def names(self) -> Collection[str]: ...

    def place(self, name: str) -> str:
        """Returns the path or URL of a file, for people."""

    def size(self, name: str) -> int:
        """Returns the bytes of a file."""

    async def load(self, name: str) -> bytes:
        """Returns a small file, whole."""

    async def peek(self, name: str, start: int, num_bytes: int) -> bytes:
        """Returns part of a file, or less at its end, to be parsed in Python."""

    async def read(self, name: str, start: int, num_bytes: int) -> RawBytes:
        """Reads part of a file for a device; in a browser the bytes never enter Python."""

    async def gather(self, name: str, spans: Sequence[Span]) -> list[bytes]:
        """Returns the bytes of small spans from all over a file."""

    def close(self) -> None:
        """Closes the files; does nothing if they are closed. Natively views stay valid."""
