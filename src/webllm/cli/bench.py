"""`webllm bench`: tokens per second of prefill and decode, by batch size."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from webllm.cli.options import (
    ContextOption,
    DeviceOption,
    LoadOptions,
    ModelArgument,
    QuantizeOption,
    ThreadsOption,
    integer,
)
from webllm.cli.session import load
from webllm.cli.terminal import note, print_table, say, size
from webllm.config import DEFAULT_MODEL_ID
from webllm.errors import RequestError


@dataclass(frozen=True, slots=True)
class BatchResult:
    batch: int
    prompt_tokens: int
    gen_tokens: int
    prefill_tps: float
    decode_tps: float


@dataclass(frozen=True, slots=True)
class BenchReport:
    """`threads` is None if the engine chose the number."""

    model: str
    device: str
    threads: int | None
    load_s: float
    peak_rss_bytes: int | None
    results: list[BatchResult]


def bench(
    model: ModelArgument = DEFAULT_MODEL_ID,
    prompt_tokens: Annotated[
        int,
        typer.Option(
            "--prompt-tokens", "-p", parser=integer(1), metavar="N", help="Tokens in each prompt."
        ),
    ] = 128,
    gen_tokens: Annotated[
        int,
        typer.Option(
            "--gen-tokens",
            "-g",
            parser=integer(1),
            metavar="N",
            help="Tokens to generate after each prompt.",
        ),
    ] = 64,
    batch: Annotated[
        str,
        typer.Option("--batch", "-b", metavar="N,N,…", help="Batch sizes, separated by commas."),
    ] = "1",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    context: ContextOption = None,
    quantize: QuantizeOption = None,
) -> None:
    """Measure a model's speed on this machine."""
    import asyncio

    batches = _batches(batch)
    options = LoadOptions(model, device, threads, context, quantize)
    report, refused = asyncio.run(_measure(options, prompt_tokens, gen_tokens, batches))
    if as_json:
        import json

        say(json.dumps(asdict(report)))
    elif report.results:
        _print_table(report)
    if refused is not None:
        raise refused


def _batches(text: str) -> list[int]:
    try:
        sizes = [int(size) for size in text.split(",")]
    except ValueError:
        sizes = [0]
    if min(sizes) < 1:
        raise typer.BadParameter(f"--batch is {text!r}; give positive integers, such as 1,4,16")
    return sizes


async def _measure(
    options: LoadOptions, prompt_tokens: int, gen_tokens: int, batches: list[int]
) -> tuple[BenchReport, RequestError | None]:
    """Measures batches until one is refused; returns their rates and that one's error."""
    from time import perf_counter

    started = perf_counter()
    async with await load(options) as engine:
        load_s = perf_counter() - started
        results: list[BatchResult] = []
        refused = None
        for batch in batches:
            try:
                rates = await engine.benchmark(prompt_tokens, gen_tokens, batch)
            except RequestError as error:  # it does not fit
                refused = error
                break
            results.append(
                BatchResult(
                    batch=batch,
                    prompt_tokens=prompt_tokens,
                    gen_tokens=gen_tokens,
                    prefill_tps=round(batch * prompt_tokens / rates.prefill_s, 2),
                    decode_tps=round(rates.num_decoded / rates.decode_s, 2),
                )
            )
        report = BenchReport(
            model=options.model,
            device=await engine.device_name(),
            threads=options.threads,
            load_s=round(load_s, 3),
            peak_rss_bytes=_peak_rss_bytes(),
            results=results,
        )
        return report, refused


def _peak_rss_bytes() -> int | None:
    """Peak memory of this process; None where the system does not tell (Windows)."""
    import sys

    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _print_table(report: BenchReport) -> None:
    rows = [
        (
            str(result.batch),
            str(result.prompt_tokens),
            str(result.gen_tokens),
            f"{result.prefill_tps:.0f}",
            f"{result.decode_tps:.1f}",
        )
        for result in report.results
    ]
    columns = ("batch", "prompt", "generated", "prefill tok/s", "decode tok/s")
    print_table(columns, rows, numeric=True)
    note(
        f"{report.model} on {report.device}, loaded in {report.load_s:.1f} s, "
        f"peak memory {size(report.peak_rss_bytes)}"
    )
