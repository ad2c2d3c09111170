"""The limit on waiting requests, and their cost."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from array import array
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from fake_model import VOCAB_SIZE, asked, counted, make_engine, model_of, num_used, settle
from test_engine_prompt_tokens import Program, engine_with

from webllm import MLCEngine
from webllm.errors import QueueFullError
from webllm.ops.sampling import LogitEdits

RUNNING = 64  # at most, in these tests
ENDLESS: dict[str, Any] = {"prompt": "1", "max_tokens": 200, "ignore_eos": True}


async def fill(engine: MLCEngine, num_sequences: int) -> list[asyncio.Task[Any]]:
    """Starts requests with `num_sequences` sequences in all."""
    sizes = [min(64, num_sequences - start) for start in range(0, num_sequences, 64)]
    tasks = [asyncio.create_task(engine.completion({**ENDLESS, "n": size})) for size in sizes]
    await settle()
    return tasks


async def test_one_too_many_is_refused_and_the_others_go_on() -> None:
    engine = make_engine(windows=64, max_waiting=3)
    under_way = await fill(engine, RUNNING + 3)
    for stream in (False, True):
        with pytest.raises(QueueFullError, match="67 sequences run or wait and 1 more were asked"):
            await engine.chat_completion(asked("1", stream=stream))
        with pytest.raises(QueueFullError, match="raise max_waiting_sequences"):
            await engine.completion({**ENDLESS, "stream": stream})
    with pytest.raises(QueueFullError):
        await engine.forward_tokens_and_sample([1], True)
    for reply in await asyncio.gather(*under_way):
        assert {choice.text for choice in reply.choices} == {counted(2, 201)}
    reply = await engine.completions.create(prompt="1", max_tokens=1)
    assert reply.choices[0].text == "2 "


async def test_each_choice_counts() -> None:
    engine = make_engine(windows=64, max_waiting=3)
    under_way = await fill(engine, RUNNING)
    with pytest.raises(QueueFullError, match="and 4 more were asked"):
        await engine.completion({**ENDLESS, "n": 4})
    waiting = asyncio.create_task(engine.completion({**ENDLESS, "n": 3}))
    await asyncio.gather(*under_way, waiting)


async def test_requests_whose_prompts_are_being_made_count() -> None:
    """The prompt of a refused request is never made."""
    chat_format = Program()
    engine = engine_with(chat_format=chat_format)
    model_of(engine).loop.scheduler.max_waiting = 1
    asks = [asked("1", max_tokens=1, n=n) for n in (RUNNING, 1)]
    under_way = [asyncio.create_task(engine.chat_completion(fields)) for fields in asks]
    await settle()
    with pytest.raises(QueueFullError, match="65 sequences run or wait and 1 more were asked for"):
        await engine.chat_completion(asked("2"))
    chat_format.may_end.set()
    await asyncio.gather(*under_way)
    assert chat_format.rendered == ["1", "1"]
    await engine.chat_completion(asked("3", max_tokens=1))


async def test_a_stream_that_comes_too_late_leaves_nothing_behind() -> None:
    engine = make_engine(windows=64, max_waiting=1)
    under_way = await fill(engine, RUNNING)
    with pytest.raises(QueueFullError):
        await engine.completion({**ENDLESS, "n": 3, "stream": True})
    scheduler = model_of(engine).loop.scheduler
    assert len(scheduler.running) + len(scheduler.waiting) == RUNNING
    engine.interrupt_generate()
    await asyncio.gather(*under_way)
    assert num_used(engine) == 0


async def bytes_of_a_request(engine: MLCEngine, **fields: object) -> int:
    """Returns the memory of a stream that has not begun."""
    await engine.reset_chat()  # the last answer is forgotten
    await asyncio.sleep(0)  # asyncio holds what woke a task until the task waits again
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    stream = await engine.completion({**fields, "stream": True})
    await asyncio.sleep(0)
    gc.collect()
    held = tracemalloc.get_traced_memory()[0] - before
    assert isinstance(stream, AsyncGenerator)
    await stream.aclose()
    return held


async def test_choices_share_their_prompt_and_their_biases() -> None:
    engine = make_engine(context_window_size=30_000)
    fields: dict[str, object] = {
        "prompt": "1 " * 20_000,
        "max_tokens": 50,
        "repetition_penalty": 1.5,
        "logit_bias": dict.fromkeys(range(VOCAB_SIZE), 1),
    }
    tracemalloc.start()
    try:
        await bytes_of_a_request(engine, **fields, n=1)
        # The most of three: an earlier request that a thread still held may go in the meantime.
        one = max([await bytes_of_a_request(engine, **fields, n=1) for _ in range(3)])
        many = max([await bytes_of_a_request(engine, **fields, n=128) for _ in range(3)])
    finally:
        tracemalloc.stop()
    assert one > 80_000
    assert many < 3 * one


class TestEdits:
    def test_words(self) -> None:
        edits = LogitEdits({5: 1.0, 3: -2.0}, [3, 7, 7], counts=True)
        for token_id in (7, 9, 5, 9):
            edits.count(token_id)
        bias = [int.from_bytes(array("f", [b]).tobytes(), "little") for b in (1.0, -2.0)]
        in_prompt = 1 << 31
        assert list(edits.words) == [
            *(5, bias[0], 1),
            *(3, bias[1], in_prompt),
            *(7, 0, in_prompt | 1),
            *(9, 0, 2),
        ]
        assert len(edits) == 4

    def test_copies_count_for_themselves(self) -> None:
        first = LogitEdits({5: 1.0}, [7], counts=True)
        second, third = first.copy(), first.copy()
        before = list(first.words)
        first.count(5)
        first.count(9)
        second.count(8)
        fourth = second.copy()
        fourth.count(8)
        assert list(third.words) == before
        assert list(first.words[2::3]) == [1, 1 << 31, 1]
        assert list(second.words[2::3]) == [0, 1 << 31, 1]
        assert list(fourth.words[2::3]) == [0, 1 << 31, 2]

    def test_what_counts_nothing_stays(self) -> None:
        edits = LogitEdits({5: 1.0})
        copied = edits.copy()
        copied.count(5)
        assert copied.words == edits.words
