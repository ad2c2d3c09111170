"""OpenAI's client with a real model on the CPU, in this process and in a worker process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio

from webllm import MLCEngineConfig, create_mlc_engine, create_worker_process, openai_client
from webllm.api.interface import MLCEngineInterface

QUESTION: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Name the capital of Germany."}],
    "temperature": 0,
    "max_tokens": 24,
}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["here", "worker"])
async def engine(
    request: pytest.FixtureRequest, smollm2: Path
) -> AsyncIterator[MLCEngineInterface]:
    make = create_mlc_engine if request.param == "here" else create_worker_process
    async with await make(str(smollm2), MLCEngineConfig(device="cpu")) as engine:
        yield engine


@pytest.fixture
def client(engine: MLCEngineInterface) -> openai.AsyncOpenAI:
    return openai_client(engine)


async def model_id(client: openai.AsyncOpenAI) -> str:
    return (await client.models.list()).data[0].id


async def test_answers(client: openai.AsyncOpenAI) -> None:
    model = await model_id(client)
    reply = await client.chat.completions.create(**QUESTION, model=model, logprobs=True)
    said = reply.choices[0].message.content or ""
    assert "Berlin" in said
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == 36
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    tokens = logprobs.content or []
    assert "".join(token.token for token in tokens).startswith(said)
    assert all(token.logprob <= 0 for token in tokens)


async def test_streams_at_once(client: openai.AsyncOpenAI) -> None:
    model = await model_id(client)

    async def text() -> str:
        stream = await client.chat.completions.create(**QUESTION, model=model, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    whole = await client.chat.completions.create(**QUESTION, model=model)
    assert set(await asyncio.gather(*(text() for _ in range(4)))) == {
        whole.choices[0].message.content
    }


async def test_a_stream_left_early_is_computed_no_further(
    client: openai.AsyncOpenAI, engine: MLCEngineInterface
) -> None:
    model = await model_id(client)
    long = {"max_tokens": 2000, "extra_body": {"ignore_eos": True}}
    stream = await client.chat.completions.create(**QUESTION | long, model=model, stream=True)
    for _ in range(3):
        await anext(stream)
    await stream.close()
    said = await engine.get_message()
    await asyncio.sleep(0.3)
    assert await engine.get_message() == said


async def test_errors(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="model is 'another'"):
        await client.chat.completions.create(**QUESTION, model="another")
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(
            model=await model_id(client), messages=[{"role": "user", "content": "word " * 5000}]
        )
    assert (caught.value.param, caught.value.code) == ("messages", "context_length_exceeded")
