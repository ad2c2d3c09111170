"""Results of benchmarks: files by machine and commit, and the table of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def _write(folder: Path, commit: str, date: str, **figures: float) -> None:
    head = {"benchmark": "decode", "machine": "h200", "commit": commit, "date": date}
    (folder / f"{commit}.json").write_text(json.dumps({**head, "figures": figures}))


def _printed(*arguments: str) -> str:
    command = [sys.executable, str(BENCHMARKS / "results.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_results_are_columns_and_figures_are_rows(tmp_path: Path) -> None:
    _write(tmp_path, "bbb", "2026-11-30T10:00:00+00:00", speed=1234.5, memory=2.5)
    _write(tmp_path, "aaa", "2026-11-29T10:00:00+00:00", speed=99.94)
    assert _printed("decode", "--folder", str(tmp_path)).splitlines() == [
        "## decode",
        "",
        "|  | h200, aaa, 2026-11-29 | h200, bbb, 2026-11-30 |",
        "| --- | --- | --- |",
        "| speed | 99.9 | 1,234 |",
        "| memory |  | 2.5 |",
        "",
    ]


def test_the_newest_are_chosen_and_other_machines_left_out(tmp_path: Path) -> None:
    for day in range(1, 4):
        _write(tmp_path, f"commit{day}", f"2026-11-0{day}T10:00:00+00:00", speed=1.0)
    last = _printed("--folder", str(tmp_path), "--last", "1")
    assert "commit3" in last
    assert "commit2" not in last
    none = _printed("--folder", str(tmp_path), "--machine", "other")
    assert none.startswith("no such results")


@pytest.mark.parametrize("script", ["llama_cpp", "gpu_decode", "step_overhead", "request_calls"])
def test_a_benchmark_can_save_its_figures(script: str) -> None:
    command = [sys.executable, str(BENCHMARKS / f"{script}.py"), "--help"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "--save [MACHINE]" in printed
