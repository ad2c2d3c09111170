"""Measures what the journal costs: decode with and without `extra_body.resumable`.

    python benchmarks/journal_overhead.py [MODEL] [--streams 1,16] [--repeats 5] [--save]

Streams run at once in this process, with and without a journal in turns, in a folder on the disk
that holds the temporary ones. Decode is counted from the first token of the last stream that begins
to the end; the table gives medians, and the median of the ratios of neighbours.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median
from typing import Any

from results import Figures, add_save_option, save

from webllm import MLCEngine, MLCEngineConfig
from webllm.artifacts.journal_files import JournalFiles
from webllm.engine.journal import Journal


async def measure(engine: MLCEngine, num_streams: int, num_tokens: int, kept: bool) -> Figures:
    """Returns the tokens per second of all streams together, and the time to the first token."""
    started = time.perf_counter()

    async def stream(i: int) -> tuple[float, float]:
        request: dict[str, Any] = {
            "prompt": f"{i} rivers flow to the sea, and the sea",
            "max_tokens": num_tokens,
            "ignore_eos": True,
            "stream": True,
            "seed": i,
            "extra_body": {"resumable": {"enabled": kept}},
        }
        chunks: AsyncIterator[Any] = await engine.completion(request)  # type: ignore[assignment]
        first = 0.0
        async for _ in chunks:
            first = first or time.perf_counter()
        return first, time.perf_counter()

    times = await asyncio.gather(*map(stream, range(num_streams)))
    begun, ended = max(first for first, _ in times), max(last for _, last in times)
    return {
        "decode (tokens/s)": num_streams * (num_tokens - 1) / (ended - begun),
        "first token (ms)": 1000 * (median(first for first, _ in times) - started),
    }


async def compare(arguments: argparse.Namespace, folder: Path) -> Figures:
    engine = MLCEngine(
        MLCEngineConfig(device=arguments.device, log_level="ERROR"),
        journal=Journal(JournalFiles(folder)),
    )
    figures: Figures = {}
    async with engine:
        await engine.reload(arguments.model)
        for num_streams in arguments.streams:
            await measure(engine, num_streams, 8, kept=True)  # compiles
            runs: dict[bool, list[Figures]] = {False: [], True: []}
            for _ in range(arguments.repeats):
                for kept in runs:
                    runs[kept].append(await measure(engine, num_streams, arguments.tokens, kept))
            for name in runs[False][0]:
                plain, kept_ = ([run[name] for run in runs[kept]] for kept in runs)
                ratio = median(b / a for a, b in zip(plain, kept_, strict=True))
                label = f"{num_streams} streams, {name}"
                print(
                    f"{label}: {median(plain):.1f} plain, {median(kept_):.1f} kept, "
                    f"ratio {ratio:.3f}"
                )
                figures |= {f"{label}, plain": median(plain), f"{label}, kept / plain": ratio}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="SmolLM2-135M-Instruct")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--streams", type=lambda text: [int(each) for each in text.split(",")], default=[1, 16]
    )
    add_save_option(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(compare(arguments, Path(folder)))
    if arguments.save:
        save("journal_overhead", arguments.save, figures)


if __name__ == "__main__":
    main()
