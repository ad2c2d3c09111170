"""The shared engine is killed at random moments; its clients' answers stay the same to the bit."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import pytest

from golden.compare import model_path
from golden.daemon_kills import Clients, all_blocks, free_blocks, num_under_way
from long.figures import SEED, AddFigures, count, num_open_files
from webllm.workers.daemon_client import stop_daemon

# A client in a process of its own: it streams without an end, and says when it has begun.
ENDLESS_CLIENT = """
import asyncio, sys
from webllm import MLCEngineConfig, create_service_worker_mlc_engine

async def main():
    engine = await create_service_worker_mlc_engine(sys.argv[1], MLCEngineConfig(device="cpu"))
    extra = {"context_overflow": "shift"}
    stream = await engine.completions.create(
        prompt="The sea", max_tokens=10**6, ignore_eos=True, stream=True, extra_body=extra
    )
    await anext(stream)
    print("begun", flush=True)
    async for _ in stream:
        pass

asyncio.run(main())
"""

NUM_KILLS = count("DAEMON_KILLS", 100)
LONGEST_S = 300.0  # for one round of answers
GRACE_S = 30.0  # for a client that is lost, see `MLCEngineHandler`


async def test_kills_lose_double_and_change_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, add_figures: AddFigures
) -> None:
    model = str(await model_path("smollm2-135m"))
    rng = random.Random(SEED)
    clients, num_kills, num_rounds = Clients(), 0, 0
    with tempfile.TemporaryDirectory() as folder:  # its path is short enough for a socket
        monkeypatch.setenv("WEBLLM_RUNTIME_DIR", folder)
        monkeypatch.setenv("WEBLLM_HOME", str(tmp_path))
        try:
            await clients.open(model)
            started = time.monotonic()
            expected = await clients.answers()
            undisturbed_s = time.monotonic() - started

            async def kill() -> None:
                nonlocal num_kills
                while num_kills < NUM_KILLS:
                    # Most kills come while answers run; a third while the engine starts and loads.
                    longest = undisturbed_s if rng.random() < 2 / 3 else 0
                    await asyncio.sleep(rng.uniform(0, 2.5 + longest))
                    num_kills += clients.kill()

            killing = asyncio.create_task(kill())
            open_files = set[int]()
            while num_kills < NUM_KILLS:
                async with asyncio.timeout(LONGEST_S):
                    assert await clients.answers() == expected, f"{SEED=}, kill {num_kills}"
                num_rounds += 1
                open_files.add(num_open_files())
            await killing
        finally:
            await clients.close()
            await stop_daemon()
    assert max(open_files) - min(open_files) < 3, f"files stay open: {open_files}"
    figures = {
        "kills": num_kills,
        "rounds of 8 streams": num_rounds,
        "kill to next token, median (s)": median(clients.gaps_s),
        "kill to next token, worst (s)": max(clients.gaps_s),
    }
    add_figures("daemon kills", figures)


async def test_a_killed_client_frees_its_blocks_after_the_grace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, add_figures: AddFigures
) -> None:
    model, clients = str(await model_path("smollm2-135m")), Clients()
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("WEBLLM_RUNTIME_DIR", folder)
        monkeypatch.setenv("WEBLLM_HOME", str(tmp_path))
        try:
            await clients.open(model)
            expected = await clients.answers()
            command = (sys.executable, "-c", ENDLESS_CLIENT, model)
            killed = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
            assert killed.stdout is not None
            assert await killed.stdout.readline() == b"begun\n"
            killed.kill()
            started = time.monotonic()
            await killed.wait()
            assert await clients.answers() == expected  # beside the answer that nobody reads
            async with asyncio.timeout(2 * GRACE_S):
                while await num_under_way():
                    await asyncio.sleep(0.1)
            freed_s = time.monotonic() - started
            assert await free_blocks() == await all_blocks()
        finally:
            await clients.close()
            await stop_daemon()
    assert freed_s > 0.9 * GRACE_S
    add_figures("killed client", {"blocks free after (s)": freed_s})
