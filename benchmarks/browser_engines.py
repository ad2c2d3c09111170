"""Compares engines in one browser: webllm, wllama, WebLLM; and with native llama.cpp.

    python benchmarks/browser_engines.py [MODEL] [--engines webllm-cpu,wllama] [--llama-bench PATH]
    python benchmarks/browser_engines.py [MODEL] --serve

Drives the benchmark page (js/src/benchmark), which explains the figures, in headless Chromium, or
serves it for your own browser. Engines run alternately, each sample in a new worker, and medians
are compared. It reports how busy other processes kept the machine.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
from llama_cpp import run_json

from webllm.artifacts.resolve import ensure_artifact
from webllm.artifacts.store import DirectoryStore
from webllm.config import DEFAULT_MODEL_ID, ModelRecord, prebuilt_app_config

JS = Path(__file__).parents[1] / "js"
MODEL_PATH = "/models/model.gguf"
ISOLATION = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}
FLAGS = ["--no-sandbox", "--no-first-run", "--disable-background-networking", "--disable-sync"]
SWIFTSHADER = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]
NATIVE = "llama.cpp"
COMPARED_WITH = {
    "wllama": "webllm-cpu",
    "wllama-threads": "webllm-threads",
    "wllama-webgpu": "webllm-webgpu",
    "web-llm": "webllm-webgpu",
    NATIVE: "webllm-cpu",
}


@dataclass(frozen=True)
class Figure:
    """A measured value: one field of the page's samples."""

    field: str
    title: str
    is_rate: bool  # tokens a second; else ms


FIGURES = (
    Figure("bootMs", "boot, ms", False),
    Figure("startColdMs", "start, store empty, ms", False),
    Figure("startStoredMs", "start from store, ms", False),
    Figure("firstTokenMs", "first token, ms", False),
    Figure("prefillTokensPerS", "prefill, tokens/s", True),
    Figure("decodeTokensPerS", "decode, tokens/s", True),
)


@dataclass(frozen=True)
class Run:
    """One sample of one engine."""

    engine: str
    sample: dict[str, Any]
    foreign_cores: float  # cores that other processes kept busy meanwhile


class Handler(SimpleHTTPRequestHandler):
    """Serves the built site, other engines in /peers/, one model and a catalogue with it."""

    protocol_version = "HTTP/1.1"

    def __init__(
        self, *args: Any, model: Path, catalogue: bytes, mlc: Path | None, isolated: bool
    ) -> None:
        self.model, self.catalogue, self.mlc, self.isolated = model, catalogue, mlc, isolated
        super().__init__(*args, directory=str(JS / "dist"))

    def translate_path(self, path: str) -> str:
        if path == MODEL_PATH:
            return str(self.model)
        if path.startswith("/peers/"):
            return str(JS / "peers" / Path(path).name)
        if self.mlc is not None and path.startswith("/mlc/"):
            return str(self.mlc / path.removeprefix("/mlc/"))
        return super().translate_path(path)

    def do_GET(self) -> None:
        if self.path != "/models.json":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.catalogue)))
        self.end_headers()
        self.wfile.write(self.catalogue)

    def copyfile(self, source: Any, outputfile: Any) -> None:
        with suppress(ConnectionError):  # a page may cancel
            super().copyfile(source, outputfile)

    def end_headers(self) -> None:
        for name, value in ISOLATION.items() if self.isolated else ():
            self.send_header(name, value)
        if self.path == MODEL_PATH:
            self.send_header("Cache-Control", "no-store")  # a cold start downloads
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing."""


@contextmanager
def serving(options: argparse.Namespace, record: ModelRecord, model: Path) -> Iterator[str]:
    """Serves the benchmark page; yields its address."""
    here = msgspec.structs.replace(record, model=MODEL_PATH, size_bytes=model.stat().st_size)
    catalogue = json.dumps({"model_list": [msgspec.to_builtins(here)]}).encode()
    isolated = not options.not_isolated
    served = {"model": model, "catalogue": catalogue, "mlc": options.mlc, "isolated": isolated}
    port = options.port if options.serve else 0
    with ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, **served)) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        query = "peers" if options.mlc is None else "peers&mlc=/mlc/models.json"
        yield f"http://127.0.0.1:{server.server_port}/benchmark.html?{query}"
        server.shutdown()


@contextmanager
def benchmark_page(url: str, options: argparse.Namespace) -> Iterator[Any]:
    """Opens the page in headless Chromium and fills in its form."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        raise RuntimeError("there is no chromium and no google-chrome to run; install one")
    flags = [*FLAGS, *(SWIFTSHADER if options.swiftshader else []), *options.flag]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        page = browser.new_page()
        page.set_default_timeout(0)  # slow engines take what they need
        page.on("pageerror", lambda error: print(f"page: {error}", file=sys.stderr))
        page.goto(url)
        page.wait_for_function("window.measure !== undefined")
        page.fill("#prompt-tokens", str(options.prompt_tokens))
        page.fill("#max-tokens", str(options.gen_tokens))
        page.fill("#threads", str(options.threads))
        yield page
        browser.close()


