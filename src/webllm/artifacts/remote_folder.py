"""The folder of a model on a site or on the hub, before its files are fetched."""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from webllm.artifacts.destination import PART_BYTES, Chunk, RemoteVersion
from webllm.artifacts.download import Client, download
from webllm.artifacts.files import FileSpec
from webllm.artifacts.manifest import Manifest
from webllm.artifacts.needed import find_entry, is_entry, needed, quantized
from webllm.artifacts.progress import Phase, ProgressReporter
from webllm.artifacts.response_head import BrokenError
from webllm.artifacts.retry import RetryPolicy
from webllm.artifacts.source import HTTPSource, HubSource
from webllm.artifacts.transfer import RemoteFile, Transfer
from webllm.errors import ModelNotFoundError

Locate = Callable[[HTTPSource | HubSource], RemoteFile]  # knows mirrors and tokens


class RemoteFolder:
    """A folder on a site or the hub; see `Folder` for its members.

    Without a list of its files, the server is asked for each. One that arrives as a web page counts
    as absent, because some sites answer every path with a page.
    """

    def __init__(
        self,
        root: HTTPSource | HubSource,
        client: Client,
        locate: Locate,
        retry: RetryPolicy,
        listed: Mapping[str, FileSpec] | None = None,
    ) -> None:
        self.root = root
        self._client, self._locate, self._retry = client, locate, retry
        self._listed = listed
        self._asked: dict[str, FileSpec | None] = {}

    def __str__(self) -> str:
        return str(self.root)

    async def names(self) -> Sequence[str] | None:
        return None if self._listed is None else sorted(self._listed)

    async def find(self, name: str) -> FileSpec | None:
        if self._listed is not None:
            return self._listed.get(name)
        if name not in self._asked:
            self._asked[name] = await self._ask(name)
        return self._asked[name]

    async def load(self, name: str) -> bytes | None:
        if await self.find(name) is None:
            return None
        file = self._locate(self.root.beside(name))
        return await load_document(file, self._client, self._retry)

    async def _ask(self, name: str) -> FileSpec | None:
        """Requests a file, and leaves its body."""
        file = self._locate(self.root.beside(name))
        transfer = Transfer(file, PART_BYTES, self._retry, cors=self._client.cors)
        span = transfer.stream()
        assert span is not None
        while True:
            try:
                async with self._client.get(file.url, file.headers) as response:
                    head = response.head
                    if head.status == 403 and isinstance(self.root, HTTPSource):
                        return None  # as S3 says that there is no such file
                    version = transfer.accept(span, head)
                    if head.headers.get("content-type", "").startswith("text/html"):
                        return None
                    return FileSpec(name, version.size if version else None)
            except ModelNotFoundError:
                return None
            except BrokenError as broken:
                await asyncio.sleep(transfer.failed(span, broken))


async def load_document(file: RemoteFile, client: Client, retry: RetryPolicy) -> bytes:
    """Downloads a small file into memory; raises what `download` raises."""
    memory = _Memory()
    await download(file, client, memory, ProgressReporter(None, Phase.FETCH), retry)
    return b"".join(memory.parts[part] for part in sorted(memory.parts))


class _Memory:
    """A `Destination`."""

    part_bytes = PART_BYTES

    def __init__(self) -> None:
        self.parts: dict[int, bytes] = {}

    async def recover(self) -> tuple[RemoteVersion, set[int]]:
        return RemoteVersion(), set()

    async def restart(self, version: RemoteVersion) -> None:
        self.parts = {}

    async def require_space(self, num_bytes: int) -> None:
        """Does nothing: documents are small."""

    async def put(self, part: int, chunks: Sequence[Chunk]) -> None:
        self.parts[part] = b"".join(map(bytes, chunks))

    async def read(self, part: int) -> bytes | None:
        return self.parts.get(part)

    async def keep(self, version: RemoteVersion, sha256: str) -> None:
        """Does nothing: the parts are complete."""

    async def drop(self) -> None:
        self.parts = {}


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a repository of the hub at one commit, by their paths."""

    commit: str
    files: Mapping[str, FileSpec]

    def folder(self, source: HubSource) -> tuple[HubSource, dict[str, FileSpec]]:
        """Returns the source's folder at the commit, and the files in it by their names there.

        Names that would lead out of the folder are left out.
        """
        root = replace(source.beside(""), revision=self.commit)
        found = {}
        for path, file in self.files.items():
            name = path.removeprefix(root.filename)
            is_inside = not ({"", ".", ".."} & set(name.split("/")) or "\\" in name)
            if path.startswith(root.filename) and is_inside:
                found[name] = replace(file, name=name)
        return root, found


async def find_manifest(
    source: HTTPSource | HubSource, folders: Sequence[RemoteFolder]
) -> Manifest:
    """Finds the files of a source in the first of `folders` that has its model.

    Raises ModelNotFoundError if none has one, or a file of it is missing, CheckpointError for a
    document that is malformed, FetchError.
    """
    first, *others = folders
    try:
        return await _manifest(source, first)
    except ModelNotFoundError:
        for folder in others:
            with suppress(ModelNotFoundError):
                return await _manifest(source, folder)
        raise


async def _manifest(source: HTTPSource | HubSource, folder: RemoteFolder) -> Manifest:
    if isinstance(source, HubSource) and source.quantization is not None:
        entry = quantized(str(folder), await folder.names() or (), source.quantization)
    elif is_entry(source.filename):
        entry = posixpath.basename(source.filename)
    else:
        entry = await find_entry(folder)
    return Manifest(str(source), folder.root, entry, tuple(await needed(entry, folder)))
