"""Measures the time from the kill of the shared engine to the next token that its client gets.

    python benchmarks/kill_to_token.py [MODEL] [--device cpu] [--prompts 16,1000,3500] [--repeats 3]

For each length of prompt, a client streams, the engine's process is killed after 64 tokens, and the
client goes on with the process that it starts: it starts Python, loads the model, computes the
prompt and the 64 tokens once more. Beside it stand the parts: a start with a load, and the prompt's
time to its first token. The last column is the time in which the KV blocks of prompt and tokens
could be read from a file instead, with the model's sizes and this disk (from its cache, as after a
kill), and the time to write them. So it shows what keeping KV blocks on disk could save.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from results import Figures, add_save_option, save

from webllm import ChatOptions, MLCEngine, MLCEngineConfig
from webllm.workers.daemon_client import (
    DaemonMLCEngine,
    create_service_worker_mlc_engine,
    stop_daemon,
)
from webllm.workers.daemon_files import DaemonFiles

NUM_TOKENS = 64
CONTEXT_TOKENS = 4096
OPTIONS = ChatOptions(context_window_size=CONTEXT_TOKENS)


async def kv_bytes(model: str, device: str) -> int:
    """Returns the bytes of one position in the KV cache."""
    async with MLCEngine(MLCEngineConfig(device=device, log_level="ERROR")) as engine:
        await engine.reload(model, OPTIONS)
        cache = engine._session(None).model.loop.runner.program.kv_cache
        return 2 * 2 * cache.num_layers * cache.num_kv_heads * cache.head_dim  # keys, values; f16


async def stream(engine: DaemonMLCEngine, num_prompt: int, seed: int, kill: bool) -> float:
    """Returns the seconds to the first token; with `kill`, from the kill to the next token."""
    words = " ".join(f"{seed}" if i == 0 else "sea" for i in range(num_prompt))
    started, num_chunks = time.perf_counter(), 0
    chunks: Any = await engine.completion(
        {
            "prompt": words,
            "max_tokens": NUM_TOKENS + 16,
            "ignore_eos": True,
            "stream": True,
            "seed": seed,
        }
    )
    async for _ in chunks:
        num_chunks += 1
        if not kill or num_chunks > NUM_TOKENS:
            await chunks.aclose()
            return time.perf_counter() - started
        if num_chunks == NUM_TOKENS:
            pid = DaemonFiles.find().read_pid()
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            started = time.perf_counter()
    raise AssertionError("the answer ended too early")


async def measure(arguments: argparse.Namespace, folder: Path) -> Figures:
    position_bytes = await kv_bytes(arguments.model, arguments.device)
    config = MLCEngineConfig(device=arguments.device, log_level="ERROR")
    figures: Figures = {}
    starts = []
    for _ in range(arguments.repeats):
        started = time.perf_counter()
        async with await create_service_worker_mlc_engine(arguments.model, config, OPTIONS):
            starts.append(time.perf_counter() - started)
        await stop_daemon()
    figures["start and load (s)"] = median(starts)
    print(f"start and load: {median(starts):.2f} s; KV: {position_bytes} bytes a token")
    engine = await create_service_worker_mlc_engine(arguments.model, config, OPTIONS)
    async with engine:
        for num_prompt in arguments.prompts:
            firsts, kills = [], []
            for repeat in range(arguments.repeats):
                firsts.append(await stream(engine, num_prompt, 2 * repeat, kill=False))
                kills.append(await stream(engine, num_prompt, 2 * repeat + 1, kill=True))
            num_bytes = position_bytes * (num_prompt + NUM_TOKENS)
            written, read = disk_times(folder / "kv", num_bytes)
            print(
                f"prompt of {num_prompt}: kill to next token {median(kills):.2f} s; first token of "
                f"a request {median(firsts):.2f} s; KV {num_bytes / 1e6:.0f} MB, written in "
                f"{written:.2f} s, read in {read:.2f} s"
            )
            label = f"prompt of {num_prompt}"
            figures |= {
                f"{label}, kill to next token (s)": median(kills),
                f"{label}, first token (s)": median(firsts),
                f"{label}, KV written (s)": written,
                f"{label}, KV read (s)": read,
            }
    await stop_daemon()
    return figures


def disk_times(file: Path, num_bytes: int) -> tuple[float, float]:
    """Returns the seconds to write a file durably and to read it."""
    data = os.urandom(num_bytes)
    started = time.perf_counter()
    with file.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    written = time.perf_counter()
    file.read_bytes()
    return written - started, time.perf_counter() - written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="SmolLM2-135M-Instruct")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--prompts",
        type=lambda text: [int(each) for each in text.split(",")],
        default=[16, 1000, 3500],
        metavar="N,N",
    )
    add_save_option(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WEBLLM_RUNTIME_DIR"] = folder
        figures = asyncio.run(measure(arguments, Path(folder)))
    if arguments.save:
        save("kill_to_token", arguments.save, figures)


if __name__ == "__main__":
    main()