def bench_native(options: argparse.Namespace, model: Path) -> dict[str, Any]:
    """Runs llama-bench with one thread; decodes after the prompt, as the page does."""
    common = [str(options.llama_bench), "-m", str(model), "-t", "1", "-r", "1", "-o", "json"]
    num_prompt, num_gen = str(options.prompt_tokens), str(options.gen_tokens)
    prefill = run_json([*common, "-p", num_prompt, "-n", "0"]).output[0]
    decode = run_json([*common, "-p", "0", "-n", num_gen, "-d", num_prompt]).output[0]
    return {
        "device": f"native CPU (1 threads), build {prefill['build_commit']}",
        "prefillTokensPerS": prefill["avg_ts"],
        "decodeTokensPerS": decode["avg_ts"],
    }


def cpu_seconds() -> tuple[float, float]:
    """Returns busy seconds of all cores since boot, and of this process tree; Linux only."""
    ticks = [int(t) for t in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    parents, used = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # the process has ended
            fields = path.read_text().rpartition(")")[2].split()
            parents[int(path.parent.name)] = int(fields[1])
            used[int(path.parent.name)] = sum(map(int, fields[11:15]))  # ended children included
    own = {os.getpid()}
    while grown := {pid for pid, parent in parents.items() if parent in own} - own:
        own |= grown
    per_s = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - ticks[3] - ticks[4]) / per_s, sum(used[pid] for pid in own) / per_s


def watched(engine: str, measure: Callable[[], dict[str, Any]]) -> Run:
    begun, (busy, own) = time.monotonic(), cpu_seconds()
    sample = measure()
    wall_s, (busy_end, own_end) = time.monotonic() - begun, cpu_seconds()
    foreign = (busy_end - busy - (own_end - own)) / wall_s
    return Run(engine, sample, round(max(foreign, 0.0), 2))


def measure_all(page: Any, options: argparse.Namespace, model: Path) -> list[Run]:
    runs = []
    for _ in range(options.repeats):
        for engine in options.engines:
            if engine == NATIVE:
                measure = partial(bench_native, options, model)
            else:
                measure = partial(page.evaluate, "id => measure(id)", engine)
            runs.append(watched(engine, measure))
            print(runs[-1], file=sys.stderr, flush=True)
    return runs


def values_of(runs: list[Run], engine: str, figure: Figure) -> list[float]:
    values = (run.sample.get(figure.field) for run in runs if run.engine == engine)
    return [value for value in values if value is not None]


def ours_times_as_fast(runs: list[Run], engine: str, figure: Figure) -> float | None:
    ours = values_of(runs, COMPARED_WITH.get(engine, ""), figure)
    theirs = values_of(runs, engine, figure)
    if not ours or not theirs:
        return None
    ratio = statistics.median(ours) / statistics.median(theirs)
    return ratio if figure.is_rate else 1 / ratio


def cell(runs: list[Run], engine: str, figure: Figure) -> str:
    values = values_of(runs, engine, figure)
    if not values:
        return "-"
    digits = 1 if figure.is_rate else 0
    middle, least, most = statistics.median(values), min(values), max(values)
    text = f"{middle:.{digits}f} ({least:.{digits}f}-{most:.{digits}f})"
    ratio = ours_times_as_fast(runs, engine, figure)
    return f"{text}, ours {ratio:.2f}x" if ratio else text


def print_table(runs: list[Run], options: argparse.Namespace) -> None:
    print(
        f"{options.model}, prompt {options.prompt_tokens} tokens, {options.gen_tokens} generated, "
        f"medians of {options.repeats} (range)\n"
    )
    print("| engine | " + " | ".join(figure.title for figure in FIGURES) + " |")
    print("|---" * (len(FIGURES) + 1) + "|")
    for engine in options.engines:
        cells = [cell(runs, engine, figure) for figure in FIGURES]
        print(f"| {engine} | {' | '.join(cells)} |")
    print()
    for engine in options.engines:
        print(f"{engine}: {next(r.sample['device'] for r in runs if r.engine == engine)}")
    foreign = [run.foreign_cores for run in runs]
    print(
        f"\nCores kept busy by others: median {statistics.median(foreign):.2f}, "
        f"at most {max(foreign):.2f}"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL_ID, help="an id, or a GGUF file")
    parser.add_argument("--engines", default="webllm-cpu,wllama", help="ids, separated by commas")
    parser.add_argument("--llama-bench", type=Path, help="also native llama.cpp, one thread")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--gen-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--not-isolated", action="store_true", help="without COOP and COEP headers")
    parser.add_argument("--swiftshader", action="store_true", help="WebGPU in software")
    parser.add_argument("--flag", action="append", default=[], help="one more for Chromium")
    parser.add_argument("--mlc", type=Path, help="a folder of models for WebLLM, see README.md")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--serve", action="store_true", help="serve the page and measure nothing")
    parser.add_argument("--port", type=int, default=8000, help="to serve it at")
    options = parser.parse_args()
    options.engines = options.engines.split(",") + ([NATIVE] if options.llama_bench else [])
    return options


def main() -> None:
    options = parse()
    record = prebuilt_app_config().find(options.model)
    model = asyncio.run(ensure_artifact(record.source, DirectoryStore()))
    with serving(options, record, model) as url:
        if options.serve:
            print(f"{url}; Ctrl-C ends it", flush=True)
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
            return
        with benchmark_page(url, options) as page:
            runs = measure_all(page, options, model)
    if options.json:
        print(json.dumps([asdict(run) for run in runs], indent=2))
    else:
        print_table(runs, options)


if __name__ == "__main__":
    main()
