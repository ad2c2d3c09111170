"""Measures load time and peak memory of one model in several forms, each in a process of its own.

    python benchmarks/load_forms.py A.gguf MLC-FOLDER SAFETENSORS-FOLDER [--rounds 5]

Alternates the models, so that a busy moment of the machine meets all of them. Prints the median of
the seconds from opening the files to a model that answers, on the CPU, and the largest resident
memory of the process (which has the mapped files, as far as they were read, in it), also per byte
of the model's files. tests/model_files writes a model in other forms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

from webllm import MLCEngineConfig, create_mlc_engine


def size_of(model: Path) -> int:
    files = model.iterdir() if model.is_dir() else [model]
    return sum(file.stat().st_size for file in files)


async def load(model: str) -> None:
    """Prints the seconds of a load and the peak memory in bytes."""
    began = perf_counter()
    async with await create_mlc_engine(model, MLCEngineConfig(device="cpu")):
        seconds = perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps([seconds, peak]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        asyncio.run(load(str(options.models[0])))
        return
    found: dict[Path, list[tuple[float, int]]] = {model: [] for model in options.models}
    for _ in range(options.rounds):
        for model, results in found.items():
            command = [sys.executable, __file__, str(model), "--one"]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results.append(tuple(json.loads(output.splitlines()[-1])))
    print(f"{'model':32} {'MB':>7} {'s':>6} {'s/GB':>6} {'peak MB':>8} {'peak/file':>9}")
    for model, results in found.items():
        seconds, peak = median(s for s, _ in results), median(p for _, p in results)
        size = size_of(model)
        print(
            f"{model.name:32} {size / 1e6:7.1f} {seconds:6.2f} {seconds / size * 1e9:6.2f} "
            f"{peak / 1e6:8.0f} {peak / size:9.2f}"
        )


if __name__ == "__main__":
    main()
