"""The handling of conversations that outgrow the context window (256 tokens here)."""

from __future__ import annotations

from typing import Any

import pytest
from fake_model import (
    CONTEXT,
    NumberModels,
    asked,
    backend_of,
    counted,
    make_engine,
    num_used,
    number_models,
    usage_of,
)

from webllm import ChatOptions, MLCEngine
from webllm.config import ContextOverflow
from webllm.errors import ConfigError, ContextLengthError, RequestError

__all__ = ["number_models"]  # a fixture

WAYS = pytest.mark.parametrize("way", ["options", "extra_body"])


def engine_and_fields(
    policy: ContextOverflow, way: str, **options: Any
) -> tuple[MLCEngine, dict[str, Any]]:
    """Sets the policy as an option of the model, or in the fields of a request."""
    if way == "options":
        return make_engine(context_overflow=policy, **options), {}
    return make_engine(**options), {"extra_body": {"context_overflow": policy}}


def context(engine: MLCEngine) -> list[int]:
    """Returns the token ids in the KV cache after the last step."""
    backend = backend_of(engine)
    last = backend.steps[-1].sequences[0]
    return backend.context(last.block_table, last.context_len, 16)


def conversation(*lengths: int) -> list[dict[str, str]]:
    """Returns a system message 900 901, then messages 100 .., 200 .., … of these lengths."""
    messages = [{"role": "system", "content": "900 901"}]
    for i, length in enumerate(lengths, 1):
        role = "user" if i % 2 else "assistant"
        messages.append({"role": role, "content": " ".join([str(100 * i)] * length)})
    return messages


def lengths_seen(engine: MLCEngine) -> list[tuple[int, int]]:
    """Returns (hundreds, count) of the prompt's tokens that the model has seen."""
    seen = context(engine)
    return [(kind, seen.count(kind)) for kind in dict.fromkeys(seen)]


class TestError:
    @pytest.mark.parametrize("fields", [{}, {"extra_body": {"context_overflow": "error"}}])
    async def test_long_prompts_are_refused(self, fields: dict[str, Any]) -> None:
        engine = make_engine(context_overflow="shift" if fields else None)
        with pytest.raises(
            ContextLengthError, match="256 tokens, the context window 256"
        ) as caught:
            await engine.chat.completions.create(**asked(counted(0, CONTEXT - 1), **fields))
        assert caught.value.field == "messages"
        with pytest.raises(ContextLengthError, match='choose context_overflow "shift"') as caught:
            await engine.completions.create(prompt=counted(0, 300), **fields)
        assert caught.value.field == "prompt"
        assert num_used(engine) == 0

    @pytest.mark.parametrize("max_tokens", [None, 10, 1000])
    async def test_the_window_ends_an_answer(self, max_tokens: int | None) -> None:
        reply = await make_engine().chat.completions.create(
            **asked(counted(0, CONTEXT - 4), max_tokens=max_tokens)
        )
        assert reply.choices[0].message.content == counted(CONTEXT - 3, CONTEXT - 1)
        assert reply.choices[0].finish_reason == "length"

    async def test_all_positions_of_the_window_serve(self) -> None:
        engine = make_engine()
        reply = await engine.completions.create(prompt="0")
        assert usage_of(reply).total_tokens == CONTEXT
        assert reply.choices[0].finish_reason == "length"


class TestShift:
    @WAYS
    async def test_an_answer_goes_on_beyond_the_window(self, way: str) -> None:
        engine, fields = engine_and_fields("shift", way)
        reply = await engine.chat.completions.create(**asked("1", max_tokens=900, **fields))
        assert reply.choices[0].message.content == counted(2, 901)
        assert reply.choices[0].finish_reason == "length"
        usage = usage_of(reply)
        assert (usage.prompt_tokens, usage.completion_tokens) == (1, 900)
        assert num_used(engine) == 0

    @WAYS
    async def test_a_long_prompt_keeps_its_beginning_and_its_end(self, way: str) -> None:
        engine, fields = engine_and_fields("shift", way)
        reply = await engine.completions.create(prompt=counted(0, 599), max_tokens=1, **fields)
        assert reply.choices[0].text == "600 "
        assert context(engine) == [*range(4), *range(474, 600)]
        assert usage_of(reply).prompt_tokens == 130

    @pytest.mark.parametrize(("sinks", "kept"), [(0, 0), (10, 10), (200, 128)])
    async def test_attention_sinks_stay(self, sinks: int, kept: int) -> None:
        engine = make_engine(context_overflow="shift", attention_sink_size=sinks)
        reply = await engine.completions.create(prompt=counted(300, 500), max_tokens=250)
        assert reply.choices[0].text == counted(501, 750)
        seen = context(engine)
        assert seen[:kept] == list(range(300, 300 + kept))
        assert seen[kept:] == list(range(seen[kept], 750))
        assert seen[kept] > 501

    async def test_a_window_that_is_just_full(self) -> None:
        for length in (CONTEXT - 1, CONTEXT, CONTEXT + 1):
            engine = make_engine(context_overflow="shift")
            reply = await engine.completions.create(prompt=counted(0, length - 1), max_tokens=3)
            assert reply.choices[0].text == counted(length, length + 2), length

    async def test_the_default_max_tokens_is_one_window(self) -> None:
        reply = await make_engine(context_overflow="shift").completions.create(prompt="0")
        assert usage_of(reply).completion_tokens == CONTEXT
        assert reply.choices[0].finish_reason == "length"

    async def test_stop_tokens_stop(self) -> None:
        engine = make_engine(context_overflow="shift")
        reply = await engine.completions.create(prompt="500", max_tokens=2000)
        assert (reply.choices[0].text, reply.choices[0].finish_reason) == (
            counted(501, 998),
            "stop",
        )

    async def test_several_choices_shift_in_their_own_time(self) -> None:
        engine = make_engine(windows=2, context_overflow="shift")
        reply = await engine.completions.create(prompt="1", n=3, max_tokens=600)
        assert [choice.text for choice in reply.choices] == [counted(2, 601)] * 3

    async def test_sliding_window_size_is_a_shifting_window(
        self, number_models: NumberModels
    ) -> None:
        options = ChatOptions(sliding_window_size=64, attention_sink_size=2)
        engine = number_models.engine()
        await engine.reload("a.gguf", options)
        assert number_models.loaded[0].context_window_size == 64
        reply = await engine.completions.create(prompt=counted(0, 99), max_tokens=200)
        assert reply.choices[0].text == counted(100, 299)
        seen = context(engine)
        assert len(seen) <= 64
        assert (seen[:2], seen[2:]) == ([0, 1], list(range(seen[2], 299)))
        with pytest.raises(ContextLengthError):
            await engine.completions.create(
                prompt=counted(0, 99), extra_body={"context_overflow": "error"}
            )

    async def test_forwarded_tokens_shift_too(self) -> None:
        engine = make_engine(context_overflow="shift")
        assert await engine.forward_tokens_and_sample(range(300), True) == 300
        assert await engine.forward_tokens_and_sample([300], False) == 301
        assert context(engine)[:5] == [0, 1, 2, 3, 175]


