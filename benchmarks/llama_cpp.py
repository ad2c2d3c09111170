"""Compares webllm's CPU backend with llama.cpp's `llama-bench` on one GGUF file.

    python benchmarks/llama_cpp.py MODEL.gguf --llama-bench PATH [--json] [--busy-core] [--save]

Both run alternately (ours, theirs, ours, theirs, ...), each time as a fresh process, so that a
noisy minute falls on both. Medians are compared. Decode is measured after a prompt of 128 tokens
on both sides. It reports how busy other processes kept the machine.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from results import Figures, add_save_option, save

PREFILLS = (128, 512)
GEN_TOKENS = 64
THREADS = (1, 2)
OURS = (sys.executable, "-c", "from webllm.cli.main import app; app()")


@dataclass(frozen=True)
class Run:
    """One side's results of all tests, for one number of threads."""

    side: str
    threads: int
    tokens_per_s: dict[str, float]  # by test: "prefill 128", "prefill 512", "decode 64"
    peak_rss_bytes: int
    foreign_cores: float  # cores that other processes kept busy meanwhile


@dataclass(frozen=True)
class Row:
    """One line of the table: medians over the repeats, in tokens a second."""

    threads: int
    test: str
    ours: float | None
    llama_cpp: float | None
    ratio: float | None
    ours_range: tuple[float, float] | None
    llama_cpp_range: tuple[float, float] | None


@dataclass(frozen=True)
class Process:
    """The output and the resource usage of a finished command."""

    output: Any
    peak_rss_bytes: int
    cpu_s: float


