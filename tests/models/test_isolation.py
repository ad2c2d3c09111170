"""Hostile requests beside innocent ones, and the edge of the context window, on a real model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableSequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from golden import together
from webllm import ChatOptions, MLCEngine, MLCEngineConfig
from webllm.errors import ContextLengthError, LogitProcessorError, QueueFullError, RequestError

pytestmark = pytest.mark.asyncio(loop_scope="module")

INNOCENT: list[dict[str, Any]] = [
    {"prompt": "The sea is", "max_tokens": 12, "temperature": 0},
    {"prompt": "Once upon a time", "max_tokens": 9, "temperature": 1.0, "seed": 7},
    {"prompt": "one two three " * 20, "max_tokens": 6, "temperature": 0.7, "seed": 8, "n": 2},
]


class Refusing:
    """Raises for rows whose likeliest token is `refused`."""

    def __init__(self) -> None:
        self.refused: int | None = None
        self.seen: list[int] = []

    def process_logits(self, logits: MutableSequence[float]) -> MutableSequence[float]:
        likeliest = max(range(len(logits)), key=logits.__getitem__)
        self.seen.append(likeliest)
        if likeliest == self.refused:
            raise ValueError("a token that is refused")
        return logits

    def process_sampled_token(self, token: int) -> None: ...

    def reset_state(self) -> None: ...


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(smollm2: Path) -> AsyncIterator[MLCEngine]:
    config = MLCEngineConfig(device="cpu", max_waiting_sequences=60)
    async with MLCEngine(config) as engine:
        await engine.reload(str(smollm2), ChatOptions(context_window_size=256))
        yield engine


@pytest.mark.parametrize(
    ("prompt_tokens", "gen_tokens", "batch"), [(6000, 64, 1), (256, 1, 1), (200, 57, 3)]
)
async def test_no_benchmark_leaves_the_window(
    engine: MLCEngine, prompt_tokens: int, gen_tokens: int, batch: int
) -> None:
    with pytest.raises(ContextLengthError, match="the context window has 256"):
        await engine.benchmark(prompt_tokens, gen_tokens, batch)


async def test_a_benchmark_may_fill_the_window(engine: MLCEngine) -> None:
    assert (await engine.benchmark(250, 6)).num_decoded == 6


async def test_innocent_requests_beside_refused_and_cancelled_ones(engine: MLCEngine) -> None:
    alone = [await together.answer(engine, request) for request in INNOCENT]
    too_long: dict[str, Any] = {"prompt": "sea " * 400}
    too_many: dict[str, Any] = {"prompt": "The", "n": 128, "max_tokens": 5}
    out_of_range: dict[str, Any] = {"prompt": "The", "temperature": 9}
    endless: dict[str, Any] = {"prompt": "The", "max_tokens": 200, "ignore_eos": True, "n": 4}
    cancelled = asyncio.create_task(engine.completions.create(**endless))
    hostile = [engine.completions.create(**each) for each in (too_long, too_many, out_of_range)]
    innocent = [together.answer(engine, request) for request in INNOCENT]
    asked = asyncio.gather(*hostile, *innocent, return_exceptions=True)
    while engine._session(None).model.loop.scheduler.waiting:
        await asyncio.sleep(0.001)
    cancelled.cancel()
    replies = await asked
    kinds = [type(reply) for reply in replies[:3]]
    assert kinds == [ContextLengthError, QueueFullError, RequestError]
    assert replies[3:] == alone


async def test_a_logit_processor_that_raises_for_one_request(smollm2: Path) -> None:
    processor = Refusing()
    registry = {smollm2.name.removesuffix(".gguf"): processor}
    config = MLCEngineConfig(device="cpu", logit_processor_registry=registry)
    async with MLCEngine(config) as engine:
        await engine.reload(str(smollm2), ChatOptions(context_window_size=256))
        victim: dict[str, Any] = {"prompt": "1 2 3 4 5 6 7 8 9", "max_tokens": 12, "temperature": 0}
        await together.answer(engine, victim)
        of_victim = list(processor.seen)
        processor.seen.clear()
        alone = await together.answer(engine, INNOCENT[0])
        processor.refused = next(each for each in of_victim if each not in processor.seen)
        asked = [together.answer(engine, request) for request in (victim, INNOCENT[0])]
        failed, innocent = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(failed, LogitProcessorError)
    assert "a token that is refused" in str(failed)
    assert innocent == alone
