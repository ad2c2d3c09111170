"""The shared engine is killed at random moments; its clients' answers stay the same to the bit."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from pathlib import Path
from statistics import median

import pytest

from golden.compare import model_path
from golden.daemon_kills import Clients
from long.figures import SEED, AddFigures, count, num_open_files
from webllm.workers.daemon_client import stop_daemon

NUM_KILLS = count("DAEMON_KILLS", 100)
LONGEST_S = 300.0  # for one round of answers


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
