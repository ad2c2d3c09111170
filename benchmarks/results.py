"""Keeps results of benchmarks as files, and prints them side by side.

    python benchmarks/step_overhead.py --save               writes a file into benchmarks/results
    python benchmarks/step_overhead.py --save h200          the same, with a name for the machine
    python benchmarks/results.py step_overhead              prints its results, a column for each
    python benchmarks/results.py step_overhead --machine h200 --last 2

A file is named by benchmark, machine and commit, so a second run replaces the first. "-changed"
after the commit means that the working tree had changes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = Path(__file__).parent / "results"
Figures = dict[str, float]  # by name, which ends in the unit: "decode, 2 in flight (tokens/s)"


@dataclass(frozen=True, kw_only=True)
class Result:
    """The figures of one run of a benchmark."""

    benchmark: str
    machine: str
    commit: str
    date: str  # ISO 8601, UTC
    figures: Figures

    @property
    def file_name(self) -> str:
        return f"{self.benchmark}.{self.machine}.{self.commit}.json"


def add_save_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--save [MACHINE]`: None without it, and this machine's name without MACHINE."""
    parser.add_argument(
        "--save",
        nargs="?",
        const=machine_name(),
        metavar="MACHINE",
        help="write the figures into benchmarks/results",
    )


def save(benchmark: str, machine: str, figures: Figures, folder: Path = FOLDER) -> Path:
    """Writes the figures of a run of the present commit; returns the file."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    result = Result(
        benchmark=benchmark, machine=_slug(machine), commit=commit(), date=now, figures=figures
    )
    folder.mkdir(exist_ok=True)
    file = folder / result.file_name
    file.write_text(json.dumps(asdict(result), indent=2) + "\n")
    print(f"saved {file}", file=sys.stderr)
    return file


def commit() -> str:
    """Returns the short hash of the present commit, with "-changed" if files differ from it.

    It is "unknown" in a copy without git's files.
    """
    try:
        changes = _git("status", "--porcelain", "--", ".", ":!benchmarks/results")
        return _git("rev-parse", "--short=10", "HEAD") + ("-changed" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine_name() -> str:
    """Returns the CPU's name and the number of its cores."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        found = None
    cpu = found[1] if found else platform.processor() or platform.machine()
    return _slug(f"{cpu} {os.cpu_count()} cores")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


def read(folder: Path) -> list[Result]:
    """Returns all results of a folder, the oldest first."""
    found = [Result(**json.loads(file.read_text())) for file in folder.glob("*.json")]
    return sorted(found, key=lambda result: result.date)


def table(results: list[Result]) -> str:
    """Returns Markdown with a row for each figure, and a column for each result."""
    names = dict.fromkeys(name for result in results for name in result.figures)
    heads = [f"{each.machine}, {each.commit}, {each.date[:10]}" for each in results]
    rows = [[name, *(_cell(each.figures.get(name)) for each in results)] for name in names]
    lines = [["", *heads], ["---"] * (len(results) + 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(figure: float | None) -> str:
    if figure is None:
        return ""
    return f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("benchmark", nargs="?", help="all of them, if it is left out")
    parser.add_argument("--machine", help="results of this machine alone")
    parser.add_argument("--last", type=int, default=6, help="the newest results of each")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    results = [
        each
        for each in read(arguments.folder)
        if arguments.benchmark in (None, each.benchmark)
        and arguments.machine in (None, each.machine)
    ]
    for benchmark in dict.fromkeys(each.benchmark for each in results):
        same = [each for each in results if each.benchmark == benchmark]
        print(f"## {benchmark}\n\n{table(same[-arguments.last :])}\n")
    if not results:
        print(f"no such results in {arguments.folder}; run a benchmark with --save")


if __name__ == "__main__":
    main()
