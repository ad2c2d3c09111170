"""Combines the progress of all phases and models of a reload into one number from 0 to 1."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from webllm.artifacts.progress import InitProgressReport, Phase, ProgressCallback

# The rough share of each phase in the time of loading one model.
_WEIGHTS = {Phase.FETCH: 0.75, Phase.UPLOAD: 0.2, Phase.COMPILE: 0.05}
_ORDER = list(_WEIGHTS)


class LoadProgress:
    """A progress callback for the phases of `num_models` models, which are loaded one by one.

    A model in the store is not fetched: its other phases share the span of that phase. start: the
    share of the whole that was done before.
    """

    def __init__(
        self,
        callback: ProgressCallback | None,
        num_models: int,
        *,
        start: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._callback = callback
        self._num_models = num_models
        self._start = start
        self._clock = clock
        self._started = clock()
        self._num_ready = 0
        self._phases: list[Phase] = []  # of the current model; empty before its first report
        self._progress = 0.0

    def __call__(self, report: InitProgressReport) -> None:
        if self._callback is None:
            return
        if not self._phases:
            self._phases = _ORDER[_ORDER.index(report.phase) :]
        models = self._num_ready + self._of_model(report)
        progress = self._start + (1 - self._start) * models / self._num_models
        self._progress = max(self._progress, min(1.0, progress))
        elapsed = self._clock() - self._started
        self._callback(replace(report, progress=self._progress, time_elapsed=elapsed))

    def model_ready(self) -> None:
        """Says that a model is loaded. Later reports are about the next one."""
        self._num_ready += 1
        self._phases = []

    def _of_model(self, report: InitProgressReport) -> float:
        """Returns the progress of the current model, from 0 to 1."""
        before = _ORDER[: _ORDER.index(report.phase)]
        done = sum(_WEIGHTS[phase] for phase in self._phases if phase in before)
        whole = sum(_WEIGHTS[phase] for phase in self._phases)
        return (done + _WEIGHTS[report.phase] * report.progress) / whole


def call_both(
    first: ProgressCallback | None, second: ProgressCallback | None
) -> ProgressCallback | None:
    """Returns a callback that calls both; None if both are None."""
    if first is None or second is None:
        return first or second

    def report(progress: InitProgressReport) -> None:
        first(progress)
        second(progress)

    return report
