"""Loads mutated model files and generates two tokens from each; only a WebLLMError may be raised.

    python tests/fuzz/fuzz_model.py --count 20000 [--seed 0] [--seconds 600] [--host wasm]
    python tests/fuzz/fuzz_model.py --sanitize ...      kernels with AddressSanitizer and UBSan
    python tests/fuzz/fuzz_model.py --seed 0 --first 17 --count 1 --keep m.gguf     one file again

File number i of a seed is always the same. Child processes take the files in chunks. Findings are:
a child that a signal ends or that takes longer than `--limit` for one file, an error of another
kind, and memory beyond twice the file plus 500 MB.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import gc
import os
import shlex
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gguf_mutations import mutated

MAX_BYTES = 500 << 20  # resident, beside twice the file
CHUNK = 250  # files of one child
VARIANT = "WEBLLM_CPU_ISA"


@dataclass(slots=True)
class Report:
    count: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    slowest: float = 0.0  # seconds
    peak_bytes: int = 0


# ------------------------------------------------------------------------------ in a child process


REQUESTS: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 1.0, "top_p": 0.9, "logprobs": True, "top_logprobs": 20},
    {"temperature": 0.5, "frequency_penalty": 2.0, "presence_penalty": -2.0},
    {"logit_bias": {"0": -100, "7": 100}, "n": 2},
]
WINDOWS = [*[None] * 12, 1, 16, 40, 2**31 - 1]


async def use(path: Path, index: int = 0) -> str:
    """Loads a model, chats and completes; returns an outcome's name, and lets errors through."""
    from webllm import ChatOptions, MLCEngine, MLCEngineConfig

    loop, lost = asyncio.get_running_loop(), list[str]()
    loop.set_exception_handler(lambda _, context: lost.append(repr(context)))
    fields = {"max_tokens": 2, "seed": index, **REQUESTS[index % len(REQUESTS)]}
    window = ChatOptions(context_window_size=WINDOWS[index % len(WINDOWS)])
    config = MLCEngineConfig(device="cpu", num_threads=2, log_level="SILENT")
    async with MLCEngine(config) as engine:
        await engine.reload(str(path), window)
        done = "answered"
        try:
            messages = [{"role": "user", "content": "Hi ab"}]
            await engine.chat_completion({"messages": messages, **fields})
        except Exception as error:
            done = f"chat {outcome_of(error)}"
        await engine.completion({"prompt": "ab Hi", "max_tokens": 2, "temperature": 0})
    assert not lost, lost
    return done


def outcome_of(error: BaseException) -> str:
    """Returns the name of a WebLLMError; raises any other error."""
    from webllm.errors import WebLLMError

    if isinstance(error, WebLLMError):
        return type(error).__name__
    raise error


def run_files(options: argparse.Namespace) -> None:
    """Prints a line when a file begins and one when it is done."""
    sys.path.append(str(Path(__file__).parents[1] / "unit"))
    if options.sanitize:
        import sanitized_kernels

        sanitized_kernels.install(options.sanitize)
    if options.host == "wasm":
        use_wasm()
    path = options.folder / f"{os.getpid()}.gguf"
    for index in range(options.first, options.first + options.count):
        data, _ = mutated(options.seed, index)
        path.write_bytes(data)
        print(f"begin {index}", flush=True)
        faulthandler.dump_traceback_later(options.limit, exit=True)
        started = time.perf_counter()
        try:
            outcome = asyncio.run(use(path, index))
        except Exception as error:
            try:
                outcome = outcome_of(error)
            except Exception:
                traceback.print_exc()
                frame = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{Path(frame.filename).name}:{frame.lineno}"
                outcome = f"untyped {type(error).__name__} at {place}"
        gc.collect()
        peak = peak_bytes()
        if peak > 2 * len(data) + MAX_BYTES and not options.sanitize:
            outcome = f"memory {peak >> 20} MB"
        seconds = time.perf_counter() - started
        print(f"end {seconds:.3f} {peak} {outcome}", flush=True)
        if outcome.startswith("memory"):
            break
    faulthandler.cancel_dump_traceback_later()
    path.unlink()


def peak_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def use_wasm() -> None:
    from cpu_wasm_kernels import WasmKernels

    from webllm.backends.cpu import auto
    from webllm.backends.cpu.native_library import FOLDER

    async def open_kernels(num_threads: int | None = None) -> WasmKernels:
        return WasmKernels(FOLDER / f"webllm_cpu_{os.environ.get(VARIANT, 'simd128')}.wasm")

    auto.open_kernels = open_kernels


