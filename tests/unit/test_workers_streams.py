"""The end of streams in a worker: closed, interrupted, dropped, or lost with their page."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from fake_model import asked, num_used, number_models, settle
from test_workers_wire import (
    NO_CONTENT,
    NpmClient,
    Thrown,
    client,
    engine_of,
    handler,
    npm,
    numbers,
)

from webllm.workers.handler import MLCEngineHandler
from webllm.workers.streams import Stream

__all__ = ["client", "handler", "npm", "number_models"]  # fixtures

INIT, PULL = "chatCompletionStreamInit", "completionStreamNextChunk"


async def test_leaving_a_stream_ends_it_at_once(
    client: NpmClient, handler: MLCEngineHandler
) -> None:
    """A client closes its stream by id, as WebLLM 0.2.86 does, or without one, as older ones do."""
    for stream_id in ("s", None):
        params = {"selectedModelId": "numbers"} if stream_id is None else {"streamId": stream_id}
        content = numbers({**asked("1", ignore_eos=True), "stream": True})
        assert await client.ask(INIT, {**content, **params}) is None
        assert isinstance(await client.ask(PULL, params), dict)
        assert isinstance(await client.ask(PULL, params), dict)
        pull = asyncio.create_task(client.ask(PULL, params))
        await settle()
        assert num_used(engine_of(handler)) > 0
        assert await client.ask("completionStreamReturn", params) is None
        assert num_used(engine_of(handler)) == 0
        await pull
        assert await client.ask("completionStreamReturn", params) is None  # though it has ended
    assert await client.ask("completionStreamReturn", {"streamId": "never begun"}) is None


async def test_a_pull_that_waits_when_its_stream_is_left_is_answered(
    client: NpmClient, handler: MLCEngineHandler
) -> None:
    content = numbers({**asked("1", ignore_eos=True), "stream": True})
    await client.ask(INIT, {**content, "streamId": "s"})
    pulls = [client.ask(PULL, {"streamId": "s"}) for _ in range(50)]
    waiting = asyncio.gather(*pulls)
    await asyncio.sleep(0)
    await client.ask("completionStreamReturn", {"streamId": "s"})
    assert NO_CONTENT in await waiting
    assert num_used(engine_of(handler)) == 0


@pytest.mark.parametrize("how", ["interruptGenerate", "unload", "reload"])
async def test_no_stream_outlives_what_ends_every_answer(
    client: NpmClient, handler: MLCEngineHandler, how: str
) -> None:
    """Tested with streams that are read on, that nobody reads on, and that nobody has read."""
    [connection] = handler._connections
    content = numbers({**asked("1", ignore_eos=True), "stream": True})
    for stream_id in ("read on", "left", "not read"):
        await client.ask(INIT, {**content, "streamId": stream_id})
        if stream_id != "not read":
            await client.ask(PULL, {"streamId": stream_id})
    await client.ask(how, {"modelId": ["numbers"]} if how == "reload" else None)
    assert not connection.streams._by_id
    for stream_id in ("read on", "not read"):
        chunks = []
        while isinstance(chunk := await client.ask(PULL, {"streamId": stream_id}), dict):
            chunks.append(chunk)
        assert chunks[-1]["choices"][0]["finish_reason"] == "abort"
    await client.ask("interruptGenerate")
    with pytest.raises(Thrown, match="no stream 'left' is open"):
        await client.ask(PULL, {"streamId": "left"})
    assert not connection.streams._interrupted


async def test_a_stream_id_is_used_once(client: NpmClient, handler: MLCEngineHandler) -> None:
    content = numbers({**asked("1", max_tokens=2), "stream": True})
    await client.ask(INIT, {**content, "streamId": "s"})
    with pytest.raises(Thrown, match="RequestError: the stream 's' is open already"):
        await client.ask(INIT, {**content, "streamId": "s"})


def fail_to_close(stream: Stream) -> None:
    """Closes the stream, and then raises."""
    close = stream.chunks.aclose

    async def fail() -> None:
        await close()
        raise OSError("cannot be closed")

    stream.chunks = SimpleNamespace(aclose=fail)


async def test_a_stream_that_cannot_be_closed_leaves_no_other_open(
    client: NpmClient, handler: MLCEngineHandler
) -> None:
    [connection] = handler._connections
    content = numbers({**asked("1", ignore_eos=True), "stream": True})
    for stream_id in ("1", "2", "3"):
        await client.ask(INIT, {**content, "streamId": stream_id})
        await client.ask(PULL, {"streamId": stream_id})
    fail_to_close(connection.streams._by_id["1"])
    await client.port.close()
    await settle()
    assert num_used(engine_of(handler)) == 0
    assert not connection.streams._by_id
    assert not handler._connections
    assert connection._ending is not None
    with pytest.raises(OSError, match="cannot be closed"):
        await connection._ending


async def test_a_stream_that_cannot_be_closed_leaves_no_model_loaded(
    client: NpmClient, handler: MLCEngineHandler
) -> None:
    [connection] = handler._connections
    content = numbers({**asked("1", ignore_eos=True), "stream": True})
    await client.ask(INIT, {**content, "streamId": "s"})
    await client.ask(PULL, {"streamId": "s"})
    fail_to_close(connection.streams._by_id["s"])
    await client.ask("interruptGenerate")  # and nobody reads any more
    with pytest.raises(Thrown, match="cannot be closed"):
        await client.ask("unload")
    assert engine_of(handler).loaded_model_ids() == []
