"""OpenAI's own client with engines in this process, on number models."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx
import httpx2
import openai
import pytest
from fake_model import (
    NumberModels,
    asked,
    backend_of,
    counted,
    make_engine,
    model_of,
    num_used,
    number_models,
    settle,
)
from fake_worker import SHIFT, Worker, read

import webllm
from webllm import MLCEngine, OpenAITransport, openai_client
from webllm.api.embedding import CreateEmbeddingResponse, Embedding, EmbeddingUsage
from webllm.errors import DeviceLostError, WorkerLostError
from webllm.workers.proxy import WorkerMLCEngine

__all__ = ["number_models"]  # a fixture

M: dict[str, Any] = {"model": "numbers"}
ENDLESS: dict[str, Any] = asked("1", **M, max_tokens=10**6, extra_body={"ignore_eos": True})


@pytest.fixture(params=["here", "worker"])
async def engines(
    request: pytest.FixtureRequest, number_models: NumberModels
) -> tuple[Any, MLCEngine]:
    """Returns the engine that is called, and the engine that computes."""
    if request.param == "here":
        engine = number_models.engine()
        await engine.reload("numbers.gguf", SHIFT)
        return engine, engine
    worker = Worker()
    proxy = WorkerMLCEngine(worker.port)
    await proxy.reload("numbers.gguf", SHIFT)
    return proxy, worker.engine


@pytest.fixture
async def client(engines: tuple[Any, MLCEngine]) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai_client(engines[0]) as client:
        yield client


@pytest.fixture
def computing(engines: tuple[Any, MLCEngine]) -> MLCEngine:
    return engines[1]


class TestAnswers:
    async def test_chat(self, client: openai.AsyncOpenAI) -> None:
        reply = await client.chat.completions.create(**asked("1", max_tokens=3, n=2, **M))
        assert isinstance(reply, openai.types.chat.ChatCompletion)
        assert [choice.message.content for choice in reply.choices] == [counted(2, 4)] * 2
        assert reply.choices[0].finish_reason == "length"
        assert reply.usage is not None
        assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (1, 6)
        assert reply.model == "numbers"

    async def test_completion(self, client: openai.AsyncOpenAI) -> None:
        reply = await client.completions.create(prompt="7", max_tokens=2, echo=True, **M)
        assert reply.choices[0].text == "7" + counted(8, 9)

    async def test_chat_stream(self, client: openai.AsyncOpenAI) -> None:
        stream = await client.chat.completions.create(
            **asked("1", max_tokens=3, n=2, **M),
            stream=True,
            stream_options={"include_usage": True},
        )
        said, usage = ["", ""], None
        async for chunk in stream:
            for choice in chunk.choices:
                said[choice.index] += choice.delta.content or ""
            usage = chunk.usage
        assert said == [counted(2, 4)] * 2
        assert usage is not None
        assert usage.completion_tokens == 6

    async def test_completion_stream(self, client: openai.AsyncOpenAI) -> None:
        stream = await client.completions.create(prompt="7", max_tokens=2, stream=True, **M)
        assert "".join([chunk.choices[0].text async for chunk in stream]) == counted(8, 9)

    async def test_accumulated_stream(self, client: openai.AsyncOpenAI) -> None:
        """OpenAI's helper joins the chunks."""
        async with client.chat.completions.stream(**asked("1", stop="5", **M)) as stream:
            reply = await stream.get_final_completion()
        assert reply.choices[0].message.content == counted(2, 4)

    async def test_logprobs(self, client: openai.AsyncOpenAI) -> None:
        reply = await client.chat.completions.create(
            **asked("1", max_tokens=2, **M), logprobs=True, top_logprobs=2
        )
        logprobs = reply.choices[0].logprobs
        assert logprobs is not None
        assert logprobs.content is not None
        assert [token.token for token in logprobs.content] == ["2 ", "3 "]
        assert [top.logprob for top in logprobs.content[0].top_logprobs] == [-0.5, -1.5]

    async def test_fields_of_webllm(self, client: openai.AsyncOpenAI) -> None:
        """They are given in `extra_body`, as for any server, or nested as in WebLLM."""
        for extra in ({"enable_thinking": False}, {"extra_body": {"enable_thinking": False}}):
            reply = await client.chat.completions.create(
                **asked("1", max_tokens=1, **M), extra_body={"top_k": 5, **extra}
            )
            assert reply.choices[0].message.content == counted(501, 501)

    async def test_several_at_once(self, client: openai.AsyncOpenAI) -> None:
        async def text(first: int) -> str:
            stream = await client.chat.completions.create(
                **asked(str(first), max_tokens=5, **M), stream=True
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        replies = await asyncio.gather(*map(text, range(10, 18)))
        assert replies == [counted(first + 1, first + 5) for first in range(10, 18)]

    async def test_models(self, client: openai.AsyncOpenAI) -> None:
        models = [model async for model in client.models.list()]
        assert [(model.id, model.object) for model in models] == [("numbers", "model")]
        assert models[0].created > 1_700_000_000
        assert (await client.models.retrieve("numbers")).id == "numbers"
        with pytest.raises(openai.NotFoundError, match="no model called 'a/b'"):
            await client.models.retrieve("a/b")

    async def test_raw_response(self, client: openai.AsyncOpenAI) -> None:
        raw = await client.chat.completions.with_raw_response.create(
            **asked("1", max_tokens=1, **M)
        )
        assert raw.http_response.status_code == 200
        assert raw.http_response.json()["object"] == "chat.completion"


class TestEmbeddings:
    """Uses an engine with invented embeddings, because there is no embedding model yet."""

    class Embeds(MLCEngine):
        async def embedding(self, request: Any) -> CreateEmbeddingResponse:
            assert request["encoding_format"] == "float"
            data = [Embedding(index=0, embedding=[0.5, -1.25])]
            usage = EmbeddingUsage(prompt_tokens=2, total_tokens=2)
            return CreateEmbeddingResponse(data=data, model="numbers", usage=usage)

    async def test_numbers(self) -> None:
        client = openai_client(self.Embeds())
        ways: list[dict[str, Any]] = [{}, {"encoding_format": "float"}]
        for how in ways:  # the client asks for base64 by default
            reply = await client.embeddings.create(input="a", **M, **how)
            assert reply.data[0].embedding == [0.5, -1.25]

    async def test_without_such_a_model(self, client: openai.AsyncOpenAI) -> None:
        with pytest.raises(openai.ConflictError, match="no embedding model is loaded") as caught:
            await client.embeddings.create(input="a", **M)
        assert caught.value.code == "model_not_loaded"


class TestErrors:
    @pytest.mark.parametrize(
        ("fields", "kind", "param", "code"),
        [
            ({"temperature": 9}, openai.BadRequestError, "temperature", "invalid_request_error"),
            ({"model": "b"}, openai.NotFoundError, None, "model_not_found"),
            ({"store": True}, openai.BadRequestError, "store", "invalid_request_error"),
            (
                {
                    "messages": [{"role": "user", "content": "1 " * 300}],
                    "extra_body": {"context_overflow": "error"},
                },
                openai.BadRequestError,
                "messages",
                "context_length_exceeded",
            ),
        ],
    )
    @pytest.mark.parametrize("stream", [False, True])
    async def test_requests(
        self,
        client: openai.AsyncOpenAI,
        stream: bool,
        fields: dict[str, Any],
        kind: type[openai.APIStatusError],
        param: str | None,
        code: str,
    ) -> None:
        with pytest.raises(kind) as caught:
            await client.chat.completions.create(**asked("1", **M) | fields, stream=stream)
        assert (caught.value.param, caught.value.code) == (param, code)
        assert caught.value.type == "invalid_request_error"

    async def test_nothing_loaded(self) -> None:
        """Clients retry after a 409 by default; here they must not."""
        with pytest.raises(openai.ConflictError, match="no model is loaded") as caught:
            await openai_client(MLCEngine()).chat.completions.create(**asked("1", **M))
        assert caught.value.response.request.headers["x-stainless-retry-count"] == "0"

    async def test_the_device(self, client: openai.AsyncOpenAI, computing: MLCEngine) -> None:
        backend_of(computing).error = DeviceLostError("it went away")
        with pytest.raises(openai.InternalServerError, match="it went away") as caught:
            await client.chat.completions.create(**asked("1", **M))
        assert (caught.value.status_code, caught.value.code) == (503, "device_lost")

    async def test_in_a_stream(self, client: openai.AsyncOpenAI, computing: MLCEngine) -> None:
        stream = await client.chat.completions.create(**ENDLESS, stream=True)
        assert (await anext(stream)).choices[0].delta.role == "assistant"
        backend_of(computing).error = DeviceLostError("it went away")
        with pytest.raises(openai.APIError, match="it went away") as caught:
            await read(stream)
        assert (caught.value.type, caught.value.code) == ("server_error", "device_lost")

    async def test_what_nobody_raised_on_purpose_is_logged_and_not_told(
        self,
        client: openai.AsyncOpenAI,
        computing: MLCEngine,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        stream = await client.chat.completions.create(**ENDLESS, stream=True)
        await anext(stream)
        backend_of(computing).error = KeyError("/home/me/secret")
        with pytest.raises(openai.APIError, match="an unexpected error") as in_stream:
            await read(stream)
        with pytest.raises(openai.InternalServerError, match="an unexpected error") as caught:
            await client.completions.create(prompt="1", **M)
        assert (caught.value.status_code, caught.value.code) == (500, "webllm_error")
        for error in (caught.value, in_stream.value):
            assert "secret" not in str(error.body)
            assert "KeyError" not in str(error.body)
        assert caplog.text.count("/home/me/secret") >= 2

    async def test_too_many_requests(self, number_models: NumberModels) -> None:
        engine = number_models.engine()
        await engine.reload("numbers.gguf", SHIFT)
        model_of(engine).loop.scheduler.max_waiting = 0
        client = openai_client(engine).with_options(max_retries=0)
        running = await client.chat.completions.create(**ENDLESS, stream=True, n=64)
        await anext(running)
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError, match="may wait: ask again") as caught:
                await client.chat.completions.create(**asked("1", **M), stream=stream)
            assert caught.value.code == "queue_full"
        retried = openai_client(engine).chat.completions.create(**asked("1", **M, max_tokens=1))
        waiting = asyncio.create_task(retried)
        await settle()
        await running.close()
        assert (await waiting).choices[0].message.content == "2 "

    async def test_a_lost_worker(self, engines: tuple[Any, MLCEngine]) -> None:
        engine = engines[0]
        if isinstance(engine, WorkerMLCEngine):
            await engine.close()
            with pytest.raises(openai.InternalServerError) as caught:
                await openai_client(engine).chat.completions.create(**asked("1", **M))
            assert (caught.value.status_code, caught.value.code) == (503, WorkerLostError.code)

    @pytest.mark.parametrize(
        ("method", "path", "body", "status", "said"),
        [
            ("POST", "/v1/chat/completions", b"{", 400, "not JSON"),
            ("POST", "/v1/chat/completions", b"[" * 100_000, 400, "not JSON"),
            ("POST", "/v1/chat/completions", b'{"\xff": 1}', 400, "not JSON"),
            ("POST", "/v1/completions", b"[]", 400, "not an object"),
            ("POST", "/v1/completions", b"{}", 400, "prompt is missing"),
            ("POST", "/v1/completions", b'{"prompt": "1", "extra_body": 1, "enable_thinking": 1}',
             400, "enable_thinking"),
            ("GET", "/v1/completions", b"", 405, "has to be POST"),
            ("DELETE", "/v1/models/numbers", b"", 405, "has to be GET"),
            ("POST", "/v1/audio/speech", b"{}", 404, "unknown URL: POST /v1/audio/speech"),
            ("GET", "/", b"", 404, "unknown URL"),
        ],
    )  # fmt: skip
    async def test_other_requests(
        self, method: str, path: str, body: bytes, status: int, said: str
    ) -> None:
        for library in (httpx, httpx2):
            transport: Any = OpenAITransport(make_engine())
            async with library.AsyncClient(transport=transport, base_url="http://any") as client:
                reply = await client.request(method, path, content=body)
            assert reply.status_code == status
            assert said in reply.json()["error"]["message"]


class TestEnds:
    """An abandoned answer is not computed to its end."""

    @pytest.mark.parametrize("num_read", [0, 3])
    async def test_closed_streams(
        self, client: openai.AsyncOpenAI, computing: MLCEngine, num_read: int
    ) -> None:
        stream = await client.chat.completions.create(**ENDLESS, stream=True)
        for _ in range(num_read):
            await anext(stream)
        await stream.close()
        await settle()
        assert num_used(computing) == 0

    async def test_abandoned_streams(
        self, client: openai.AsyncOpenAI, computing: MLCEngine
    ) -> None:
        stream = await client.chat.completions.create(**ENDLESS, stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        assert num_used(computing) > 0
        del stream, chunk
        gc.collect()
        async with asyncio.timeout(30):  # OpenAI's client keeps reading for a tenth of a second
            while num_used(computing):
                await asyncio.sleep(0.01)

    async def test_closed_by_another_task(
        self, client: openai.AsyncOpenAI, computing: MLCEngine
    ) -> None:
        stream = await client.chat.completions.create(**ENDLESS, stream=True)
        reading = asyncio.create_task(read(stream))
        await settle()
        await stream.close()
        await asyncio.wait_for(reading, 30)
        await settle()
        assert num_used(computing) == 0

    async def test_cancelled_requests(
        self, client: openai.AsyncOpenAI, computing: MLCEngine
    ) -> None:
        for stream in (False, True):
            request = client.chat.completions.create(**ENDLESS, stream=stream)

            async def finish(request: Any = request) -> None:
                reply = await request
                async with aclosing(reply.response):
                    await read(reply)

            task = asyncio.create_task(finish())
            await settle()
            assert num_used(computing) > 0
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await settle()
            assert num_used(computing) == 0

    async def test_letting_go_of_a_response_ends_the_answer(
        self, engines: tuple[Any, MLCEngine], computing: MLCEngine
    ) -> None:
        """It ends at once, even if a timer would end it much later."""
        body = {**ENDLESS, **ENDLESS["extra_body"], "stream": True}
        del body["extra_body"]
        transport = OpenAITransport(engines[0])
        request = httpx.Request(
            "POST",
            "http://webllm/v1/chat/completions",
            json=body,
            extensions={"timeout": {"read": 600.0}},
        )
        response = await transport.handle_async_request(request)
        events = aiter(response.stream)
        assert b"chunk" in await anext(events)
        await settle()
        assert num_used(computing) > 0
        del response, events, request
        gc.collect()
        await settle()
        assert num_used(computing) == 0

    async def test_timeouts(self, client: openai.AsyncOpenAI, computing: MLCEngine) -> None:
        hasty = client.with_options(timeout=0.05, max_retries=0)
        with pytest.raises(openai.APITimeoutError):
            await hasty.chat.completions.create(**ENDLESS)
        await settle()
        assert num_used(computing) == 0

    async def test_timeouts_between_events(
        self, client: openai.AsyncOpenAI, computing: MLCEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hasty = client.with_options(timeout=1)
        stream = await hasty.chat.completions.create(**ENDLESS, stream=True)
        for _ in range(6):  # all events together may take longer
            await anext(stream)
            await asyncio.sleep(0.2)
        stuck = asyncio.Event()
        monkeypatch.setattr(asyncio, "sleep", lambda _: stuck.wait())  # of the fake backend
        with pytest.raises(openai.APITimeoutError):
            await read(stream)
        stuck.set()
        monkeypatch.undo()
        await settle()
        assert num_used(computing) == 0


def test_without_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(webllm.WebLLMError, match="pip install openai"):
        openai_client(MLCEngine())
