"""Worker processes killed while they start, load and answer: every call ends, and none is hung."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import time
from collections.abc import Coroutine
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from made_up_models import Sizes, draft_of

from long.figures import SEED, AddFigures, count, num_open_files
from webllm import ChatOptions, MLCEngineConfig
from webllm.errors import ModelNotLoadedError, WorkerLostError
from webllm.workers.process import ProcessPort, create_worker_process
from webllm.workers.proxy import WorkerMLCEngine

NUM_KILLS = count("KILLS", 200)
LONGEST_S = 30.0  # a call that takes longer is hung
CPU, SHIFT = MLCEngineConfig(device="cpu"), ChatOptions(context_overflow="shift")
FOREVER: dict[str, Any] = {"prompt": "Hi ab", "max_tokens": 10**6, "ignore_eos": True}
SHORT: dict[str, Any] = {"prompt": "ab", "max_tokens": 8, "temperature": 0, "ignore_eos": True}


@pytest.fixture
def model(tmp_path: Path) -> str:
    file = tmp_path / "model.gguf"
    file.write_bytes(draft_of(random.Random(0), Sizes("llama")).packed())
    return str(file)


async def test_kills_in_mid_answer(model: str, add_figures: AddFigures) -> None:
    rng = random.Random(SEED)
    num_lost = num_answered = 0
    ends_s, restarts_s, open_files = list[float](), list[float](), set[int]()
    async with await create_worker_process(model, CPU, SHIFT) as engine:
        expected = await short_text(engine)
        for _ in range(NUM_KILLS):
            calls = [short_text(engine), *endless(engine)]
            reloads = rng.random() < 0.2
            if reloads:
                calls.append(engine.reload(model, SHIFT))
            tasks = [asyncio.create_task(call) for call in calls]
            await asyncio.sleep(rng.uniform(0, 0.05))
            os.kill(pid_of(engine), signal.SIGKILL)
            started = time.monotonic()
            async with asyncio.timeout(LONGEST_S):
                results = await asyncio.gather(*tasks, return_exceptions=True)
            ends_s.append(time.monotonic() - started)
            errors = [result for result in results if isinstance(result, BaseException)]
            # A reload may have ended answers before the kill.
            typed = (WorkerLostError, ModelNotLoadedError)
            assert all(isinstance(error, typed) for error in errors), f"{SEED=}: {errors}"
            num_lost += len(errors)
            num_answered += len(results) - len(errors)

            started = time.monotonic()
            async with asyncio.timeout(LONGEST_S):
                await engine.restart()
                if reloads:  # it may have failed, and then nothing is loaded
                    await engine.reload(model, SHIFT)
                assert await short_text(engine) == expected
            restarts_s.append(time.monotonic() - started)
            open_files.add(num_open_files())
    assert len(open_files) == 1, f"files stay open: {open_files}"
    counts = {"kills": NUM_KILLS, "lost calls": num_lost, "answered": num_answered}
    times = {
        "last call ends after, worst (ms)": 1000 * max(ends_s),
        "restart and answer, median (ms)": 1000 * median(restarts_s),
    }
    add_figures("worker kills, answering", {**counts, **times})


async def test_kills_while_a_worker_starts(model: str, add_figures: AddFigures) -> None:
    rng = random.Random(SEED)
    num_lost, open_files = 0, set[int]()
    started = time.monotonic()
    async with await create_worker_process(model, CPU, SHIFT):
        start_s = time.monotonic() - started
    for _ in range(NUM_KILLS):
        starting = asyncio.create_task(create_worker_process(model, CPU, SHIFT))
        await asyncio.sleep(rng.uniform(0, 1.2 * start_s))
        for pid in children():
            os.kill(pid, signal.SIGKILL)
        try:
            async with asyncio.timeout(LONGEST_S), await starting as engine:
                await short_text(engine)
        except WorkerLostError:
            num_lost += 1
        open_files.add(num_open_files())
        assert not children()
    assert len(open_files) == 1, f"files stay open: {open_files}"
    figures = {"kills": NUM_KILLS, "lost starts": num_lost}
    add_figures("worker kills, starting", figures)


def endless(engine: WorkerMLCEngine) -> list[Coroutine[Any, Any, object]]:
    """Makes calls that end only with the worker: streams, and answers without one."""
    answers = [engine.completion({**FOREVER, "seed": seed, "n": 2}) for seed in range(2)]
    return [*answers, *(read(engine, seed) for seed in range(3))]


async def read(engine: WorkerMLCEngine, seed: int) -> None:
    stream = await engine.completions.create(**FOREVER, seed=seed, stream=True)
    async for _ in stream:
        pass


async def short_text(engine: WorkerMLCEngine) -> str:
    text: str = (await engine.completions.create(**SHORT)).choices[0].text
    return text


def pid_of(engine: WorkerMLCEngine) -> int:
    assert isinstance(engine._client.port, ProcessPort)
    return engine._client.port.pid


def children() -> list[int]:
    """Returns the processes that this one has started, except for the one that lists them."""
    with subprocess.Popen(
        ["ps", "-A", "-o", "pid=,ppid="], stdout=subprocess.PIPE, text=True
    ) as listing:
        assert listing.stdout is not None
        rows = [tuple(map(int, line.split())) for line in listing.stdout]
    return [pid for pid, parent in rows if parent == os.getpid() and pid != listing.pid]
