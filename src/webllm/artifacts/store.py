"""A folder of model files, each stored once under its hash, with an index from source to hash.

    blobs/…             complete files and their checksums; see `blob`
    index/….json        one entry per file: its source, its blob's hash and size, its version
    sets/….json         one manifest per source of several files, each of which has an entry
    partial/…           downloads in progress; see `partial`
    locks/…             one per source that was ever fetched, and one for the index

Several processes may use one folder. The store knows nothing of networks.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from webllm.artifacts.blob import Blob, write_whole
from webllm.artifacts.destination import PART_BYTES, WINDOW_BYTES, RemoteVersion
from webllm.artifacts.file_lock import FileLock
from webllm.artifacts.manifest import Manifest, decode_manifest, encode_manifest
from webllm.artifacts.partial import PartialFile
from webllm.artifacts.source import RemoteSource, StoredSource
from webllm.artifacts.storage_errors import storage_errors
from webllm.errors import ArtifactError, ConfigError, ModelNotFoundError

_log = logging.getLogger(__name__)
_WINDOWS = PART_BYTES // WINDOW_BYTES  # of a part


@dataclass(frozen=True, slots=True)
class StoreEntry:
    """One file in the index, its blob, and the version that the server named."""

    source: str
    sha256: str
    size_bytes: int
    etag: str | None = None
    last_modified: str | None = None


class StoredModel(NamedTuple):
    """A source in the store, and the bytes of its files together."""

    source: str
    size_bytes: int


def default_root() -> Path:
    """Returns the folder named by `WEBLLM_HOME`, or else `webllm` in the user's cache folder."""
    home = os.environ.get("WEBLLM_HOME")
    if home:
        return Path(home).expanduser()
    try:
        import platformdirs
    except ImportError:
        raise ConfigError(
            "cannot choose a folder for models without platformdirs; "
            "install webllm[native], or set WEBLLM_HOME to a folder"
        ) from None
    return Path(platformdirs.user_cache_dir("webllm"))


