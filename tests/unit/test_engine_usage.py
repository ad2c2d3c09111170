"""The other parts of answers: choices, usage, times, log probabilities."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_model import (
    NO_THOUGHT,
    asked,
    backend_of,
    counted,
    make_engine,
    model_of,
    num_used,
    usage_of,
)

from webllm.api.chat_completion import ChatCompletionTokenLogprob, TopLogprob
from webllm.errors import RequestError


async def test_every_choice_is_whole_and_usage_counts_all() -> None:
    engine = make_engine()
    reply = await engine.chat.completions.create(**asked("1 2", n=3, max_tokens=5))
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert {choice.message.content for choice in reply.choices} == {counted(3, 7)}
    usage = usage_of(reply)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (2, 15, 17)
    text = await engine.completions.create(prompt="1 2", n=2, max_tokens=2, echo=True)
    assert [choice.text for choice in text.choices] == ["1 23 4 "] * 2


async def test_chunks_of_every_choice_are_in_order() -> None:
    stream = await make_engine().chat.completions.create(
        **asked("1", n=3, max_tokens=4, stream=True)
    )
    chunks = [chunk async for chunk in stream]
    assert {(chunk.id, chunk.created, chunk.model) for chunk in chunks} == {
        (chunks[0].id, chunks[0].created, "numbers")
    }
    for index in range(3):
        of_choice = [c.choices[0] for c in chunks if c.choices[0].index == index]
        assert [c.delta.role for c in of_choice] == ["assistant", *[None] * 5]
        assert "".join(c.delta.content or "" for c in of_choice) == counted(2, 5)
        assert [c.finish_reason for c in of_choice] == [*[None] * 5, "length"]


async def test_a_streamed_completion_begins_with_its_echo() -> None:
    stream = await make_engine().completions.create(
        prompt="1", n=2, echo=True, max_tokens=2, stream=True
    )
    choices = [chunk.choices[0] async for chunk in stream]
    for index in (0, 1):
        texts = [choice.text for choice in choices if choice.index == index]
        assert texts[0] == "1"
        assert "".join(texts) == "12 3 "
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == ["length"] * 2


@pytest.mark.parametrize("include_usage", [True, False])
async def test_include_usage_adds_a_last_chunk_without_choices(include_usage: bool) -> None:
    options = {"include_usage": include_usage}
    fields: dict[str, Any] = {"max_tokens": 2, "stream": True, "stream_options": options}
    for stream in (
        await make_engine().chat.completions.create(**asked("1", **fields)),
        await make_engine().completions.create(prompt="1", **fields),
    ):
        *chunks, last = [chunk async for chunk in stream]
        assert all(chunk.usage is None and len(chunk.choices) == 1 for chunk in chunks)
        assert (last.choices == []) == include_usage
        assert (last.usage is not None) == include_usage
        if include_usage:
            assert last.usage.completion_tokens == 2


async def test_closing_a_stream_ends_every_choice() -> None:
    engine = make_engine()
    stream = await engine.completions.create(prompt="1", n=3, ignore_eos=True, stream=True)
    await anext(stream)
    assert num_used(engine) >= 3
    await stream.aclose()
    assert num_used(engine) == 0
    assert not model_of(engine).loop.scheduler.has_work


async def test_usage_says_what_the_kv_cache_knew() -> None:
    engine = make_engine()
    prompt = counted(0, 39)

    async def ask(prompt: str) -> tuple[int, int]:
        usage = usage_of(await engine.completions.create(prompt=prompt, max_tokens=9))
        assert usage.prompt_tokens_details is not None
        return usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens

    assert await ask(prompt) == (40, 0)
    assert await ask(prompt) == (40, 32)
    assert await ask(prompt + counted(40, 59)) == (60, 48), "the answer's first blocks as well"
    assert await ask("7 " + prompt) == (41, 0)


async def test_choices_of_one_request_share_their_prompt() -> None:
    engine = make_engine()
    await engine.completions.create(prompt=counted(0, 39), n=4, max_tokens=1)
    backend = backend_of(engine)
    assert sum(step.num_tokens for step in backend.steps) == 40 + 3 * 8


async def test_latency_breakdown_only_if_wanted() -> None:
    engine = make_engine()
    extra_body = {"enable_latency_breakdown": True}
    reply = await engine.completions.create(prompt="1", max_tokens=5, extra_body=extra_body)
    times = reply.to_dict()["usage"]["extra"]["latencyBreakdown"]["totalTime"]
    assert len(times) == 5
    assert 0 < sum(times) <= usage_of(reply).extra.e2e_latency_s
    reply = await engine.completions.create(prompt="1", max_tokens=5)
    assert "latencyBreakdown" not in reply.to_dict()["usage"]["extra"]


async def test_rates_fit_the_times() -> None:
    reply = await make_engine().completions.create(prompt="1 2 3", max_tokens=5)
    extra = usage_of(reply).extra
    assert extra.prefill_tokens_per_s == pytest.approx(3 / extra.time_to_first_token_s)
    assert extra.decode_tokens_per_s == pytest.approx(1 / extra.time_per_output_token_s)
    rest = extra.e2e_latency_s - extra.time_to_first_token_s
    assert 4 * extra.time_per_output_token_s == pytest.approx(rest)


def entry(token_id: int, num_top: int) -> ChatCompletionTokenLogprob:
    """Returns the fake device's logprobs of a token."""
    top = [
        TopLogprob(token=f"{t} ", bytes=list(b"%d " % t), logprob=-0.5 - i)
        for i, t in enumerate(range(token_id, token_id + num_top))
    ]
    return ChatCompletionTokenLogprob(
        token=f"{token_id} ", bytes=list(b"%d " % token_id), logprob=-0.5, top_logprobs=top
    )


