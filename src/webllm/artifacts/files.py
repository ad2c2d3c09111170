"""The files of a model before they are fetched. `checkpoint.Files` are the open ones.

A name is a path relative to the model's folder, with slashes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


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
