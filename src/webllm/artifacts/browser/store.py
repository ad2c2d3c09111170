"""Model files in a browser's store: parts of equal size, and a note that describes them.

    <name>.note      size, version on the server, and SHA-256 once the file is complete
    <name>.00000 …   the parts

The hash is written last; a file without it counts as absent, and its parts let the next download
resume. A complete file is one Blob made of its parts without copying.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

import msgspec
from js import Blob
from pyodide.ffi import to_js

from webllm.artifacts.browser.blobs import BlobStore, done
from webllm.artifacts.browser.promises import settled
from webllm.artifacts.destination import PART_BYTES, RemoteVersion
from webllm.errors import ArtifactError, StorageFullError

RequireSpace = Callable[[int], Awaitable[None]]
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

    def incoming(self, name: str, require_space: RequireSpace | None = None) -> Incoming:
        """Returns a file to download into; the caller holds the lock for its name."""
        return Incoming(self._blobs, name, require_space)


class Incoming:
    """A `Destination` in a browser's store."""

    part_bytes = PART_BYTES

    def __init__(self, blobs: BlobStore, name: str, require_space: RequireSpace | None) -> None:
        self._blobs, self._name, self._require_space = blobs, name, require_space
        self._version = RemoteVersion()

    async def recover(self) -> tuple[RemoteVersion, set[int]]:
        note = await read_note(self._blobs, self._name)
        if note is None or note.size is None or note.part_bytes != PART_BYTES:
            return RemoteVersion(), set()
        self._version = RemoteVersion(note.etag, note.last_modified, note.size)
        prefix = f"{self._name}."
        ends = {key.removeprefix(prefix) for key in await self._blobs.keys(prefix)}
        return self._version, {int(end) for end in ends if end.isdecimal()}

    async def restart(self, version: RemoteVersion) -> None:
        await self.drop()
        self._version = version
        await self._write_note(version, None)

    async def require_space(self, num_bytes: int) -> None:
        if self._require_space is not None:
            try:
                await self._require_space(num_bytes)
            except StorageFullError:
                await self.drop()
                raise

    async def put(self, part: int, chunks: Sequence[Any]) -> None:
        try:
            blob = _joined([chunk.array for chunk in chunks])
            await self._blobs.put(_part_key(self._name, part), blob)
        except StorageFullError:
            await self.drop()  # a site has no other way to free the space
            raise

    async def read(self, part: int) -> bytes | None:
        blob = await self._blobs.get(_part_key(self._name, part))
        size = self._version.size
        if blob is None or size is None or blob.size != part_size(size, part):
            return None
        data: bytes = (await settled(blob.arrayBuffer())).to_bytes()
        return data

    async def keep(self, version: RemoteVersion, sha256: str) -> None:
        await self._write_note(version, sha256)

    async def drop(self) -> None:
        await ModelFiles(self._blobs).delete(self._name)

    async def _write_note(self, version: RemoteVersion, sha256: str | None) -> None:
        note = Note(
            size=version.size,
            part_bytes=PART_BYTES,
            sha256=sha256,
            etag=version.etag,
            last_modified=version.last_modified,
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
