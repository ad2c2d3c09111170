"""Downloads show progress on a terminal and in a notebook, and nowhere else."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest

from webllm.artifacts.progress import InitProgressReport, Phase
from webllm.engine.progress_line import progress_line


class Screen(io.StringIO):
    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def report(text: str, phase: Phase = Phase.FETCH) -> InitProgressReport:
    return InitProgressReport(progress=0.456, time_elapsed=1.0, text=text, phase=phase)


def shown_of(monkeypatch: pytest.MonkeyPatch, screen: Screen, *reports: InitProgressReport) -> str:
    monkeypatch.setattr(sys, "stderr", screen)
    with progress_line(None) as callback:
        for each in reports:
            if callback is not None:
                callback(each)
    return screen.getvalue()


def test_a_download_is_shown_on_a_terminal_and_then_erased(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = shown_of(monkeypatch, Screen(True), report("Fetching smol"), report("Fetching"))
    last = " 46% Fetching".ljust(len(" 46% Fetching smol"))
    assert text == f"\r 46% Fetching smol\r{last}\r{' ' * len(' 46% Fetching')}\r"


def test_a_model_that_is_on_disk_loads_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown_of(monkeypatch, Screen(True), report("Loading", Phase.UPLOAD)) == ""


def test_nothing_is_shown_in_a_file_or_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown_of(monkeypatch, Screen(False), report("Fetching")) == ""


def test_a_download_is_shown_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert "Fetching" in shown_of(monkeypatch, Screen(False), report("Fetching"))


def test_a_name_does_not_steer_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown_of(monkeypatch, Screen(True), report("Fetching \x1b[31mred\x07"))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert r"Fetching \x1b[31mred\x07" in text


def test_a_callback_of_the_caller_is_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(True)
    monkeypatch.setattr(sys, "stderr", screen)
    reports: list[InitProgressReport] = []
    with progress_line(reports.append) as callback:
        assert callback is not None
        callback(report("Fetching"))
    assert [each.text for each in reports] == ["Fetching"]
    assert screen.getvalue() == ""
