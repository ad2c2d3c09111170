"""Compares the throughput of concurrent streams: webllm's CPU backend and llama.cpp's server.

    python benchmarks/concurrent_streams.py MODEL.gguf --llama-server PATH

Each engine answers N different prompts at once, with the same number of tokens for each. webllm
runs in this process; llama.cpp, with N slots, is asked over HTTP on localhost. The engines take
turns. The table gives the medians of generated tokens per second over a whole run, prefill
included, and the time of webllm's slowest stream over that of its median stream.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from statistics import median

import httpx

from webllm import ChatOptions, MLCEngine, MLCEngineConfig

CONTEXT_TOKENS = 1024  # of each stream

Answer = Callable[[str, int], Awaitable[int]]  # (prompt, max_tokens) -> tokens generated


@dataclass(frozen=True, slots=True)
class Workload:
    streams: int
    prompt_words: int
    max_tokens: int

    def prompts(self) -> list[str]:
        words = ["river", "stone", "cloud", "light", "house", "green", "seven", "paper"]
        return [
            " ".join(words[(i * 5 + j * (3 + i % 4)) % 8] for j in range(self.prompt_words))
            + f" {i}"
            for i in range(self.streams)
        ]


@dataclass(frozen=True, slots=True)
class Run:
    tokens_per_s: float
    slowest: float  # time of the slowest stream over that of the median one


@contextlib.asynccontextmanager
async def webllm(model: str, streams: int, threads: int) -> AsyncIterator[Answer]:
    config = MLCEngineConfig(
        device="cpu",
        num_threads=threads,
        kv_cache_tokens=streams * CONTEXT_TOKENS,
        log_level="ERROR",
    )
    async with MLCEngine(config) as engine:
        await engine.reload(model, ChatOptions(context_window_size=CONTEXT_TOKENS))

        async def answer(prompt: str, max_tokens: int) -> int:
            await engine.reset_chat()  # or the prefix cache would have the last run's prompts
            reply = await engine.completions.create(
                prompt=prompt, max_tokens=max_tokens, temperature=0, ignore_eos=True
            )
            return reply.usage.completion_tokens if reply.usage else 0

        yield answer


@contextlib.asynccontextmanager
async def llama_server(path: str, model: str, streams: int, threads: int) -> AsyncIterator[Answer]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [path, "-m", model, "-np", str(streams), "-c", str(streams * CONTEXT_TOKENS)]
    command += ["-t", str(threads), "--port", str(port), "--no-webui"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=quiet, stderr=quiet) as process:
        address = f"http://127.0.0.1:{port}"
        limits = httpx.Limits(max_connections=None)
        try:
            async with httpx.AsyncClient(base_url=address, timeout=600, limits=limits) as client:
                await _wait_until_ready(client, process)

                async def answer(prompt: str, max_tokens: int) -> int:
                    fields = {"prompt": prompt, "n_predict": max_tokens, "temperature": 0}
                    fields |= {"ignore_eos": True, "cache_prompt": False}
                    reply = await client.post("/completion", json=fields)
                    return int(reply.json()["tokens_predicted"])

                yield answer
        finally:
            process.terminate()


async def _wait_until_ready(client: httpx.AsyncClient, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if (await client.get("/health")).status_code == 200:
                return
        await asyncio.sleep(0.1)
    raise SystemExit(f"llama-server ended with {process.returncode}")


async def run(workload: Workload, answer: Answer) -> Run:
    started = time.perf_counter()

    async def one(prompt: str) -> tuple[int, float]:
        num_tokens = await answer(prompt, workload.max_tokens)
        return num_tokens, time.perf_counter() - started

    results = await asyncio.gather(*map(one, workload.prompts()))
    times = [seconds for _, seconds in results]
    total = sum(num_tokens for num_tokens, _ in results)
    assert total == workload.streams * workload.max_tokens, f"{total} tokens came"
    return Run(total / max(times), max(times) / median(times))


async def compare(args: argparse.Namespace, workload: Workload) -> dict[str, float]:
    """Returns a row of the table; the first run of each engine only warms up."""
    runs: dict[str, list[Run]] = {"webllm": [], "llama.cpp": []}
    ours = webllm(args.model, workload.streams, args.threads)
    theirs = llama_server(args.llama_server, args.model, workload.streams, args.threads)
    async with ours as our_answer, theirs as their_answer:
        for _ in range(1 + args.repeats):
            runs["webllm"].append(await run(workload, our_answer))
            runs["llama.cpp"].append(await run(workload, their_answer))
    mine, other = (median(r.tokens_per_s for r in each[1:]) for each in runs.values())
    return {
        "streams": workload.streams,
        "webllm_tps": round(mine, 1),
        "llama_cpp_tps": round(other, 1),
        "ratio": round(mine / other, 2),
        "slowest_over_median": round(median(r.slowest for r in runs["webllm"][1:]), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--llama-server", required=True)
    parser.add_argument("--streams", default="1,4,16,64")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt-words", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    for streams in map(int, args.streams.split(",")):
        row = asyncio.run(compare(args, Workload(streams, args.prompt_words, args.max_tokens)))
        if args.json:
            print(json.dumps(row))
        else:
            print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
