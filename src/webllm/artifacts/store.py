"""A folder of model files, each kept once under its hash, with an index from source to hash.

    blobs/sha256-…      complete, verified files
    index/….json        one entry per source: the source, its blob's hash and size
    partial/…           fetches under way; see `partial`
    locks/…             one per source that was ever fetched, and one for the index

Several processes may use one folder. Knows nothing of networks.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from webllm.artifacts.file_lock import FileLock
from webllm.artifacts.partial import PartialFile
from webllm.artifacts.source import RemoteSource
from webllm.artifacts.storage_errors import require_space, storage_errors
from webllm.errors import ArtifactError, ConfigError, ModelNotFoundError


@dataclass(frozen=True, slots=True)
class StoreEntry:
    """One source whose bytes are in the store."""

    source: str
    sha256: str
    size_bytes: int


def default_root() -> Path:
    """The folder named by `WEBLLM_HOME`, else `webllm` in the user's folder for such files."""
    home = os.environ.get("WEBLLM_HOME")
    if home:
        return Path(home).expanduser()
    try:
        import platformdirs
    except ImportError:
        raise ConfigError(
            "cannot tell where to keep models without platformdirs; "
            "install webllm[native], or set WEBLLM_HOME to a folder"
        ) from None
    return Path(platformdirs.user_cache_dir("webllm"))


class DirectoryStore:
    """The store in folder `root` (default: `default_root()`), which is made if absent."""

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self.root = Path(root) if root is not None else default_root()
        try:
            for name in ("blobs", "index", "partial", "locks"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cannot keep models in {self.root} ({error.strerror}); "
                "set WEBLLM_HOME to a folder that can be written"
            ) from error

    def has(self, source: RemoteSource) -> bool:
        """Whether the bytes of `source` are here, complete."""
        return self._find(source) is not None

    def path(self, source: RemoteSource) -> Path:
        """The file with the bytes of `source`; ModelNotFoundError if they are not here."""
        entry = self._find(source)
        if entry is None:
            raise ModelNotFoundError(f"{source} is not in the store {self.root}; fetch it first")
        return self._blob(entry.sha256)

    def entries(self) -> list[StoreEntry]:
        """All sources here, ordered by name; two of them may share one blob."""
        found = map(self._read, (self.root / "index").glob("*.json"))
        return sorted((entry for entry in found if entry), key=lambda entry: entry.source)

    def put(self, source: RemoteSource, file: Path, sha256: str) -> Path:
        """Move `file`, whose bytes have the verified hash `sha256`, in as those of `source`."""
        entry = StoreEntry(str(source), sha256, file.stat().st_size)
        with storage_errors(self.root), self._index_lock():
            self._write(source, entry)  # first: an entry without its blob counts as absent
            if not self._intact(entry):
                os.replace(file, self._blob(sha256))
        return self._blob(sha256)

    def adopt(self, source: RemoteSource, sha256: str | None) -> Path | None:
        """Enter `source` for a blob that is here already, if its hash is known and it is."""
        with storage_errors(self.root), self._index_lock():
            for entry in self.entries():
                if entry.sha256 == sha256 and self._intact(entry):
                    self._write(source, StoreEntry(str(source), sha256, entry.size_bytes))
                    return self._blob(sha256)
        return None

    def delete(self, source: RemoteSource) -> int:
        """Forget `source`, and its blob if no other source shares it; returns the bytes freed.

        What was left of a fetch of it goes as well. Raises ModelNotFoundError if there is nothing
        of it here, ArtifactError while it is fetched, or in use (Windows).
        """
        part, scratch = self._part(source), self.root / "partial" / _key(source)
        lock = self.lock(source)
        with storage_errors(self.root):
            if not lock.try_acquire():
                raise ArtifactError(f"{source} is being fetched; end that, then delete it")
            try:
                freed, entered = self._forget(source)
                if not (entered or part.exists() or scratch.exists()):
                    raise ModelNotFoundError(f"{source} is not in the store {self.root}")
                shutil.rmtree(scratch, ignore_errors=True)
                return freed + _drop(part)
            finally:
                lock.release()

    def _forget(self, source: RemoteSource) -> tuple[int, bool]:
        """Delete the entry of `source` and its blob: the bytes freed, and if there was an entry."""
        with self._index_lock():
            entry = self._read(self._index_file(source))
            if entry is None:
                return 0, False
            shared = sum(other.sha256 == entry.sha256 for other in self.entries()) > 1
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
        """Raise StorageFullError unless `num_bytes` more fit on this disk."""
        require_space(self.root, num_bytes, what)

    def partial(self, source: RemoteSource) -> PartialFile:
        """The fetch of `source` under way; hold `lock(source)` for as long as it is open."""
        return PartialFile(self._part(source))

    def scratch(self, source: RemoteSource) -> Path:
        """An empty folder on this disk for the fetch of `source`; what was left in it is gone."""
        folder = self.root / "partial" / _key(source)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def clean(self) -> int:
        """Delete what interrupted fetches left and blobs that no source names; returns bytes freed.

        A fetch that goes on, here or in another process, is left alone.
        """
        freed = 0
        with storage_errors(self.root):
            for part in (self.root / "partial").glob("*.part"):
                lock = FileLock(self.root / "locks" / f"{part.stem}.lock")
                if lock.try_acquire():
                    try:
                        freed += _drop(part)
                        shutil.rmtree(part.with_suffix(""), ignore_errors=True)
                    finally:
                        lock.release()
            with self._index_lock():
                named = {self._blob(entry.sha256) for entry in self.entries()}
                for blob in set((self.root / "blobs").iterdir()) - named:
                    freed += blob.stat().st_size
                    blob.unlink()
        return freed

    def lock(self, source: RemoteSource) -> FileLock:
        """The lock that whoever fetches `source` holds."""
        return FileLock(self.root / "locks" / f"{_key(source)}.lock")

    def _part(self, source: RemoteSource) -> Path:
        return self.root / "partial" / f"{_key(source)}.part"

    def _index_lock(self) -> FileLock:
        return FileLock(self.root / "locks" / "index.lock")

    def _blob(self, sha256: str) -> Path:
        return self.root / "blobs" / f"sha256-{sha256}"

    def _index_file(self, source: RemoteSource) -> Path:
        return self.root / "index" / f"{_key(source)}.json"

    def _find(self, source: RemoteSource) -> StoreEntry | None:
        entry = self._read(self._index_file(source))
        return entry if entry is not None and self._intact(entry) else None

    def _intact(self, entry: StoreEntry) -> bool:
        """Whether the blob is there in full; one cut short on the disk counts as absent."""
        try:
            return self._blob(entry.sha256).stat().st_size == entry.size_bytes
        except OSError:
            return False

    def _read(self, file: Path) -> StoreEntry | None:
        """An index entry; None if there is none or it is damaged, so that it is made anew."""
        with storage_errors(self.root):
            try:
                return StoreEntry(**json.loads(file.read_bytes()))
            except (FileNotFoundError, ValueError, TypeError):
                return None

    def _write(self, source: RemoteSource, entry: StoreEntry) -> None:
        """Hold the index's lock. Other users may read the file if the folder lets them."""
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
    """Delete a partial file, if it is there, and its note; returns the bytes freed."""
    try:
        freed = part.stat().st_size
    except FileNotFoundError:  # its fetch has just ended
        return 0
    PartialFile(part).drop()
    return freed


def _key(source: RemoteSource) -> str:
    return hashlib.sha256(str(source).encode()).hexdigest()[:32]
