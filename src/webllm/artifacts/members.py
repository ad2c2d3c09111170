"""Fetches a source of several files into a store. Both hosts use it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from webllm.artifacts.manifest import Manifest
from webllm.artifacts.progress import ProgressReporter
from webllm.artifacts.source import MemberSource

File = TypeVar("File", covariant=True)


class MemberStore(Protocol[File]):
    """The files of one source in a store. Each method raises the errors of the store."""

    async def manifest(self) -> Manifest | None:
        """Returns which files there are; None if that is not known."""

    async def has(self) -> bool:
        """Returns whether all of them are stored."""

    def locked(self, reporter: ProgressReporter) -> AbstractAsyncContextManager[None]:
        """Excludes all others who fetch or delete the source."""

    async def find(self) -> Manifest:
        """Asks the source for its files; raises what `find_manifest` raises."""

    async def put(self, manifest: Manifest) -> None:
        """Enters the files, before the first of them is stored."""

    async def delete(self, member: MemberSource) -> None:
        """Deletes what is stored of a file, if anything is."""

    async def ensure(self, member: MemberSource, reporter: ProgressReporter) -> File:
        """Returns a file, fetching what is missing of it; raises what `download` raises."""


async def ensure_members(
    store: MemberStore[File], source: object, reporter: ProgressReporter
) -> tuple[Manifest, dict[str, File]]:
    """Returns the files of a source by their names, fetching those that are not stored.

    Raises what the methods of the store raise. Then what was fetched stays for the next attempt.
    """
    manifest = await store.manifest()
    if manifest is None or not await store.has():
        async with store.locked(reporter):
            manifest = await store.manifest()
            if manifest is None or not await store.has():  # another may have been first
                reporter.update(f"Looking up {source}")
                manifest = await _begin(store, manifest)
            return manifest, await _ensure_each(store, manifest, reporter)
    return manifest, await _ensure_each(store, manifest, reporter)


async def _begin(store: MemberStore[File], earlier: Manifest | None) -> Manifest:
    """Enters the files that there are now; deletes others that an earlier attempt has fetched."""
    manifest = await store.find()
    for member in earlier.outdated(manifest) if earlier else ():
        await store.delete(member)
    await store.put(manifest)
    return manifest


async def _ensure_each(
    store: MemberStore[File], manifest: Manifest, reporter: ProgressReporter
) -> dict[str, File]:
    files, before_bytes = {}, 0
    for member in manifest.members:
        reporter.begin_file(before_bytes, manifest.nbytes)
        files[member.file.name] = await store.ensure(member, reporter)
        before_bytes += member.file.size or 0
    return files
