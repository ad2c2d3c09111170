"""A folder of model files, each stored once under its hash, with an index from source to hash.

    blobs/sha256-…      complete, verified files
    index/….json        one entry per source: the source, its blob's hash and size
    partial/…           fetches in progress; see `partial`
    locks/…             one per source that was ever fetched, and one for the index

Several processes may use one folder. The store knows nothing of networks.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from webllm.artifacts.file_lock import FileLock
from webllm.artifacts.partial import PartialFile
from webllm.artifacts.source import RemoteSource
from webllm.artifacts.storage_errors import require_space, storage_errors
from webllm.errors import ArtifactError, ConfigError, ModelNotFoundError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoreEntry:
    """One source in the index, and its blob."""

    source: str
    sha256: str
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
        return self._blob(entry.sha256)

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

    def put(self, source: RemoteSource, file: Path, sha256: str) -> Path:
        """Moves `file`, whose SHA-256 has been verified, into the store as the file of `source`."""
        entry = StoreEntry(str(source), sha256, file.stat().st_size)
        with storage_errors(self.root), self._index_lock():
            self._write(source, entry)  # first, because an entry without a blob counts as absent
            if not self._intact(entry):
                os.replace(file, self._blob(sha256))
        return self._blob(sha256)

    def adopt(self, source: RemoteSource, sha256: str | None) -> Path | None:
        """Adds `source` to the index if a blob with its hash is stored; returns that, or None."""
        with storage_errors(self.root), self._index_lock():
            for entry in self.entries():
                if entry.sha256 == sha256 and self._intact(entry):
                    self._write(source, StoreEntry(str(source), sha256, entry.size_bytes))
                    return self._blob(sha256)
        return None

    def delete(self, source: RemoteSource) -> int:
        """Deletes `source`, its partial download, and its blob unless another source shares it.

        Returns the bytes freed. Raises ModelNotFoundError if nothing of it is stored, ArtifactError
        while it is being fetched, in use (Windows), or if an index file cannot be read.
        """
        part, scratch = self._part(source), self.root / "partial" / _key(source)
        lock = self.lock(source)
        with storage_errors(self.root):
            if not lock.try_acquire():
                raise ArtifactError(f"{source} is being downloaded; stop that, then delete it")
            try:
                freed, entered = self._delete_entry(source)
                if not (entered or part.exists() or scratch.exists()):
                    raise ModelNotFoundError(f"{source} is not in the store {self.root}")
                shutil.rmtree(scratch, ignore_errors=True)
                return freed + _drop(part)
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
                    self._blob(entry.sha256).unlink(missing_ok=True)
            except PermissionError as error:
                raise ArtifactError(
                    f"{source} cannot be deleted ({error.strerror}): it is in use, or belongs to "
                    "another user; unload it, or ask its owner"
                ) from error
            self._index_file(source).unlink(missing_ok=True)
        return 0 if shared else entry.size_bytes, True

    def require_space(self, num_bytes: int, what: object) -> None:
        """Raises StorageFullError unless `num_bytes` more fit on this disk."""
        require_space(self.root, num_bytes, what)

    def partial(self, source: RemoteSource) -> PartialFile:
        """Opens the partial download of `source`; the caller holds `lock(source)` meanwhile."""
        return PartialFile(self._part(source))

    def scratch(self, source: RemoteSource) -> Path:
        """Creates an empty folder on this disk for the fetch of `source`."""
        folder = self.root / "partial" / _key(source)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def lock(self, source: RemoteSource) -> FileLock:
        """Returns the lock that is held while `source` is fetched."""
        return FileLock(self.root / "locks" / f"{_key(source)}.lock")

    def _part(self, source: RemoteSource) -> Path:
        return self.root / "partial" / f"{_key(source)}.part"

    def _index_lock(self) -> FileLock:
        return FileLock(self.root / "locks" / "index.lock")

    def _blob(self, sha256: str) -> Path:
        return self.root / "blobs" / f"sha256-{sha256}"

    def _index_files(self) -> Iterator[Path]:
        return (self.root / "index").glob("*.json")

    def _index_file(self, source: RemoteSource) -> Path:
        return self.root / "index" / f"{_key(source)}.json"

    def _find(self, source: RemoteSource) -> StoreEntry | None:
        entry = self._read(self._index_file(source))
        return entry if entry is not None and self._intact(entry) else None

    def _intact(self, entry: StoreEntry) -> bool:
        """Returns whether the blob has its full size; a truncated one counts as absent."""
        try:
            return self._blob(entry.sha256).stat().st_size == entry.size_bytes
        except OSError:
            return False

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
        file = self._index_file(source)
        new = file.with_suffix(".new")
        try:
            with new.open("w") as stream:
                json.dump(asdict(entry), stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(new, file)
        except OSError:
            new.unlink(missing_ok=True)
            raise


def _drop(part: Path) -> int:
    """Deletes a partial file and its note, if they exist; returns the bytes freed."""
    try:
        freed = part.stat().st_size
    except FileNotFoundError:  # its fetch has just ended
        return 0
    PartialFile(part).drop()
    return freed


def _key(source: RemoteSource) -> str:
    return hashlib.sha256(str(source).encode()).hexdigest()[:32]
