"""All output to the terminal: results on stdout, everything else on stderr.

Text from a model, a file, a server or the user must not control the terminal. Control characters
are left out of answers and shown as escapes (`\\x1b`) in all other text. Only this module writes
escape codes, and only to a terminal.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from webllm.terminal_text import visible, visible_in_a_line, without_controls

if TYPE_CHECKING:
    from rich.console import Console

    from webllm.artifacts.progress import InitProgressReport, ProgressCallback

_WIDE = 250  # columns, if the output is not a terminal


def write(text: str) -> None:
    """Writes a piece of an answer at once, without its control characters."""
    _write(sys.stdout, without_controls(text))


def say(text: str) -> None:
    """Writes a line of a command's result to stdout."""
    _write(sys.stdout, f"{visible(text)}\n")


def fail(error: str) -> None:
    """Writes an error to stderr as one line."""
    _write(sys.stderr, visible_in_a_line(f"webllm: {error}") + "\n")


def note(text: str) -> None:
    """Writes a remark to stderr, dimmed."""
    _console(sys.stderr).print(visible(text), style="dim")


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: bool = False
) -> None:
    """Writes a table to stdout; `numeric` aligns its cells to the right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*map(visible_in_a_line, row))
    _console(sys.stdout).print(table)


@contextmanager
def progress_bar() -> Iterator[ProgressCallback]:
    """Shows a progress bar that follows init progress reports and disappears at the end."""
    if not sys.stderr.isatty():
        yield lambda report: None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    bar = Progress(*columns, console=_console(sys.stderr), transient=True)
    with bar as progress, guarded_streams():  # rich puts streams of its own there meanwhile
        task = progress.add_task("Starting", total=1.0)

        def show(report: InitProgressReport) -> None:
            text = visible_in_a_line(report.text)
            progress.update(task, description=text, completed=report.progress)

        yield show


class _Guard:
    """Wraps a text stream and shows control characters as escapes.

    It has no `buffer`, which would accept raw bytes.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(visible(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":
            raise AttributeError(name)
        return getattr(self.stream, name)


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Guards sys.stdout and sys.stderr, for tracebacks, warnings, logs and typer's own errors.

    Characters that the terminal's encoding lacks become "?".
    """
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    guards = _Guard(sys.stdout), _Guard(sys.stderr)
    sys.stdout, sys.stderr = guards
    try:
        yield
    finally:  # restores the streams unless other code has replaced them
        if sys.stdout is guards[0]:
            sys.stdout = before[0]
        if sys.stderr is guards[1]:
            sys.stderr = before[1]


def _unguarded(stream: TextIO) -> TextIO:
    return stream.stream if isinstance(stream, _Guard) else stream


def _write(stream: TextIO, harmless: str) -> None:
    """Writes and flushes, since pipes are buffered."""
    stream = _unguarded(stream)
    stream.write(harmless)
    stream.flush()


def _console(stream: TextIO) -> Console:
    """Returns a rich console that prints texts as they are, without markup or emoji."""
    from rich.console import Console

    return Console(
        file=_unguarded(stream),
        highlight=False,
        markup=False,
        emoji=False,
        width=None if stream.isatty() else _WIDE,
    )


def size(num_bytes: int | None) -> str:
    """Formats a number of bytes: 98 MB, 1.4 GB."""
    if num_bytes is None:
        return "?"
    if num_bytes >= 1e9:
        return f"{num_bytes / 1e9:.1f} GB"
    if num_bytes >= 1e6:
        return f"{num_bytes / 1e6:.0f} MB"
    return f"{num_bytes / 1e3:.0f} kB"
