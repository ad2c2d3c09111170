"""A worker process with a real model on the CPU."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from webllm import InitProgressReport, MLCEngineConfig
from webllm.api.chat_completion import ChatCompletion
from webllm.errors import RequestError, WorkerLostError
from webllm.workers.process import ProcessPort, create_worker_process
from webllm.workers.proxy import WorkerMLCEngine

QUESTION = [{"role": "user", "content": "Name the capital of Germany."}]
LONG: dict[str, Any] = {
    "messages": QUESTION,
    "max_tokens": 2000,
    "ignore_eos": True,
    "temperature": 0,
}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(smollm2: Path) -> AsyncIterator[WorkerMLCEngine]:
    config = MLCEngineConfig(device="cpu")
    async with await create_worker_process(str(smollm2), config) as engine:
        yield engine


async def ask(engine: WorkerMLCEngine) -> ChatCompletion:
    return await engine.chat.completions.create(messages=QUESTION, temperature=0, max_tokens=24)


async def test_answer(engine: WorkerMLCEngine) -> None:
    reply = await ask(engine)
    assert "Berlin" in (reply.choices[0].message.content or "")
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == 36
    assert reply.usage.extra.decode_tokens_per_s > 1


async def test_streams_at_once(engine: WorkerMLCEngine) -> None:
    async def text() -> str:
        stream = await engine.chat.completions.create(
            messages=QUESTION, temperature=0, max_tokens=24, stream=True
        )
        return "".join([c.choices[0].delta.content or "" async for c in stream])

    texts = await asyncio.gather(*(text() for _ in range(4)))
    assert set(texts) == {(await ask(engine)).choices[0].message.content}


async def test_the_event_loop_stays_responsive(engine: WorkerMLCEngine) -> None:
    answer = asyncio.create_task(engine.chat.completions.create(**LONG | {"max_tokens": 60}))
    num_turns = 0
    while not answer.done():
        await asyncio.sleep(0)
        num_turns += 1
    assert (await answer).choices[0].finish_reason == "length"
    assert num_turns > 2 * 60  # the event loop has turns while the worker computes a token


async def test_cancelling_frees_the_model(engine: WorkerMLCEngine) -> None:
    tasks = [asyncio.create_task(engine.chat.completions.create(**LONG)) for _ in range(4)]
    await asyncio.sleep(0.3)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    said = await engine.get_message()
    await asyncio.sleep(0.2)
    assert await engine.get_message() == said
    assert "Berlin" in ((await ask(engine)).choices[0].message.content or "")


async def test_errors_cross(engine: WorkerMLCEngine) -> None:
    with pytest.raises(RequestError, match="logprobs") as caught:
        await engine.chat.completions.create(messages=QUESTION, top_logprobs=3)
    assert caught.value.field == "top_logprobs"


async def test_a_killed_worker_is_replaced_and_loads_by_itself(engine: WorkerMLCEngine) -> None:
    reports: list[InitProgressReport] = []
    engine.set_init_progress_callback(reports.append)
    answer = asyncio.create_task(engine.chat.completions.create(**LONG))
    await asyncio.sleep(0.2)
    assert isinstance(engine._client.port, ProcessPort)
    os.kill(engine._client.port.pid, signal.SIGKILL)
    with pytest.raises(WorkerLostError, match="killed by signal 9"):
        await asyncio.wait_for(answer, 30)
    await engine.restart()
    assert not reports
    assert "Berlin" in ((await ask(engine)).choices[0].message.content or "")
    assert reports[-1].progress == 1
