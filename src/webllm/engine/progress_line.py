"""Shows a download's progress on one line of standard error, in a terminal or a notebook."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from webllm.artifacts.progress import InitProgressReport, Phase, ProgressCallback
from webllm.terminal_text import visible_in_a_line


@contextmanager
def progress_line(callback: ProgressCallback | None) -> Iterator[ProgressCallback | None]:
    """Yields `callback`. If it is None and a person may watch, yields one that shows downloads."""
    if callback is not None or not _is_watched():
        yield callback
        return
    line = _Line()
    try:
        yield line.show
    finally:
        line.erase()


def _is_watched() -> bool:
    """Whether standard error is a terminal, or the output of a notebook's cell."""
    if sys.stderr is None:  # a program without a console, on Windows
        return False
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return sys.stderr.isatty() or hasattr(shell, "kernel")


class _Line:
    """A line that appears with a download's first report; a model on disk loads in silence."""

    def __init__(self) -> None:
        self._shown = ""

    def show(self, report: InitProgressReport) -> None:
        if self._shown or report.phase is Phase.FETCH:
            self._write(f"{report.progress:4.0%} {report.text}")

    def erase(self) -> None:
        if self._shown:
            sys.stderr.write(f"\r{' ' * len(self._shown)}\r")
            sys.stderr.flush()

    def _write(self, text: str) -> None:
        """Overwrites the shown text."""
        width = shutil.get_terminal_size().columns - 1
        text = visible_in_a_line(text)[:width]
        sys.stderr.write("\r" + text.ljust(len(self._shown)))
        sys.stderr.flush()
        self._shown = text
