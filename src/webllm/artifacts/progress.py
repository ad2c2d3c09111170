"""Progress of loading a model: WebLLM's three values, the phase, and exact byte counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """The phases of loading a model, in order."""

    RUNTIME = "runtime"  # Python itself starts, in a browser only
    FETCH = "fetch"
    UPLOAD = "upload"  # the weights, to the device
    COMPILE = "compile"


@dataclass(frozen=True, slots=True)
class InitProgressReport:
    """The progress of a phase; in an engine's reports, of the whole reload."""

    progress: float  # 0 to 1, never falling; unchanged while the total is unknown
    time_elapsed: float  # seconds since the phase, or the reload, began
    text: str
    phase: Phase
    loaded_bytes: int = 0  # in this phase
    total_bytes: int | None = None


ProgressCallback = Callable[[InitProgressReport], None]


class ProgressReporter:
    """Reports one phase to `callback`, at most once per `interval_s`."""

    def __init__(
        self,
        callback: ProgressCallback | None,
        phase: Phase,
        *,
        interval_s: float = 0.1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._callback = callback
        self._phase = phase
        self._interval_s = interval_s
        self._clock = clock
        self._started = clock()
        self._last = float("-inf")
        self._progress = 0.0
        self._before_bytes, self._all_bytes = 0, 0

    def begin_file(self, before_bytes: int, all_bytes: int) -> None:
        """Makes `fetched` count on from the files before, up to the bytes of all together."""
        self._before_bytes, self._all_bytes = before_bytes, all_bytes

    def fetched(self, loaded_bytes: int, total_bytes: int | None) -> None:
        """Reports the bytes of the file that is being fetched; its total may be unknown."""
        loaded, total = self._before_bytes + loaded_bytes, self._all_bytes or total_bytes
        of_total = f" of {total / 1e6:.1f}" if total is not None else ""
        self.update(f"Fetching model: {loaded / 1e6:.1f}{of_total} MB", loaded, total)

    def update(self, text: str, loaded_bytes: int = 0, total_bytes: int | None = None) -> None:
        """Reports progress; reports between the first and the last byte may be skipped."""
        now = self._clock()
        under_way = loaded_bytes > 0 and loaded_bytes != total_bytes
        if self._callback is None or (under_way and now - self._last < self._interval_s):
            return
        if total_bytes:
            self._progress = max(self._progress, min(1.0, loaded_bytes / total_bytes))
        self._last = now
        self._callback(
            InitProgressReport(
                progress=self._progress,
                time_elapsed=now - self._started,
                text=text,
                phase=self._phase,
                loaded_bytes=loaded_bytes,
                total_bytes=total_bytes,
            )
        )
