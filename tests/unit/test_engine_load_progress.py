"""The progress of a whole reload: one span for each phase and model, never falling."""

from itertools import count

import pytest

from webllm.artifacts.progress import InitProgressReport, Phase
from webllm.engine.load_progress import LoadProgress


def report(phase: Phase, progress: float, loaded_bytes: int = 0) -> InitProgressReport:
    return InitProgressReport(progress, 9.0, phase.value, phase, loaded_bytes, 100)


FETCHED = [(Phase.FETCH, 0.0), (Phase.FETCH, 1.0)]
LOADED = [(Phase.UPLOAD, 0.0), (Phase.UPLOAD, 1.0), (Phase.COMPILE, 0.0), (Phase.COMPILE, 1.0)]


@pytest.mark.parametrize("start", [{}, {"start": 0.1}], ids=["native", "browser"])
@pytest.mark.parametrize("models", [[FETCHED + LOADED], [LOADED], [FETCHED + LOADED, LOADED]])
def test_it_goes_from_the_start_of_the_models_to_one(
    models: list[list[tuple[Phase, float]]], start: dict[str, float]
) -> None:
    seen: list[InitProgressReport] = []
    clock = map(float, count())
    progress = LoadProgress(seen.append, len(models), clock=clock.__next__, **start)
    for model in models:
        for phase, done in model:
            progress(report(phase, done))
        progress.model_ready()
    values = [each.progress for each in seen]
    assert values == sorted(values)
    assert values[0] == pytest.approx(start.get("start", 0))  # in a page, Python runs already
    assert values[-1] == 1.0
    assert [each.time_elapsed for each in seen] == list(range(1, len(seen) + 1))


def test_a_phase_that_begins_anew_does_not_fall_back() -> None:
    seen: list[InitProgressReport] = []
    progress = LoadProgress(seen.append, 1)
    for done in (0.5, 0.1, 0.6):
        progress(report(Phase.FETCH, done, int(100 * done)))
    assert seen[0].progress == seen[1].progress < seen[2].progress < 0.8
    assert [each.loaded_bytes for each in seen] == [50, 10, 60]


def test_without_a_listener() -> None:
    LoadProgress(None, 1)(report(Phase.FETCH, 0.5))
