"""Progress of making a model ready: WebLLM's three values, and what is exact behind them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """What is being done to make a model ready, in this order."""

    RUNTIME = "runtime"  # Python itself starts: in a browser, before there is anything else
    FETCH = "fetch"
    UPLOAD = "upload"  # the weights, to where they are computed with
    COMPILE = "compile"


@dataclass(frozen=True, slots=True)
class InitProgressReport:
    """One message about how far a phase has come; an engine's, about how far its reload has."""

    progress: float  # 0 to 1, never falling; stays where it is without a total
    time_elapsed: float  # seconds since the phase, or the reload, began
    text: str
    phase: Phase
    loaded_bytes: int = 0  # of the phase
    total_bytes: int | None = None

    def to_webllm(self) -> dict[str, object]:
        """The report under the names of WebLLM's `InitProgressReport`."""
        return {"progress": self.progress, "timeElapsed": self.time_elapsed, "text": self.text}


ProgressCallback = Callable[[InitProgressReport], None]


class ProgressReporter:
    """Calls `callback` about one phase: at most every `interval_s`, `progress` never falling."""

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

    def update(self, text: str, loaded_bytes: int = 0, total_bytes: int | None = None) -> None:
        """Report; only those between the first bytes and the last are ever held back."""
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
