"""The engine with a real model on the CPU, used as by a user."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from webllm import ChatOptions, InitProgressReport, MLCEngine, MLCEngineConfig
from webllm.api.chat_completion import ChatCompletion, ChatCompletionChunk
from webllm.errors import (
    ContextLengthError,
    ModelNotFoundError,
    ModelNotLoadedError,
    RequestError,
)

QUESTION = [{"role": "user", "content": "Name the capital of Germany."}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(smollm2: Path) -> AsyncIterator[MLCEngine]:
    async with MLCEngine(MLCEngineConfig(device="cpu")) as engine:
        await engine.reload(str(smollm2))
        yield engine


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def ask(engine: MLCEngine, **fields: Any) -> ChatCompletion:
    request: dict[str, Any] = {"messages": QUESTION, "temperature": 0, "max_tokens": 24}
    reply: ChatCompletion = await engine.chat.completions.create(**request | fields)
    return reply


async def chunks(engine: MLCEngine, **fields: Any) -> list[ChatCompletionChunk]:
    request: dict[str, Any] = {"messages": QUESTION, "temperature": 0, "max_tokens": 24}
    return [c async for c in await engine.chat.completions.create(stream=True, **request | fields)]


async def test_answer(engine: MLCEngine) -> None:
    reply = await ask(engine)
    assert "Berlin" in (reply.choices[0].message.content or "")
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == 36
    assert reply.usage.completion_tokens > 3
    assert reply.usage.extra.decode_tokens_per_s > 1


async def test_stream_is_the_same_text(engine: MLCEngine) -> None:
    whole = await ask(engine)
    streamed = await chunks(engine, stream_options={"include_usage": True})
    text = "".join(c.choices[0].delta.content or "" for c in streamed if c.choices)
    assert text == whole.choices[0].message.content
    assert streamed[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in streamed if c.choices][-1] == "stop"
    assert streamed[-1].usage is not None
    assert whole.usage is not None
    assert streamed[-1].usage.total_tokens == whole.usage.total_tokens


async def test_max_tokens_ends_with_length(engine: MLCEngine) -> None:
    reply = await ask(engine, max_tokens=3)
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 3


async def test_stop_string_is_cut_off(engine: MLCEngine) -> None:
    reply = await ask(engine, stop=" Berlin")
    assert reply.choices[0].message.content == "The capital of Germany is"
    assert reply.choices[0].finish_reason == "stop"


async def test_seed_repeats_and_differs(engine: MLCEngine) -> None:
    def text(reply: ChatCompletion) -> str | None:
        return reply.choices[0].message.content

    first = await ask(engine, temperature=1.0, seed=7)
    again = await ask(engine, temperature=1.0, seed=7)
    others = [text(await ask(engine, temperature=1.0, seed=seed)) for seed in range(4)]
    assert text(first) == text(again)
    assert len(set(others)) > 1


async def test_several_choices_differ(engine: MLCEngine) -> None:
    reply = await ask(engine, n=3, temperature=1.2, seed=1)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in reply.choices}) > 1


async def test_logit_bias_bans_and_forces(engine: MLCEngine) -> None:
    reply = await ask(engine, logit_bias={"504": -100}, max_tokens=1)  # 504: "The"
    assert reply.choices[0].message.content != "The"
    reply = await ask(engine, logit_bias={"7042": 100}, max_tokens=3)  # 7042: " Paris"
    assert reply.choices[0].message.content == " Paris Paris Paris"


async def test_interrupt_ends_the_stream(engine: MLCEngine) -> None:
    stream = await engine.chat.completions.create(
        messages=[{"role": "user", "content": "Write a long story."}], stream=True, ignore_eos=True
    )
    reasons = []
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            engine.interrupt_generate()
        reasons.append(chunk.choices[0].finish_reason)
    assert reasons[-1] == "abort"


async def test_closing_a_stream_frees_its_blocks(engine: MLCEngine) -> None:
    blocks = engine._session(None).model.loop.scheduler.blocks
    stream = await engine.chat.completions.create(messages=QUESTION, stream=True, ignore_eos=True)
    await anext(stream)
    await anext(stream)
    assert blocks.num_free < blocks.num_blocks
    await stream.aclose()
    assert blocks.num_free == blocks.num_blocks


async def test_errors_name_the_way_out(engine: MLCEngine) -> None:
    long = [{"role": "user", "content": "word " * 5000}]
    with pytest.raises(ContextLengthError, match="larger context_window_size"):
        await ask(engine, messages=long)
    with pytest.raises(RequestError, match="temperature"):
        await ask(engine, temperature=-1)
    with pytest.raises(RequestError, match="vocabulary has 49152"):
        await ask(engine, logit_bias={"50000": 1})
    with pytest.raises(ModelNotFoundError, match="model is 'another', loaded: "):
        await ask(engine, model="another")


async def test_without_a_model() -> None:
    engine = MLCEngine(MLCEngineConfig(device="cpu"))
    with pytest.raises(ModelNotLoadedError, match="reload"):
        await ask(engine)
    with pytest.raises(ModelNotFoundError):
        await engine.reload("no-such-model")


async def test_progress_is_monotone_and_ends_at_one(smollm2: Path) -> None:
    reports: list[InitProgressReport] = []
    config = MLCEngineConfig(device="cpu", init_progress_callback=reports.append)
    async with MLCEngine(config) as engine:
        await engine.reload(str(smollm2), ChatOptions(context_window_size=256))
        assert (await engine.device_name()).startswith("CPU")
    assert list(dict.fromkeys(r.phase for r in reports)) == ["upload", "compile"]
    for values in ([r.progress for r in reports], [r.time_elapsed for r in reports]):
        assert values == sorted(values)
    assert reports[-1].progress == 1.0


async def test_ten_loads_leave_nothing_behind(smollm2: Path) -> None:
    used = []
    for _ in range(10):
        async with MLCEngine(MLCEngineConfig(device="cpu")) as engine:
            await engine.reload(str(smollm2), ChatOptions(context_window_size=256))
            await ask(engine, max_tokens=4)
        gc.collect()
        used.append(resident_bytes())
    assert used[-1] - used[2] < 8 << 20, [u >> 20 for u in used]


def resident_bytes() -> int:
    """Returns the bytes of this process's private resident pages (Linux)."""
    _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
    return (resident - shared) * 4096


async def test_a_cancelled_reload_frees_everything(smollm2: Path) -> None:
    engine = MLCEngine(MLCEngineConfig(device="cpu"))
    for delay_s in (0.01, 0.05, 0.1, 0.2, 0.3):
        reload = asyncio.create_task(engine.reload(str(smollm2)))
        await asyncio.sleep(delay_s)
        reload.cancel()
        await asyncio.wait([reload])
        await engine.unload()
    await engine.reload(str(smollm2), ChatOptions(context_window_size=256))
    assert "Berlin" in str((await ask(engine)).choices[0].message.content)
    await engine.unload()
