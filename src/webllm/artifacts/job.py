"""One fetch into the directory store: its file, its progress, and the check of the result."""

from __future__ import annotations

from dataclasses import dataclass, field

from webllm.artifacts.partial import PartialFile
from webllm.artifacts.progress import ProgressReporter
from webllm.artifacts.retry import RetryPolicy
from webllm.artifacts.source import RemoteSource
from webllm.artifacts.store import DirectoryStore
from webllm.errors import IntegrityError


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """Retries, and additional arguments of pip."""

    retry: RetryPolicy = field(default_factory=RetryPolicy)
    pip_arguments: tuple[str, ...] = ()  # for `pip download`, e.g. ("--no-index", …)


@dataclass(frozen=True, slots=True)
class FetchJob:
    """One fetch in progress; its owner holds `store.lock(source)`."""

    source: RemoteSource
    store: DirectoryStore
    partial: PartialFile
    reporter: ProgressReporter
    options: FetchOptions

    def require_space(self, num_bytes: int) -> None:
        """Raises StorageFullError unless `num_bytes` more fit."""
        self.store.require_space(num_bytes, self.source)

    def report(self, total_bytes: int | None) -> None:
        """Reports the number of bytes received."""
        loaded = self.partial.num_bytes
        of_total = f" of {total_bytes / 1e6:.1f}" if total_bytes is not None else ""
        self.reporter.update(
            f"Fetching model: {loaded / 1e6:.1f}{of_total} MB", loaded, total_bytes
        )

    def verify(self, size: int | None, sha256: str | None) -> str:
        """Checks the complete file; returns its SHA-256 in hex.

        Deletes the bytes and raises IntegrityError if size or hash differ from those promised.
        """
        digest = self.partial.hexdigest()
        found = self.partial.num_bytes
        if size is not None and size != found:
            self.reject(f"it has {found} bytes, expected {size}")
        if sha256 is not None and sha256 != digest:
            self.reject(f"its SHA-256 is {digest}, expected {sha256}", sha256, digest)
        return digest

    def reject(self, reason: str, expected: str | None = None, actual: str | None = None) -> None:
        """Deletes the bytes and raises IntegrityError."""
        self.partial.drop()
        raise IntegrityError(
            f"the download of {self.source} is not the expected file: {reason}; "
            "it was discarded, try again",
            str(self.source),
            expected,
            actual,
        )
