"""A folder of model files, each stored once under its hash, with an index from source to hash.

    blobs/…             complete files and their checksums; see `blob`
    index/….json        one entry per source: the source, its blob's hash and size, its version
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

import msgspec

from webllm.artifacts.blob import Blob, write_whole
from webllm.artifacts.destination import PART_BYTES, WINDOW_BYTES, RemoteVersion
from webllm.artifacts.file_lock import FileLock
from webllm.artifacts.partial import PartialFile
from webllm.artifacts.source import RemoteSource
from webllm.artifacts.storage_errors import storage_errors
from webllm.errors import ArtifactError, ConfigError, ModelNotFoundError

_log = logging.getLogger(__name__)
_WINDOWS = PART_BYTES // WINDOW_BYTES  # of a part


@dataclass(frozen=True, slots=True)
class StoreEntry:
    """One source in the index, its blob, and the version that the server named."""

    source: str
    sha256: str
    size_bytes: int
    etag: str | None = None
    last_modified: str | None = None


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
            for name in ("blobs", "index", "partial", "locks"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cannot store models in {self.root} ({error.strerror}); "
                "set WEBLLM_HOME to a folder that can be written"
            ) from error

    def has(self, source: RemoteSource) -> bool:
        """Returns whether the complete file of `source` is stored."""
        return self._find(source) is not None

    def path(self, source: RemoteSource) -> Path:
        """Returns the file of `source`; raises ModelNotFoundError if it is not stored."""
        entry = self._find(source)
        if entry is None:
            raise ModelNotFoundError(f"{source} is not in the store {self.root}; download it first")
        return self._blob(entry.sha256).path

    def entries(self) -> list[StoreEntry]:
        """Returns all stored sources in order; two of them may share one blob.

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

    def damaged_parts(self, source: RemoteSource) -> list[int] | None:
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
        source: RemoteSource,
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

    def adopt(self, source: RemoteSource, sha256: str) -> Path | None:
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

    def reopen(self, source: RemoteSource, damaged: Collection[int]) -> None:
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

    def delete(self, source: RemoteSource) -> int:
        """Deletes `source`, its partial download, and its blob unless another source shares it.

        Returns the bytes freed. Raises ModelNotFoundError if nothing of it is stored, ArtifactError
        while it is being fetched, in use (Windows), or if an index file cannot be read.
        """
        partial, scratch = self.partial(source), self.root / "partial" / _key(source)
        lock = self.lock(source)
        with storage_errors(self.root):
            if not lock.try_acquire():
                raise ArtifactError(f"{source} is being downloaded; stop that, then delete it")
            try:
                freed, entered = self._delete_entry(source)
                if not (entered or partial.path.exists() or scratch.exists()):
                    raise ModelNotFoundError(f"{source} is not in the store {self.root}")
                shutil.rmtree(scratch, ignore_errors=True)
                return freed + partial.delete()
            finally:
                lock.release()

    def _delete_entry(self, source: RemoteSource) -> tuple[int, bool]:
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

    def partial(self, source: RemoteSource) -> PartialFile:
        """Returns the partial download of `source`; its user holds `lock(source)` meanwhile."""
        path = self.root / "partial" / f"{_key(source)}.part"
        return PartialFile(path, source, partial(self.put, source))

    def scratch(self, source: RemoteSource) -> Path:
        """Creates an empty folder on this disk for the fetch of `source`."""
        folder = self.root / "partial" / _key(source)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def lock(self, source: RemoteSource) -> FileLock:
        """Returns the lock that is held while `source` is fetched."""
        return FileLock(self.root / "locks" / f"{_key(source)}.lock")

    def _index_lock(self) -> FileLock:
        return FileLock(self.root / "locks" / "index.lock")

    def _blob(self, sha256: str) -> Blob:
        return Blob(self.root / "blobs", sha256)

    def _index_files(self) -> Iterator[Path]:
        return (self.root / "index").glob("*.json")

    def _index_file(self, source: RemoteSource) -> Path:
        return self.root / "index" / f"{_key(source)}.json"

    def _find(self, source: RemoteSource) -> StoreEntry | None:
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

    def _write(self, source: RemoteSource, entry: StoreEntry) -> None:
        """Writes an index entry; the caller holds the index's lock.

        The file has ordinary permissions: other users may read it if the folder lets them.
        """
        write_whole(self._index_file(source), json.dumps(asdict(entry)).encode())


def _key(source: RemoteSource) -> str:
    return hashlib.sha256(str(source).encode()).hexdigest()[:32]
