"""The record of a source of several files: which they are, and where each comes from.

A store writes it before any of the files, so that whatever is stored of them can be found.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from webllm.artifacts.files import FileSpec
from webllm.artifacts.source import HTTPSource, HubSource, MemberSource, parse_source
from webllm.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a model; their names are relative to `root`."""

    source: str
    root: HTTPSource | HubSource  # a folder; of the hub at a commit, if that is known
    entry: str  # the name of the file at which the model begins
    files: tuple[FileSpec, ...]

    @property
    def members(self) -> list[MemberSource]:
        return [MemberSource(self.source, each, self.root.beside(each.name)) for each in self.files]

    @property
    def nbytes(self) -> int:
        """Bytes of all files together, of those whose size is known."""
        return sum(each.size or 0 for each in self.files)

    def outdated(self, newer: Manifest) -> list[MemberSource]:
        """Returns the members that are not those of a newer manifest of the same source.

        A file without a hash counts as another one if anything has changed.
        """
        if newer == self:
            return []
        same = {each for each in newer.files if each.sha256 or each.md5}
        return [each for each in self.members if each.file not in same]


def encode_manifest(manifest: Manifest) -> bytes:
    return msgspec.json.encode({**msgspec.to_builtins(manifest), "root": str(manifest.root)})


def decode_manifest(data: bytes, own_origin: str | None = None) -> Manifest | None:
    """Reads a manifest; None if it is damaged. own_origin: see `require_safe_url`."""
    try:
        plain = msgspec.json.decode(data, type=_Plain)
        root = parse_source(plain.root, own_origin)
    except (msgspec.MsgspecError, ConfigError):
        return None
    if not isinstance(root, HTTPSource | HubSource):
        return None
    return Manifest(plain.source, root, plain.entry, plain.files)


class _Plain(msgspec.Struct):
    source: str
    root: str
    entry: str
    files: tuple[FileSpec, ...]