@pytest.mark.parametrize("num_top", [None, 0, 3])
async def test_logprobs_of_every_token(num_top: int | None) -> None:
    engine = make_engine()
    fields: dict[str, Any] = {"max_tokens": 3, "logprobs": True, "top_logprobs": num_top}
    expected = [entry(token_id, num_top or 0) for token_id in (6, 7, 8)]
    reply = await engine.chat.completions.create(**asked("5", n=2, **fields))
    assert [choice.logprobs.content for choice in reply.choices] == [expected] * 2
    text = await engine.completions.create(prompt="5", **fields)
    assert text.choices[0].logprobs.content == expected
    stream = await engine.chat.completions.create(**asked("5", stream=True, **fields))
    streamed = [c.choices[0].logprobs async for c in stream]
    assert [e for part in streamed if part for e in part.content] == expected


async def test_no_logprobs_unless_asked_for() -> None:
    engine = make_engine()
    reply = await engine.chat.completions.create(**asked("5", max_tokens=3, logprobs=False))
    assert reply.to_dict()["choices"][0]["logprobs"] is None
    stream = await engine.completions.create(prompt="5", max_tokens=3, stream=True)
    assert [chunk.choices[0].logprobs async for chunk in stream] == [None] * 4


async def test_a_stop_string_takes_its_logprobs_along() -> None:
    reply = await make_engine().chat.completions.create(**asked("5", stop="8 ", logprobs=True))
    choice = reply.choices[0]
    assert (choice.message.content, choice.finish_reason) == ("6 7 ", "stop")
    assert choice.logprobs.content == [entry(6, 0), entry(7, 0)]


@pytest.mark.parametrize("stop", ["12", ["never", "2 1"], ["12 13"]])
async def test_stop_strings_end_an_answer(stop: str | list[str]) -> None:
    reply = await make_engine().completions.create(prompt="8", stop=stop)
    first = [stop] if isinstance(stop, str) else stop
    text = counted(9, 99)
    expected = text[: min(at for each in first if (at := text.find(each)) >= 0)]
    assert (reply.choices[0].text, reply.choices[0].finish_reason) == (expected, "stop")


async def test_ignore_eos_goes_on() -> None:
    reply = await make_engine().completions.create(prompt="997", max_tokens=4, ignore_eos=True)
    assert reply.choices[0].text == "998 0 1 "
    assert usage_of(reply).completion_tokens == 4


async def test_enable_thinking_reaches_the_template() -> None:
    engine = make_engine()
    for enable_thinking, said in ((None, "2 "), (True, "2 "), (False, f"{NO_THOUGHT + 1} ")):
        extra_body = {"enable_thinking": enable_thinking}
        reply = await engine.chat.completions.create(
            **asked("1", max_tokens=1, extra_body=extra_body)
        )
        assert reply.choices[0].message.content == said


async def test_a_bias_for_no_token_is_refused() -> None:
    with pytest.raises(RequestError, match="from 0 to 999") as caught:
        await make_engine().completions.create(prompt="1", logit_bias={1000: 1})
    assert caught.value.field == "logit_bias"


@pytest.mark.parametrize(("temperature", "used"), [(1e-40, 0), (9e-6, 0), (0.5, 0.5), (None, 1)])
async def test_a_temperature_too_low_to_divide_by_is_greedy(
    temperature: float | None, used: float
) -> None:
    engine = make_engine()
    await engine.completions.create(prompt="1", max_tokens=1, temperature=temperature)
    step = backend_of(engine).steps[-1]
    assert step.sequences[0].sampling.temperature == used


async def test_requests_at_once_share_steps() -> None:
    engine = make_engine(windows=4)
    replies = await asyncio.gather(
        *(engine.completions.create(prompt=str(i), max_tokens=20) for i in range(0, 200, 25))
    )
    assert [r.choices[0].text for r in replies] == [
        counted(i + 1, i + 20) for i in range(0, 200, 25)
    ]
    steps = backend_of(engine).steps
    assert sum(len(step.sequences) == 8 for step in steps) >= 15
