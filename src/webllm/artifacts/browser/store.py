"""Model files in a browser's store: parts of equal size, and a note that describes them.

    <name>.note      size, version on the server, and SHA-256 once the file is complete
    <name>.00000 …   the parts

The hash is written last; a file without it counts as absent, and its parts let the next download
resume. A complete file is one Blob made of its parts without copying.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from js import Blob
from pyodide.ffi import to_js

from webllm.artifacts.browser.blobs import BlobStore, done
from webllm.artifacts.destination import RemoteVersion
from webllm.errors import ArtifactError

PART_BYTES = 4 << 20
_Count = Annotated[int, msgspec.Meta(ge=0)]


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """The file that the parts belong to."""

    size: _Count | None
    part_bytes: Annotated[int, msgspec.Meta(gt=0)]
    sha256: str | None
    etag: str | None = None
    last_modified: str | None = None


class ModelFiles:
    """Model files by name, stored in `blobs`."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    async def find(self, name: str) -> Any | None:
        """Returns the file as a Blob; None if it is absent or incomplete."""
        note = await read_note(self._blobs, name)
        if note is None or note.size is None or note.sha256 is None:
            return None
        num_parts = -(-note.size // note.part_bytes)
        if len(await self._blobs.keys(f"{name}.")) < num_parts:
            return None
        parts = await asyncio.gather(
            *(self._blobs.get(_part_key(name, part)) for part in range(num_parts))
        )
        blob = _joined([part for part in parts if part is not None])
        return blob if blob.size == note.size else None

    async def delete(self, name: str) -> None:
        """Deletes a file and any partial download of it; does nothing if there is none."""
        await self._blobs.delete(f"{name}.note")  # first: parts without a note count as absent
        for key in await self._blobs.keys(f"{name}."):
            await self._blobs.delete(key)

    def incoming(self, name: str) -> Incoming:
        """Returns a file to download into; the caller holds the lock for its name."""
        return Incoming(self._blobs, name)


class Incoming:
    """A file that is being downloaded. Every part but the last has PART_BYTES."""

    def __init__(self, blobs: BlobStore, name: str) -> None:
        self._blobs, self._name = blobs, name
        self.version = RemoteVersion()
        self.parts: set[int] = set()

    @property
    def num_bytes(self) -> int:
        """Bytes in the stored parts."""
        size = self.version.size
        return sum(PART_BYTES if size is None else part_size(size, part) for part in self.parts)

    async def recover(self) -> None:
        """Resumes an earlier download: reads its note and the set of its parts."""
        note = await read_note(self._blobs, self._name)
        if note is None or note.size is None or note.part_bytes != PART_BYTES:
            await self.restart(RemoteVersion())
            return
        self.version = RemoteVersion(note.etag, note.last_modified, note.size)
        prefix = f"{self._name}."
        ends = {key.removeprefix(prefix) for key in await self._blobs.keys(prefix)}
        self.parts = {int(end) for end in ends if end.isdecimal()}

    async def restart(self, version: RemoteVersion) -> None:
        """Deletes all parts; later ones belong to `version`."""
        await ModelFiles(self._blobs).delete(self._name)
        self.version, self.parts = version, set()
        await self._write_note(None)

    async def put(self, part: int, chunks: list[Any]) -> None:
        """Stores a part from its `chunks`, Uint8Arrays."""
        await self._blobs.put(_part_key(self._name, part), _joined(chunks))
        self.parts.add(part)

    async def get(self, part: int) -> Any | None:
        """Returns a part as a Blob; None if it is absent or has another size than it should."""
        blob = await self._blobs.get(_part_key(self._name, part))
        size = self.version.size
        if blob is None or size is None or blob.size != part_size(size, part):
            self.parts.discard(part)
            return None
        return blob

    async def keep(self, size: int, sha256: str) -> None:
        """Marks the file as complete, so that `ModelFiles.find` returns it."""
        self.version = RemoteVersion(self.version.etag, self.version.last_modified, size)
        await self._write_note(sha256)

    async def drop(self) -> None:
        await ModelFiles(self._blobs).delete(self._name)

    async def _write_note(self, sha256: str | None) -> None:
        note = Note(
            size=self.version.size,
            part_bytes=PART_BYTES,
            sha256=sha256,
            etag=self.version.etag,
            last_modified=self.version.last_modified,
        )
        text = msgspec.json.encode(note).decode()
        await self._blobs.put(f"{self._name}.note", Blob.new(to_js([text])))


async def read_note(blobs: BlobStore, name: str) -> Note | None:
    """Reads a note; None if it is absent, damaged, or being replaced by another tab."""
    blob = await blobs.get(f"{name}.note")
    if blob is None:
        return None
    try:
        return msgspec.json.decode(await done(blob, "text"), type=Note)
    except (msgspec.DecodeError, ArtifactError):
        return None


def part_size(size: int, part: int) -> int:
    """Bytes in one part of a file of `size` bytes."""
    return max(0, min(PART_BYTES, size - part * PART_BYTES))


def _part_key(name: str, part: int) -> str:
    return f"{name}.{part:05}"


def _joined(pieces: list[Any]) -> Any:
    return Blob.new(to_js(pieces))