class TestTruncateOldestMessages:
    @WAYS
    async def test_the_oldest_turns_go_and_the_system_message_stays(self, way: str) -> None:
        engine, fields = engine_and_fields("truncate_oldest_messages", way)
        messages = conversation(90, 60, 50, 40, 30)
        reply = await engine.chat.completions.create(messages=messages, max_tokens=1, **fields)
        assert reply.choices[0].message.content == "501 "
        assert lengths_seen(engine) == [(900, 1), (901, 1), (300, 50), (400, 40), (500, 30)]

    async def test_no_more_goes_than_has_to(self) -> None:
        engine = make_engine(context_overflow="truncate_oldest_messages")
        messages = conversation(90, 60, 50, 40, 10)  # 252 with the system's
        await engine.chat.completions.create(messages=messages, max_tokens=4)
        assert lengths_seen(engine)[2:4] == [(100, 90), (200, 60)]
        await engine.chat.completions.create(messages=messages, max_tokens=5)
        assert lengths_seen(engine)[2:5] == [(300, 50), (400, 40), (500, 10)]

    async def test_room_is_left_for_an_answer(self) -> None:
        engine = make_engine(context_overflow="truncate_oldest_messages")
        messages = conversation(60, 60, 60, 60, 10)
        reply = await engine.chat.completions.create(messages=messages)
        assert usage_of(reply).prompt_tokens == 132
        assert reply.choices[0].finish_reason == "length"
        assert usage_of(reply).total_tokens == CONTEXT

    async def test_without_a_system_message(self) -> None:
        engine = make_engine(context_overflow="truncate_oldest_messages")
        messages = conversation(100, 100, 100)[1:]
        await engine.chat.completions.create(messages=messages, max_tokens=1)
        assert lengths_seen(engine) == [(300, 100)]

    async def test_a_turn_goes_with_all_its_answers(self) -> None:
        engine = make_engine(context_overflow="truncate_oldest_messages")
        messages = conversation(200, 40, 40)
        messages.insert(3, {"role": "assistant", "content": "250"})
        await engine.chat.completions.create(messages=messages, max_tokens=1)
        assert lengths_seen(engine) == [(900, 1), (901, 1), (300, 40)]

    async def test_a_last_message_too_long_is_refused(self) -> None:
        engine = make_engine(context_overflow="truncate_oldest_messages")
        with pytest.raises(ContextLengthError, match="the prompt has 302 tokens") as caught:
            await engine.chat.completions.create(messages=conversation(10, 10, 300))
        assert caught.value.field == "messages"

    async def test_a_last_message_that_barely_fits_is_answered(self) -> None:
        engine = make_engine(context_overflow="truncate_oldest_messages")
        reply = await engine.chat.completions.create(messages=conversation(10, 10, 250))
        assert usage_of(reply).prompt_tokens == 252
        assert reply.choices[0].finish_reason == "length"
        assert usage_of(reply).completion_tokens == 4

    async def test_completions_have_no_messages_to_leave_out(self) -> None:
        engine = make_engine(context_overflow="truncate_oldest_messages")
        with pytest.raises(ContextLengthError):
            await engine.completions.create(prompt=counted(0, 300))


@pytest.mark.parametrize("wrong", [{"attention_sink_size": -2}, {"sliding_window_size": 0}])
def test_impossible_windows_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ChatOptions(**wrong)


async def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(RequestError, match="one of 'error', 'shift', 'truncate_oldest_messages'"):
        await make_engine().completions.create(
            prompt="1", extra_body={"context_overflow": "forget"}
        )
