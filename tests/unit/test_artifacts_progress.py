"""Progress reports: never falling, not too many."""

from webllm.artifacts.progress import InitProgressReport, Phase, ProgressReporter
from webllm.artifacts.retry import RetryPolicy, retry_after_s


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_phase_is_formatted_as_its_name() -> None:
    report = InitProgressReport(0.5, 2.0, "half", Phase.UPLOAD, 5, 10)
    assert f"{report.phase}" == "upload"


def test_progress_never_falls_and_reports_are_spaced() -> None:
    clock, seen = Clock(), list[InitProgressReport]()
    reporter = ProgressReporter(seen.append, Phase.FETCH, interval_s=1.0, clock=clock)
    for now, loaded, total in [
        (0.0, 0, None), (0.1, 10, 100), (0.2, 20, 100), (1.3, 50, 100), (3.0, 20, 100),
        (3.1, 0, None), (5.0, 60, None), (5.1, 100, 100),
    ]:  # fmt: skip
        clock.now = now
        reporter.update("", loaded, total)
    assert [(r.time_elapsed, r.progress, r.loaded_bytes) for r in seen] == [
        (0.0, 0.0, 0), (1.3, 0.5, 50), (3.0, 0.5, 20), (3.1, 0.5, 0), (5.0, 0.5, 60),
        (5.1, 1.0, 100),
    ]  # fmt: skip
    ProgressReporter(None, Phase.FETCH).update("nobody listens", 1, 2)


def test_pauses_double_within_limits() -> None:
    policy = RetryPolicy(first_pause_s=1.0, longest_pause_s=8.0)
    for failures, longest in [(1, 1.0), (2, 2.0), (4, 8.0), (500, 8.0)]:
        assert longest / 2 <= policy.pause_s(failures) <= longest


def test_retry_after() -> None:
    assert retry_after_s(None) is None
    assert retry_after_s("7") == 7.0
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    far = retry_after_s("Wed, 21 Oct 2099 07:28:00 GMT")
    assert far is not None
    assert far > 1e6
    assert retry_after_s("soon") is None
