"""Many requests at once on the CPU, with a real model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableSequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from golden import together
from webllm import ChatOptions, MLCEngine, MLCEngineConfig
from webllm.api.chat_completion import ChatCompletion

pytestmark = pytest.mark.asyncio(loop_scope="module")

STORY = [{"role": "user", "content": "Write a long story about the sea. " * 20}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(smollm2: Path) -> AsyncIterator[MLCEngine]:
    async with MLCEngine(MLCEngineConfig(device="cpu")) as engine:
        await engine.reload(str(smollm2))
        yield engine


async def test_sixteen_requests_answer_as_each_does_alone(engine: MLCEngine) -> None:
    await together.check(engine, together.sixteen(max_tokens=24, long_prompt_words=700))


async def test_scarce_blocks_change_no_answer(smollm2: Path) -> None:
    """The KV cache holds a fraction of them: sequences are preempted and recomputed."""
    config = MLCEngineConfig(device="cpu", kv_cache_tokens=400)
    async with MLCEngine(config) as engine:
        await engine.reload(str(smollm2), ChatOptions(context_window_size=400))
        await together.check(engine, together.sixteen(max_tokens=24, long_prompt_words=200))


async def test_logprobs_are_the_golden_ones(engine: MLCEngine) -> None:
    compared, worst = await together.worst_logprob_error(engine, num_tokens=24)
    assert compared > 200
    assert worst < 0.6  # int8 activations


@pytest.mark.parametrize("delay_ms", [0, 1, 5, 20, 60, 120, 250, 500])
async def test_an_abort_at_any_moment_frees_everything(engine: MLCEngine, delay_ms: int) -> None:
    """It happens before prefill, during it and in decode; the others are unaffected."""
    blocks = engine._session(None).model.loop.scheduler.blocks
    request = {"prompt": "The sea is", "max_tokens": 20, "temperature": 0}
    expected = await together.answer(engine, request)
    other = asyncio.create_task(together.answer(engine, request | {"max_tokens": 40}))
    story = asyncio.create_task(
        engine.chat.completions.create(messages=STORY, ignore_eos=True, max_tokens=400, n=2)
    )
    await asyncio.sleep(delay_ms / 1000)
    story.cancel()
    with pytest.raises(asyncio.CancelledError):
        await story
    assert str((await other)[0][0]).startswith(str(expected[0][0]))
    assert blocks.num_free == blocks.num_blocks
    assert await together.answer(engine, request) == expected


async def test_a_long_conversation_shifts_and_goes_on(smollm2: Path) -> None:
    async with MLCEngine(MLCEngineConfig(device="cpu")) as engine:
        options = ChatOptions(context_window_size=128, context_overflow="shift")
        await engine.reload(str(smollm2), options)
        reply = await engine.completions.create(
            prompt="Once upon a time", max_tokens=400, temperature=0, ignore_eos=True
        )
        assert reply.usage is not None
        assert reply.usage.completion_tokens == 400
        assert reply.choices[0].finish_reason == "length"
        assert len(reply.choices[0].text.split()) > 150


def cached_tokens(reply: ChatCompletion) -> int:
    assert reply.usage is not None
    assert reply.usage.prompt_tokens_details is not None
    return reply.usage.prompt_tokens_details.cached_tokens


async def test_a_second_round_finds_the_first_in_the_kv_cache(engine: MLCEngine) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "Name five rivers, with a sentence about each."}
    ]
    first = await engine.chat.completions.create(messages=messages, temperature=0, max_tokens=60)
    messages += [
        {"role": "assistant", "content": first.choices[0].message.content},
        {"role": "user", "content": "And five lakes."},
    ]
    second = await engine.chat.completions.create(messages=messages, temperature=0, max_tokens=5)
    assert first.usage is not None
    assert cached_tokens(second) >= first.usage.total_tokens - 32
    await engine.reset_chat()
    fresh = await engine.chat.completions.create(messages=messages, temperature=0, max_tokens=5)
    assert fresh.choices[0].message.content == second.choices[0].message.content
    assert cached_tokens(fresh) == 0


async def test_penalties_bias_and_processor_work_on_a_real_model(smollm2: Path) -> None:
    class OnlyDigits:
        """Lets through the token of "7" (39) alone."""

        def process_logits(self, logits: MutableSequence[float]) -> MutableSequence[float]:
            for token_id in range(len(logits)):
                if token_id != 39:
                    logits[token_id] = float("-inf")
            return logits

        def process_sampled_token(self, token: int) -> None:
            seen.append(token)

        def reset_state(self) -> None:
            seen.clear()

    seen: list[int] = []
    config = MLCEngineConfig(device="cpu", logit_processor_registry={smollm2.stem: OnlyDigits()})
    async with MLCEngine(config) as engine:
        await engine.reload(str(smollm2), ChatOptions(context_window_size=256))
        reply = await engine.completions.create(prompt="My number is", max_tokens=3)
        assert seen == [39, 39, 39]
        assert len(reply.choices[0].text) == 3
        assert len(set(reply.choices[0].text)) == 1
