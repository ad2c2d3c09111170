"""Many requests at once on WebGPU, with a real model."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from golden import compare, together
from webllm import ChatOptions, MLCEngine, MLCEngineConfig

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[MLCEngine]:
    path = await compare.model_path("smollm2-135m")
    async with MLCEngine(MLCEngineConfig(device="webgpu")) as engine:
        await engine.reload(str(path), ChatOptions(context_window_size=512))
        yield engine


async def test_sixteen_requests_answer_as_each_does_alone(engine: MLCEngine) -> None:
    await together.check(engine, together.sixteen(max_tokens=5, long_prompt_words=100))


async def test_logprobs_are_the_golden_ones(engine: MLCEngine) -> None:
    compared, worst = await together.worst_logprob_error(engine, num_tokens=3)
    assert compared > 50
    assert worst < compare.CLOSE
