"""Many streams at once, half of them cancelled: the others are right, and nothing is left."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import pytest
from made_up_models import Sizes, draft_of
from results import Figures

from long.figures import SEED, AddFigures, count
from webllm import MLCEngine, MLCEngineConfig
from webllm.api.interface import MLCEngineInterface
from webllm.workers.process import create_worker_process

NUM_STREAMS, AT_ONCE = count("STREAMS", 2000), 200
NUM_REQUESTS, NUM_TOKENS = 12, 100
LONGEST_S = 300.0


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "model.gguf"
    sizes = Sizes("llama", hidden=256, wide=512, heads=8, head_dim=32, layers=4)
    file.write_bytes(draft_of(random.Random(0), sizes).packed())
    return file


@pytest.mark.parametrize(("device", "num_streams"), [("cpu", NUM_STREAMS), ("webgpu", AT_ONCE)])
async def test_cancelled_streams(
    model: Path, device: str, num_streams: int, add_figures: AddFigures
) -> None:
    async with MLCEngine(MLCEngineConfig(device=device)) as engine:
        await engine.reload(str(model))
        add_figures(f"streams, {device}", await check(engine, num_streams))
        blocks = engine._session(None).model.loop.scheduler.blocks
        assert blocks.num_free == blocks.num_blocks


async def test_cancelled_streams_of_a_worker(model: Path, add_figures: AddFigures) -> None:
    config = MLCEngineConfig(device="cpu")
    async with await create_worker_process(str(model), config) as engine:
        add_figures("streams, worker process", await check(engine, NUM_STREAMS))


async def check(engine: MLCEngineInterface, num_streams: int) -> Figures:
    """Runs streams, AT_ONCE at a time; those that end must be the same as they are alone."""
    rng, num_cancelled = random.Random(SEED), 0
    expected = [await text_of(engine, index) for index in range(NUM_REQUESTS)]
    started = time.monotonic()
    for _ in range(0, num_streams, AT_ONCE):
        results = await some_cancelled(engine, rng)
        for index, result in enumerate(results):
            if isinstance(result, asyncio.CancelledError):
                num_cancelled += 1
            else:
                assert result == expected[index % NUM_REQUESTS], f"seed {SEED}"
    seconds = time.monotonic() - started
    assert [await text_of(engine, index) for index in range(NUM_REQUESTS)] == expected
    return {"streams": num_streams, "cancelled": num_cancelled, "seconds": seconds}


async def some_cancelled(
    engine: MLCEngineInterface, rng: random.Random
) -> list[str | BaseException]:
    """Begins AT_ONCE streams and cancels half: while they wait, in prefill and in decode."""
    streams = [asyncio.create_task(text_of(engine, i % NUM_REQUESTS)) for i in range(AT_ONCE)]
    async with asyncio.timeout(LONGEST_S):
        for index in rng.sample(range(AT_ONCE), AT_ONCE // 2):
            await asyncio.sleep(rng.uniform(0, 0.006))
            streams[index].cancel()
        return await asyncio.gather(*streams, return_exceptions=True)


async def text_of(engine: MLCEngineInterface, index: int) -> str:
    request: dict[str, Any] = {"prompt": "ab Hi " * (1 + index), "max_tokens": NUM_TOKENS}
    request |= {"temperature": index % 2, "seed": index, "ignore_eos": True}
    stream = await engine.completions.create(**request, stream=True)
    return "".join([chunk.choices[0].text async for chunk in stream])