def run_json(command: list[str]) -> Process:
    """Runs `command` and parses its standard output. Raises RuntimeError if it fails."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)  # wait4 took it from Popen
        output.seek(0)
        errors.seek(0)
        if process.returncode != 0:
            raise RuntimeError(f"{command} exited {process.returncode}:\n{errors.read()[-2000:]}")
        unit = 1 if sys.platform == "darwin" else 1024
        cpu_s = usage.ru_utime + usage.ru_stime
        return Process(json.load(output), usage.ru_maxrss * unit, cpu_s)


def bench_llama_cpp(llama_bench: Path, model: Path, threads: int) -> tuple[dict[str, float], int]:
    """Returns tokens per second by test, and peak memory in bytes."""
    common = [str(llama_bench), "-m", str(model), "-t", str(threads), "-r", "1", "-o", "json"]
    prefills = ",".join(map(str, PREFILLS))
    prefill = run_json([*common, "-p", prefills, "-n", "0"])
    decode = run_json([*common, "-p", "0", "-n", str(GEN_TOKENS), "-d", str(PREFILLS[0])])
    speeds = {f"prefill {r['n_prompt']}": r["avg_ts"] for r in prefill.output}
    speeds[f"decode {GEN_TOKENS}"] = decode.output[0]["avg_ts"]
    return speeds, max(prefill.peak_rss_bytes, decode.peak_rss_bytes)


def bench_ours(model: Path, threads: int) -> tuple[dict[str, float], int]:
    """Returns tokens per second by test, and peak memory in bytes."""
    speeds: dict[str, float] = {}
    peak_rss_bytes = 0
    for prompt_tokens in PREFILLS:
        options = {
            "--device": "cpu",
            "--threads": threads,
            "--prompt-tokens": prompt_tokens,
            "--gen-tokens": GEN_TOKENS,
        }
        flat = [str(part) for option in options.items() for part in option]
        process = run_json([*OURS, "bench", str(model), "--json", *flat])
        report = process.output
        result = report["results"][0]
        speeds[f"prefill {prompt_tokens}"] = result["prefill_tps"]
        speeds.setdefault(f"decode {GEN_TOKENS}", result["decode_tps"])  # after 128 tokens
        peak_rss_bytes = max(peak_rss_bytes, report["peak_rss_bytes"] or process.peak_rss_bytes)
    return speeds, peak_rss_bytes


def cpu_seconds() -> tuple[float, float]:
    """Returns busy seconds of all cores since boot, and of our children; (0, 0) if unknown."""
    try:
        ticks = [int(t) for t in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except OSError:
        return 0.0, 0.0
    idle = ticks[3] + ticks[4]
    times = os.times()
    own = times.children_user + times.children_system
    return (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK"), own


def measure(side: str, arguments: argparse.Namespace, threads: int, burned_cores: int) -> Run:
    start, (busy, own) = time.monotonic(), cpu_seconds()
    if side == "ours":
        speeds, peak_rss_bytes = bench_ours(arguments.model, threads)
    else:
        speeds, peak_rss_bytes = bench_llama_cpp(arguments.llama_bench, arguments.model, threads)
    wall_s, (busy_end, own_end) = time.monotonic() - start, cpu_seconds()
    foreign = (busy_end - busy - (own_end - own)) / wall_s - burned_cores
    return Run(side, threads, speeds, peak_rss_bytes, round(max(foreign, 0.0), 2))


@contextmanager
def busy_core() -> Iterator[None]:
    """Keeps one core busy with another process meanwhile."""
    burner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        burner.kill()
        burner.wait()


def measure_all(arguments: argparse.Namespace) -> list[Run]:
    runs = []
    with busy_core() if arguments.busy_core else nullcontext():
        for _ in range(arguments.repeats):
            for threads in THREADS:
                for side in arguments.sides:
                    runs.append(measure(side, arguments, threads, int(arguments.busy_core)))
                    print(f"{runs[-1]}", file=sys.stderr, flush=True)
    return runs


def speeds_of(runs: list[Run], side: str, threads: int, test: str) -> list[float]:
    return [r.tokens_per_s[test] for r in runs if (r.side, r.threads) == (side, threads)]


def median(speeds: list[float]) -> float | None:
    return statistics.median(speeds) if speeds else None


def extent(speeds: list[float]) -> tuple[float, float] | None:
    return (min(speeds), max(speeds)) if speeds else None


def rows_of(runs: list[Run]) -> list[Row]:
    rows = []
    for threads in THREADS:
        for test in runs[0].tokens_per_s:
            ours = speeds_of(runs, "ours", threads, test)
            theirs = speeds_of(runs, "llama.cpp", threads, test)
            medians = median(ours), median(theirs)
            ratio = medians[0] / medians[1] if medians[0] and medians[1] else None
            rows.append(Row(threads, test, *medians, ratio, extent(ours), extent(theirs)))
    return rows


def thread_gain(rows: list[Row], side: str) -> dict[str, float]:
    """Returns the speedup of two threads over one, by test."""
    one, two = ({r.test: getattr(r, side) for r in rows if r.threads == t} for t in THREADS)
    return {test: two[test] / one[test] for test in one if one[test]}


def report_of(arguments: argparse.Namespace, runs: list[Run]) -> dict[str, Any]:
    rows = rows_of(runs)
    return {
        "model": arguments.model.name,
        "busy_core": arguments.busy_core,
        "repeats": arguments.repeats,
        "rows": [asdict(row) for row in rows],
        "two_threads_by_one": {
            "ours": thread_gain(rows, "ours"),
            "llama.cpp": thread_gain(rows, "llama_cpp"),
        },
        "peak_rss_bytes": {
            side: max(r.peak_rss_bytes for r in runs if r.side == side) for side in arguments.sides
        },
        "foreign_cores": [r.foreign_cores for r in runs],
    }


def figures_of(report: dict[str, Any]) -> Figures:
    figures: Figures = {}
    for row in report["rows"]:
        case = f"{report['model']}, {row['test']}, {row['threads']} threads"
        for side in ("ours", "llama_cpp"):
            if row[side] is not None:
                figures[f"{case}, {side} (tokens/s)"] = row[side]
    for side, num_bytes in report["peak_rss_bytes"].items():
        figures[f"{report['model']}, {side}, peak memory (MiB)"] = num_bytes / 2**20
    figures["cores kept busy by others"] = max(report["foreign_cores"])
    return figures


def cell(speed: float | None, extent: tuple[float, float] | None) -> str:
    return f"{speed:.1f} ({extent[0]:.1f}-{extent[1]:.1f})" if speed and extent else "-"


def print_table(report: dict[str, Any]) -> None:
    busy = ", another process on one core" if report["busy_core"] else ""
    print(f"{report['model']}, CPU, medians of {report['repeats']}, tokens a second{busy}\n")
    print("| threads | test | ours (range) | llama.cpp (range) | ours / llama.cpp |")
    print("|---|---|---|---|---|")
    for row in report["rows"]:
        ours = cell(row["ours"], row["ours_range"])
        theirs = cell(row["llama_cpp"], row["llama_cpp_range"])
        ratio = f"{row['ratio']:.2f}" if row["ratio"] else "-"
        print(f"| {row['threads']} | {row['test']} | {ours} | {theirs} | {ratio} |")
    for side, gains in report["two_threads_by_one"].items():
        if gains:
            listed = ", ".join(f"{test} {gain:.2f}" for test, gain in gains.items())
            print(f"\n{side}, two threads / one: {listed}", end="")
    peaks = (f"{side} {n / 2**20:.0f} MiB" for side, n in report["peak_rss_bytes"].items())
    print(f"\n\nPeak memory: {', '.join(peaks)}")
    print(f"Cores kept busy by others: at most {max(report['foreign_cores']):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama-bench", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--busy-core", action="store_true", help="burn one core meanwhile")
    parser.add_argument("--side", choices=["ours", "llama.cpp"], help="measure this one alone")
    add_save_option(parser)
    arguments = parser.parse_args()
    arguments.sides = [arguments.side] if arguments.side else ["ours", "llama.cpp"]
    report = report_of(arguments, measure_all(arguments))
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        print_table(report)
    if arguments.save:
        save("llama_cpp", arguments.save, figures_of(report))


if __name__ == "__main__":
    main()