class DirectoryStore:
    """The store in folder `root` (default: `default_root()`), created if it does not exist."""

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self.root = Path(root) if root is not None else default_root()
        try:
            for name in ("blobs", "index", "sets", "partial", "locks"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cannot store models in {self.root} ({error.strerror}); "
                "set WEBLLM_HOME to a folder that can be written"
            ) from error

    def has(self, source: StoredSource) -> bool:
        """Returns whether all files of `source` are stored, complete."""
        manifest = self.manifest(source)
        if manifest is not None:
            return all(self._find(member) is not None for member in manifest.members)
        return self._find(source) is not None

    def manifest(self, source: StoredSource) -> Manifest | None:
        """Returns the files of a source of several; None if it is not known which they are."""
        return self._read_manifest(self._manifest_file(source))

    def put_manifest(self, source: StoredSource, manifest: Manifest) -> None:
        """Enters the files of a source, before the first of them is stored."""
        with storage_errors(self.root):
            write_whole(self._manifest_file(source), encode_manifest(manifest))

    def models(self) -> list[StoredModel]:
        """Returns all complete models in order; two of them may share blobs."""
        entries = {entry.source: entry.size_bytes for entry in self.entries()}
        found = []
        for manifest in filter(None, map(self._read_manifest, self._manifest_files())):
            sizes = [entries.pop(str(member), None) for member in manifest.members]
            if None not in sizes:
                found.append(StoredModel(manifest.source, sum(filter(None, sizes))))
        return sorted(found + [StoredModel(*each) for each in entries.items()])

    def path(self, source: StoredSource) -> Path:
        """Returns the only file of `source`; raises ModelNotFoundError if it is not stored."""
        entry = self._find(source)
        if entry is None:
            raise ModelNotFoundError(f"{source} is not in the store {self.root}; download it first")
        return self._blob(entry.sha256).path

    def entries(self) -> list[StoreEntry]:
        """Returns all stored files in order; two of them may share one blob.

        An index file that cannot be read is skipped with a warning.
        """
        found: list[StoreEntry] = []
        for file in self._index_files():
            try:
                entry = self._read(file)
            except ArtifactError as error:
                _log.warning("one model is not listed: %s", error)
                continue
            if entry is not None:
                found.append(entry)
        return sorted(found, key=lambda entry: entry.source)

    def damaged_parts(self, source: StoredSource) -> list[int] | None:
        """Reads the file of `source` and returns its damaged parts; None if it is not stored."""
        with storage_errors(self.root):
            entry = self._find(source)
            if entry is None:
                return None
            try:
                windows = self._blob(entry.sha256).damaged_windows()
            except FileNotFoundError:  # another process repairs or deletes it
                return None
        return sorted({window // _WINDOWS for window in windows})

    def put(
        self,
        source: StoredSource,
        file: Path,
        sha256: str,
        version: RemoteVersion,
        checksums: Sequence[int],
    ) -> None:
        """Moves `file`, whose SHA-256 has been verified, into the store as the file of `source`.

        `checksums` has one for each of its windows.
        """
        blob = self._blob(sha256)
        size_bytes = file.stat().st_size
        entry = StoreEntry(str(source), sha256, size_bytes, version.etag, version.last_modified)
        with storage_errors(self.root), self._index_lock():
            self._write(source, entry)  # first, because an entry without a blob counts as absent
            blob.write_checksums(checksums)
            try:
                os.replace(file, blob.path)  # the one of another source may be damaged
            except PermissionError:
                if not blob.has_size(size_bytes):
                    raise
                _log.info("%s is in use (Windows) and stays", blob.path)

    def adopt(self, source: StoredSource, sha256: str) -> Path | None:
        """Adds `source` to the index if an undamaged blob with its hash is stored.

        Returns the blob's file, or None.
        """
        if all(entry.sha256 != sha256 for entry in self.entries()):
            return None
        blob = self._blob(sha256)
        with storage_errors(self.root), suppress(FileNotFoundError):
            if blob.damaged_windows():
                _log.warning("%s is damaged, so %s does not share it", blob.path, source)
                return None
            with self._index_lock():
                size_bytes = blob.path.stat().st_size
                self._write(source, StoreEntry(str(source), sha256, size_bytes))
            return blob.path
        return None

    def reopen(self, source: StoredSource, damaged: Collection[int]) -> None:
        """Makes the file of `source` a partial download that lacks the damaged parts.

        The caller holds `lock(source)`. Other sources of the same file lose it until it is whole.
        """
        with storage_errors(self.root), self._index_lock():
            entry = self._find(source)
            if entry is None:
                return
            blob = self._blob(entry.sha256)
            version = RemoteVersion(entry.etag, entry.last_modified, entry.size_bytes)
            sums = blob.checksums() or ()
            parts = [list(sums[i : i + _WINDOWS]) for i in range(0, len(sums), _WINDOWS)]
            good = {part: each for part, each in enumerate(parts) if part not in damaged}
            self.partial(source).take(blob.path, version, good)
            blob.unlink()

    def delete(self, source: StoredSource) -> int:
        """Deletes `source`, partial downloads, and its blobs unless other sources share them.

        Returns the bytes freed. Raises ModelNotFoundError if nothing of it is stored, ArtifactError
        while it is being fetched, in use (Windows), or if an index file cannot be read.
        """
        lock = self.lock(source)
        with storage_errors(self.root):
            if not lock.try_acquire():
                raise ArtifactError(f"{source} is being downloaded; stop that, then delete it")
            try:
                manifest = self.manifest(source)
                if manifest is None:
                    return self._delete_file(source)
                return self._delete_members(source, manifest)
            finally:
                lock.release()

    def _delete_members(self, source: StoredSource, manifest: Manifest) -> int:
        freed = 0
        for member in manifest.members:
            with suppress(ModelNotFoundError):
                freed += self.delete(member)
        self._manifest_file(source).unlink(missing_ok=True)  # last: without it nothing finds them
        return freed

    def _delete_file(self, source: StoredSource) -> int:
        partial, scratch = self.partial(source), self.root / "partial" / _key(source)
        freed, entered = self._delete_entry(source)
        if not (entered or partial.path.exists() or scratch.exists()):
            raise ModelNotFoundError(f"{source} is not in the store {self.root}")
        shutil.rmtree(scratch, ignore_errors=True)
        return freed + partial.delete()

    def _delete_entry(self, source: StoredSource) -> tuple[int, bool]:
        """Deletes the entry of `source` and its blob; returns the bytes freed and if it had one."""
        with self._index_lock():
            entry = self._read(self._index_file(source))
            if entry is None:
                return 0, False
            others = [self._read(file) for file in self._index_files()]
            shared = sum(other is not None and other.sha256 == entry.sha256 for other in others) > 1
            try:
                if not shared:
                    self._blob(entry.sha256).unlink()
            except PermissionError as error:
                raise ArtifactError(
                    f"{source} cannot be deleted ({error.strerror}): it is in use, or belongs to "
                    "another user; unload it, or ask its owner"
                ) from error
            self._index_file(source).unlink(missing_ok=True)
        return 0 if shared else entry.size_bytes, True

    def partial(self, source: StoredSource) -> PartialFile:
        """Returns the partial download of `source`; its user holds `lock(source)` meanwhile."""
        path = self.root / "partial" / f"{_key(source)}.part"
        return PartialFile(path, source, partial(self.put, source))

    def scratch(self, source: RemoteSource) -> Path:
        """Creates an empty folder on this disk for the fetch of `source`."""
        folder = self.root / "partial" / _key(source)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def lock(self, source: StoredSource) -> FileLock:
        """Returns the lock that is held while `source` is fetched."""
        return FileLock(self.root / "locks" / f"{_key(source)}.lock")

    def _index_lock(self) -> FileLock:
        return FileLock(self.root / "locks" / "index.lock")

    def _blob(self, sha256: str) -> Blob:
        return Blob(self.root / "blobs", sha256)

    def _index_files(self) -> Iterator[Path]:
        return (self.root / "index").glob("*.json")

    def _index_file(self, source: StoredSource) -> Path:
        return self.root / "index" / f"{_key(source)}.json"

    def _manifest_files(self) -> Iterator[Path]:
        return (self.root / "sets").glob("*.json")

    def _manifest_file(self, source: StoredSource) -> Path:
        return self.root / "sets" / f"{_key(source)}.json"

    def _read_manifest(self, file: Path) -> Manifest | None:
        """Reads a manifest; None if it is absent or damaged."""
        with storage_errors(self.root):
            try:
                return decode_manifest(file.read_bytes())
            except FileNotFoundError:
                return None

    def _find(self, source: StoredSource) -> StoreEntry | None:
        """Returns the entry of `source`; None if its blob does not have its full size."""
        entry = self._read(self._index_file(source))
        if entry is None or not self._blob(entry.sha256).has_size(entry.size_bytes):
            return None
        return entry

    def _read(self, file: Path) -> StoreEntry | None:
        """Reads an index entry; None if it is absent or damaged, so that it is written anew."""
        with storage_errors(self.root):
            try:
                return msgspec.convert(json.loads(file.read_bytes()), StoreEntry)
            except (FileNotFoundError, ValueError, RecursionError):
                return None

    def _write(self, source: StoredSource, entry: StoreEntry) -> None:
        """Writes an index entry; the caller holds the index's lock.

        The file has ordinary permissions: other users may read it if the folder lets them.
        """
        write_whole(self._index_file(source), json.dumps(asdict(entry)).encode())


def _key(source: StoredSource) -> str:
    return hashlib.sha256(str(source).encode()).hexdigest()[:32]
