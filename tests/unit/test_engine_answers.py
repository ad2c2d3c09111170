"""The beginning and end of answers, with a fake device that follows token t with t + 1."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fake_model import (
    CONTEXT,
    VOCAB_SIZE,
    NumberModels,
    asked,
    is_closed,
    make_engine,
    num_used,
    settle,
)

from webllm import ChatOptions, MLCEngine
from webllm.api.chat_completion import ChatCompletionChunk
from webllm.api.usage import CompletionUsage
from webllm.errors import (
    ConfigError,
    DeviceLostError,
    ModelNotFoundError,
    ModelNotLoadedError,
    RequestError,
)
from webllm.testing import FakeBackend


def rest_of(runner: asyncio.Runner, stream: AsyncIterator[ChatCompletionChunk]) -> list[str | None]:
    async def read() -> list[str | None]:
        return [chunk.choices[0].delta.content async for chunk in stream]

    return runner.run(read())


async def test_stop_token_first_gives_an_empty_answer() -> None:
    reply = await make_engine().chat.completions.create(**asked("998"))
    assert reply.choices[0].message.content == ""
    assert reply.choices[0].finish_reason == "stop"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (1, 1)
    assert reply.usage.extra.prefill_tokens_per_s > 0


async def test_responses_name_what_computed_them() -> None:
    engine, fingerprint = make_engine(), f"{FakeBackend.forms}:none:{CONTEXT}"
    chat = await engine.chat.completions.create(**asked("1"), max_tokens=2)
    completion = await engine.completions.create(prompt="1", max_tokens=2)
    assert chat.system_fingerprint == completion.system_fingerprint == fingerprint
    options: Any = {"max_tokens": 2, "stream": True, "stream_options": {"include_usage": True}}
    chunks = [c async for c in await engine.chat.completions.create(**asked("1"), **options)]
    pieces = [c async for c in await engine.completions.create(prompt="1", **options)]
    assert {c.system_fingerprint for c in (*chunks, *pieces)} == {fingerprint}


@pytest.mark.parametrize("length", [31, 32, 33, 64, CONTEXT - 1])
async def test_one_token_after_prompts_of_any_length(length: int) -> None:
    prompt = " ".join(str(i) for i in range(length))
    reply = await make_engine().completions.create(prompt=prompt, max_tokens=1)
    assert reply.choices[0].text == f"{length} "
    assert reply.choices[0].finish_reason == "length"


async def test_the_context_window_ends_an_answer() -> None:
    prompt = " ".join(str(i) for i in range(CONTEXT - 3))
    reply = await make_engine().completions.create(prompt=prompt)
    assert reply.choices[0].text == "253 254 255 "
    assert reply.choices[0].finish_reason == "length"


async def test_closing_a_stream_at_any_time_frees_its_blocks() -> None:
    engine = make_engine()
    for num_chunks in range(8):
        stream = await engine.chat.completions.create(**asked("1", n=2, stream=True))
        for _ in range(num_chunks):
            await anext(stream)
        await stream.aclose()
        assert num_used(engine) == 0, num_chunks
        await stream.aclose()
    reply = await engine.chat.completions.create(**asked("5", max_tokens=2))
    assert reply.choices[0].message.content == "6 7 "


async def test_cancelling_an_answer_frees_its_blocks() -> None:
    engine = make_engine()
    task = asyncio.create_task(engine.chat.completions.create(**asked("1", ignore_eos=True)))
    await settle()
    assert num_used(engine) > 0
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert num_used(engine) == 0


async def test_interrupt_between_the_first_chunk_and_the_first_token() -> None:
    engine = make_engine()
    stream = await engine.chat.completions.create(**asked("1", stream=True))
    assert (await anext(stream)).choices[0].delta.role == "assistant"
    engine.interrupt_generate()
    rest = [chunk.choices[0] async for chunk in stream]
    assert [(c.delta.content, c.finish_reason) for c in rest] == [(None, "abort")]


async def test_nothing_generated_gives_no_rates() -> None:
    engine = make_engine()
    task = asyncio.create_task(engine.chat.completions.create(**asked("1 2 3")))
    await asyncio.sleep(0)
    engine.interrupt_generate()
    usage = (await task).usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (3, 0)
    assert (usage.extra.prefill_tokens_per_s, usage.extra.decode_tokens_per_s) == (0, 0)


async def test_a_slow_reader_does_not_slow_the_rates() -> None:
    engine = make_engine()
    fields = asked("1", stream=True, max_tokens=5, stream_options={"include_usage": True})
    usage: CompletionUsage | None = None
    async for chunk in await engine.chat.completions.create(**fields):
        usage = chunk.usage
        await asyncio.sleep(0.3)
    assert usage is not None
    assert usage.extra.e2e_latency_s < 1


async def test_unload_ends_a_stream_under_way() -> None:
    engine = make_engine()
    stream = await engine.chat.completions.create(**asked("1", stream=True))
    await anext(stream)
    await settle()
    await engine.unload()
    assert [c.choices[0].finish_reason async for c in stream][-1] == "abort"


async def test_a_stream_that_nobody_read_before_unload_ends() -> None:
    engine = make_engine()
    stream = await engine.chat.completions.create(**asked("1", stream=True))
    await engine.unload()
    assert [chunk async for chunk in stream][-1].choices[0].finish_reason == "abort"


async def test_a_failing_device_fails_answers_and_the_next_one_runs() -> None:
    backend = FakeBackend(vocab_size=VOCAB_SIZE)
    engine = make_engine(backend)
    stream = await engine.chat.completions.create(**asked("1", stream=True))
    await anext(stream)
    backend.error = DeviceLostError("gone")
    with pytest.raises(DeviceLostError):
        _ = [chunk async for chunk in stream]
    assert not engine.has_loaded(engine.loaded_model_ids()), "nobody would load it again"
    assert num_used(engine) == 0
    backend.error = None
    reply = await engine.chat.completions.create(**asked("5", max_tokens=2))
    assert reply.choices[0].message.content == "6 7 "


def test_an_engine_may_move_to_the_next_event_loop() -> None:
    engine = make_engine()

    async def abandon() -> None:
        asyncio.create_task(engine.chat_completion(asked("1", ignore_eos=True)))  # noqa: RUF006
        await settle()

    asyncio.run(abandon())
    reply = asyncio.run(engine.chat.completions.create(**asked("5", max_tokens=2)))
    assert reply.choices[0].message.content == "6 7 "
    asyncio.run(engine.unload())


def test_a_second_event_loop_is_refused_while_the_first_works() -> None:
    engine = make_engine()
    with asyncio.Runner() as first:
        fields = asked("1", max_tokens=2)
        stream = first.run(engine.chat.completions.create(**fields, stream=True))
        first.run(anext(stream))
        with pytest.raises(RequestError, match="one event loop"):
            asyncio.run(engine.chat_completion(asked("5", max_tokens=2)))
        assert rest_of(first, stream) == ["2 ", "3 ", None]


async def test_reload_of_an_unknown_model_leaves_nothing_loaded() -> None:
    engine = make_engine()
    with pytest.raises(ModelNotFoundError):
        await engine.reload("no-such-model")
    with pytest.raises(ModelNotLoadedError):
        await engine.chat.completions.create(**asked("1"))


async def test_concurrent_reloads_leave_one_model() -> None:
    models = NumberModels()
    engine = models.engine()
    await asyncio.gather(engine.reload("a.gguf"), engine.reload("b.gguf"))
    assert [is_closed(loaded) for loaded in models.loaded] == [True, False]
    await engine.unload()
    assert [is_closed(loaded) for loaded in models.loaded] == [True, True]


async def test_what_is_not_served_is_refused_and_defaults_are_not() -> None:
    text = {"type": "text"}
    await make_engine().chat.completions.create(
        **asked("1", max_tokens=1, response_format=text, presence_penalty=0, repetition_penalty=1)
    )
    with pytest.raises(RequestError, match="response_format is not supported yet"):
        await make_engine().chat.completions.create(
            **asked("1", response_format={"type": "json_object"})
        )
    tool_result = {"role": "tool", "content": "5", "tool_call_id": "a"}
    with pytest.raises(RequestError, match="tools is not supported yet"):
        await make_engine().chat.completions.create(messages=[tool_result])
    with pytest.raises(ConfigError, match="bos_token_id is not supported"):
        await MLCEngine().reload("a.gguf", ChatOptions(bos_token_id=1))


async def test_a_token_beyond_the_models_table_is_refused() -> None:
    with pytest.raises(RequestError, match="1000"):
        await make_engine().completions.create(prompt="5 1000", max_tokens=1)


async def test_benchmark_refuses_a_batch_that_does_not_run_at_once() -> None:
    engine = make_engine()
    await engine.benchmark(16, 16, batch=4)
    with pytest.raises(RequestError, match="KV cache"):
        await engine.benchmark(100, 100, batch=4)


async def test_a_cancelled_benchmark_stops() -> None:
    engine = make_engine()
    task = asyncio.create_task(engine.benchmark(16, 200))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert num_used(engine) == 0
    await engine.unload()