# --------------------------------------------------------------------------------- in the parent


def fuzz(options: argparse.Namespace) -> Report:
    report, started = Report(), time.monotonic()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        folder = Path(name)
        variants = ["relaxed", "simd128"] if options.host == "wasm" else [""]
        if options.sanitize:
            import sanitized_kernels

            variants = sanitized_kernels.build(options.sanitize)
        end = options.first + options.count
        index = options.first
        while index < end and time.monotonic() - started < options.seconds:
            variant = variants[index // CHUNK % len(variants)]
            count = min(CHUNK - index % CHUNK, end - index)
            left = options.seconds - (time.monotonic() - started)
            found = len(report.findings)
            try:
                index = run_child(options, folder, index, count, variant, left, report)
            except KeyboardInterrupt:
                break
            finally:
                print(*report.findings[found:], sep="\n", end="", flush=True)
    return report


def run_child(
    options: argparse.Namespace,
    folder: Path,
    first: int,
    count: int,
    variant: str,
    seconds: float,
    report: Report,
) -> int:
    """Returns the index of the next file."""
    seed = ["--seed", str(options.seed), "--host", options.host, "--limit", str(options.limit)]
    chunk = ["--first", str(first), "--count", str(count), "--child", str(folder)]
    sanitized = ["--sanitize", str(options.sanitize)] if options.sanitize else []
    environment = dict(os.environ)
    if variant:
        environment[VARIANT] = variant
    if options.sanitize:
        import sanitized_kernels

        environment |= sanitized_kernels.environment()
    deadline, errors = time.monotonic() + seconds, folder / "stderr"
    command = [sys.executable, __file__, *seed, *chunk, *sanitized]
    with errors.open("wb") as stderr:
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment
        )
    index, outcome = first - 1, "ended"
    assert child.stdout is not None
    for line in child.stdout:
        word, rest = line.rstrip("\n").split(" ", 1)
        if word == "begin":
            index, outcome = int(rest), ""
            continue
        took, peak, outcome = rest.split(" ", 2)
        report.count += 1
        report.outcomes[outcome] += 1
        report.slowest = max(report.slowest, float(took))
        report.peak_bytes = max(report.peak_bytes, int(peak))
        if outcome.startswith(("untyped", "memory")):
            report.findings.append(described(options, index, outcome, variant, ""))
        if time.monotonic() > deadline:
            child.terminate()
            break
    code = child.wait()
    text = errors.read_text(errors="replace")
    if not outcome:  # this file ended the child
        kind = "hang" if "Timeout (" in text else f"ended with {code}"
        report.findings.append(described(options, index, kind, variant, text))
    elif index < first:
        raise SystemExit(f"no child starts:\n{text}")
    elif code and time.monotonic() <= deadline:
        what = f"its child ended with {code} after this file"
        report.findings.append(described(options, index, what, variant, text))
    return index + 1


def described(options: argparse.Namespace, index: int, what: str, variant: str, text: str) -> str:
    _, edits = mutated(options.seed, index)
    again = f"--seed {options.seed} --first {index} --count 1 --host {options.host}"
    if options.sanitize:
        again += f" --sanitize {shlex.quote(str(options.sanitize))}"
    repeat = f"{VARIANT}={variant} " if variant else ""
    lines = [f"file {index}: {what}", *(f"    {edit}" for edit in edits)]
    lines.append(f"    again: {repeat}python tests/fuzz/fuzz_model.py {again}")
    return "\n".join([*lines, text[:6000]])


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--limit", type=float, default=10.0, help="seconds that a file may take")
    parser.add_argument("--host", choices=["native", "wasm"], default="native")
    parser.add_argument("--sanitize", type=Path, help="folder for kernels built with sanitizers")
    parser.add_argument("--keep", type=Path, help="write the first file here, and run nothing")
    parser.add_argument("--child", dest="folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> None:
    options = parsed()
    if options.keep:
        data, edits = mutated(options.seed, options.first)
        options.keep.write_bytes(data)
        print("\n".join(edits))
        return
    if options.folder:
        run_files(options)
        return
    started = time.monotonic()
    report = fuzz(options)
    print(
        f"{report.count} files in {time.monotonic() - started:.0f} s, the slowest in "
        f"{report.slowest:.2f} s, {report.peak_bytes >> 20} MB at most, "
        f"{len(report.findings)} findings"
    )
    for outcome, number in report.outcomes.most_common():
        print(f"  {outcome}: {number}")
    sys.exit(bool(report.findings))


if __name__ == "__main__":
    main()
