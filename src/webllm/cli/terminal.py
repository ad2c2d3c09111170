"""What is shown: answers on stdout, everything else on stderr, escape codes only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from webllm.artifacts.progress import InitProgressReport, ProgressCallback

_WIDE = 250  # columns, where there is no terminal to say

# A model's text may not steer the terminal: no control characters but line feed and tab.
_CONTROLS = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


def console(stderr: bool = False) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr, highlight=False, markup=False, width=None if stream.isatty() else _WIDE
    )


def write(text: str) -> None:
    """Writes a piece of an answer at once."""
    sys.stdout.write(text.translate(_CONTROLS))
    sys.stdout.flush()


def note(text: str) -> None:
    """A remark beside the answer: dim, on stderr."""
    console(stderr=True).print(text, style="dim")


@contextmanager
def progress_bar() -> Iterator[ProgressCallback]:
    """A bar that follows init progress reports and leaves nothing behind."""
    if not sys.stderr.isatty():
        yield lambda report: None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        task = progress.add_task("Starting", total=1.0)

        def show(report: InitProgressReport) -> None:
            progress.update(task, description=report.text, completed=report.progress)

        yield show


def size(num_bytes: int | None) -> str:
    """Bytes for people: 98 MB, 1.4 GB."""
    if num_bytes is None:
        return "?"
    if num_bytes >= 1e9:
        return f"{num_bytes / 1e9:.1f} GB"
    if num_bytes >= 1e6:
        return f"{num_bytes / 1e6:.0f} MB"
    return f"{num_bytes / 1e3:.0f} kB"
