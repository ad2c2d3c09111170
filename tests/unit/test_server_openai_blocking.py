"""OpenAI's synchronous client with a `BlockingMLCEngine`."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import httpx2
import openai
import pytest
from fake_model import asked, counted
from test_engine_blocking import engine, is_idle, until

from webllm import BlockingMLCEngine, BlockingOpenAITransport, openai_client
from webllm.errors import ModelNotLoadedError

__all__ = ["engine"]  # a fixture

M: dict[str, Any] = {"model": "numbers"}
ENDLESS: dict[str, Any] = asked("1", **M, max_tokens=10**6, extra_body={"ignore_eos": True})


@pytest.fixture
def client(engine: BlockingMLCEngine) -> Iterator[openai.OpenAI]:
    with openai_client(engine) as client:
        yield client


def test_whole_answers(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(**asked("1", max_tokens=3, n=2, **M))
    assert [choice.message.content for choice in reply.choices] == [counted(2, 4)] * 2
    assert client.completions.create(prompt="7", max_tokens=1, **M).choices[0].text == "8 "
    assert [model.id for model in client.models.list()] == ["numbers"]


def test_streams(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        **asked("1", max_tokens=3, **M), stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = stream
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == counted(2, 4)
    assert last.usage is not None
    assert last.usage.completion_tokens == 3


def test_several_threads_at_once(client: openai.OpenAI) -> None:
    def text(first: int) -> str:
        fields = asked(str(first), max_tokens=5, **M)
        stream = client.chat.completions.create(**fields, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(text, range(10, 18)))
    assert texts == [counted(first + 1, first + 5) for first in range(10, 18)]


def test_errors(client: openai.OpenAI, engine: BlockingMLCEngine) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature is 9") as caught:
        client.chat.completions.create(**asked("1", **M), temperature=9)
    assert caught.value.param == "temperature"
    with pytest.raises(openai.NotFoundError, match="model is 'b'"):
        client.completions.create(prompt="1", model="b", stream=True)
    engine.close()
    with pytest.raises(openai.ConflictError, match="this engine is closed"):
        client.chat.completions.create(**asked("1", **M))


@pytest.mark.parametrize("num_read", [0, 3])
def test_closing_a_stream_ends_the_answer(
    client: openai.OpenAI, engine: BlockingMLCEngine, num_read: int
) -> None:
    stream = client.chat.completions.create(**ENDLESS, stream=True)
    for _ in range(num_read):
        next(stream)
    stream.close()
    assert is_idle(engine)


def test_leaving_a_loop_ends_the_answer(client: openai.OpenAI, engine: BlockingMLCEngine) -> None:
    for chunk in client.chat.completions.create(**ENDLESS, stream=True):
        if chunk.choices[0].delta.content:
            break
    gc.collect()
    until(lambda: is_idle(engine))


def test_closing_from_another_thread(client: openai.OpenAI, engine: BlockingMLCEngine) -> None:
    stream = client.chat.completions.create(**ENDLESS, stream=True)
    has_come = threading.Event()

    def close() -> None:
        assert has_come.wait(30)
        stream.close()

    closing = threading.Thread(target=close)
    closing.start()
    for _ in stream:  # it ends because it is closed
        has_come.set()
    assert has_come.is_set()
    closing.join()
    assert is_idle(engine)


def test_timeouts(client: openai.OpenAI, engine: BlockingMLCEngine) -> None:
    hasty = client.with_options(timeout=0.1, max_retries=1)
    before = time.monotonic()
    with pytest.raises(openai.APITimeoutError):
        hasty.chat.completions.create(**ENDLESS)
    assert time.monotonic() - before > 0.2
    assert is_idle(engine)


def test_the_engine_closes_while_a_stream_is_read(
    client: openai.OpenAI, engine: BlockingMLCEngine
) -> None:
    stream = client.chat.completions.create(**ENDLESS, stream=True)
    next(stream)
    engine.close()
    with pytest.raises(ModelNotLoadedError, match="closed"):
        list(stream)


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_other_clients(engine: BlockingMLCEngine, library: Any) -> None:
    transport: Any = BlockingOpenAITransport(engine)
    with library.Client(transport=transport, base_url="http://any") as client:
        reply = client.post("/v1/completions", json={"prompt": "1", "max_tokens": 1})
        assert reply.json()["choices"][0]["text"] == "2 "
        fields = {"prompt": "1", "max_tokens": 1, "stream": True}
        with client.stream("POST", "/v1/completions", json=fields) as streamed:
            assert list(streamed.iter_lines())[-2:] == ["data: [DONE]", ""]
