"""Prompts are made in order, in other threads, and from only the text that can matter."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from fake_model import (
    CONTEXT,
    NO_THOUGHT,
    AllMessages,
    NumberTokenizer,
    asked,
    backend_of,
    counted,
    make_loaded,
    num_used,
    usage_of,
)

from webllm import ChatOptions, MLCEngine
from webllm.errors import (
    ContextLengthError,
    ModelNotLoadedError,
    QueueFullError,
    TemplateError,
)
from webllm.text.steps import Steps, finish

CHARS_PER_TOKEN = 8


class CountingTokenizer(NumberTokenizer):
    """Records the tokenized texts; a number and the space after it have at most 8 characters."""

    chars_per_token: int | None = CHARS_PER_TOKEN

    def __init__(self) -> None:
        self.num_chars = 0

    def min_tokens(self, text: str) -> int:
        return len(text) // CHARS_PER_TOKEN

    def encode(
        self, text: str, *, parse_special: bool = False, add_special: bool = True
    ) -> list[int]:
        self.num_chars += len(text)
        return [int(number) % 1000 for number in text.split()]


class Program(AllMessages):
    """A template whose rendering waits until the test lets it continue."""

    is_program = True

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.rendered: list[str] = []
        self.error: Exception | None = None

    def render(self, messages: Sequence[Mapping[str, object]], enable_thinking: bool = True) -> str:
        prompt = super().render(messages)
        self.rendered.append(prompt)
        self.begun.set()
        assert self.may_end.wait(60)
        if self.error is not None:
            raise self.error
        return prompt


def engine_with(*, options: Mapping[str, Any] | None = None, **parts: Any) -> MLCEngine:
    """Makes an engine whose `LoadedModel` has other parts; `options` are the model's."""
    loaded = make_loaded("numbers", ChatOptions(**options or {}), windows=4)
    return MLCEngine(models=[replace(loaded, **parts)])


def seen(engine: MLCEngine) -> list[int]:
    """Returns the token ids of the last prompt in the KV cache."""
    last = backend_of(engine).steps[-1].sequences[0]
    return backend_of(engine).context(last.block_table, last.context_len, 16)


async def begun(program: Program) -> None:
    while not program.begun.is_set():
        await asyncio.sleep(0)


class TestLongText:
    @pytest.mark.parametrize("policy", ["error", "truncate_oldest_messages"])
    async def test_what_cannot_fit_is_refused_before_it_is_tokenized(self, policy: str) -> None:
        tokenizer = CountingTokenizer()
        engine = engine_with(tokenizer=tokenizer, options={"context_overflow": policy})
        text = "1234567 " * 100_000
        for call in (
            engine.completions.create(prompt=text),
            engine.chat.completions.create(**asked(text)),
        ):
            with pytest.raises(
                ContextLengthError, match="800000 characters, which are 100000 tokens or more"
            ):
                await call
        assert tokenizer.num_chars == 0

    async def test_what_may_fit_is_not_refused(self) -> None:
        engine = engine_with(tokenizer=CountingTokenizer())
        reply = await engine.completions.create(prompt="1234567 " * (CONTEXT - 1))
        assert usage_of(reply).prompt_tokens == CONTEXT - 1
        with pytest.raises(ContextLengthError, match=f"{CONTEXT} tokens"):
            await engine.completions.create(prompt="1 " * CONTEXT)

    async def test_of_text_that_will_be_shifted_the_ends_are_tokenized(self) -> None:
        text = " ".join(str(1_000_000 + i) for i in range(200_000))
        shown = []
        for per_token in (CHARS_PER_TOKEN, None):
            tokenizer = CountingTokenizer()
            tokenizer.chars_per_token = per_token
            engine = engine_with(tokenizer=tokenizer, options={"context_overflow": "shift"})
            await engine.completions.create(prompt=text, max_tokens=1)
            shown.append(seen(engine))
            if per_token:
                assert tokenizer.num_chars < 2 * CONTEXT * CHARS_PER_TOKEN
        assert shown[0] == shown[1]
        assert shown[0][:4] == [0, 1, 2, 3]
        assert shown[0][-1] == 999


class TestTruncation:
    @staticmethod
    def conversation(rng: random.Random) -> list[dict[str, str]]:
        messages = [{"role": "system", "content": "900 901"}] * rng.randrange(2)
        for turn in range(rng.randrange(1, 12)):
            for role in ["user", *["assistant"] * rng.randrange(3)]:
                number = str(rng.choice([1, 22, 333]))
                content = " ".join([number] * rng.choice([1, 5, 20, 90]) + [str(turn)])
                messages.append({"role": role, "content": content})
        return [*messages, {"role": "user", "content": "5"}]

    @staticmethod
    def shortened(messages: list[dict[str, str]], room: int) -> list[int]:
        """Returns the first shortened conversation that fits, trying one after the other."""
        first = 1 if messages[0]["role"] == "system" else 0
        starts = [i for i in range(first + 1, len(messages)) if messages[i]["role"] == "user"]
        for start in [first, *starts]:
            kept = messages[:first] + messages[start:]
            token_ids = [int(n) for message in kept for n in message["content"].split()]
            if len(token_ids) <= room:
                break
        return token_ids

    @pytest.mark.parametrize("tokenizer", [NumberTokenizer, CountingTokenizer])
    async def test_no_more_goes_than_has_to(self, tokenizer: type[NumberTokenizer]) -> None:
        rng = random.Random(7)
        for _ in range(60):
            engine = engine_with(
                tokenizer=tokenizer(), options={"context_overflow": "truncate_oldest_messages"}
            )
            messages = self.conversation(rng)
            await engine.chat.completions.create(messages=messages, max_tokens=40)
            expected = self.shortened(messages, CONTEXT - 40)
            assert seen(engine)[: len(expected)] == expected

    async def test_what_a_template_leaves_out_takes_no_room(self) -> None:
        class WithoutThoughts(AllMessages):
            def render(
                self, messages: Sequence[Mapping[str, object]], enable_thinking: bool = True
            ) -> str:
                return " ".join(str(each["content"]).split("</think>")[-1] for each in messages)

        engine = engine_with(
            tokenizer=CountingTokenizer(),
            chat_format=WithoutThoughts(),
            options={"context_overflow": "truncate_oldest_messages"},
        )
        thought = "9 " * 5000 + "</think>"
        contents = ["1", f"{thought}2", "3", f"{thought}4", "5"]
        roles = ["user", "assistant", "user", "assistant", "user"]
        messages = [
            {"role": role, "content": content}
            for role, content in zip(roles, contents, strict=True)
        ]
        await engine.chat.completions.create(messages=messages, max_tokens=1)
        assert seen(engine)[:5] == [1, 2, 3, 4, 5]

    async def test_ten_thousand_messages_are_not_all_read(self) -> None:
        tokenizer = CountingTokenizer()
        tokenizer.chars_per_token = None
        engine = engine_with(
            tokenizer=tokenizer, options={"context_overflow": "truncate_oldest_messages"}
        )
        roles = ["user", "assistant"] * 5000
        messages = [{"role": role, "content": "123 " * 10} for role in [*roles, "user"]]
        await engine.chat.completions.create(messages=messages, max_tokens=56)
        assert seen(engine)[:190] == [123] * 190
        assert tokenizer.num_chars < 10 * CONTEXT * CHARS_PER_TOKEN

    async def test_an_old_message_of_a_million_characters_goes_unread(self) -> None:
        tokenizer = CountingTokenizer()
        engine = engine_with(
            tokenizer=tokenizer, options={"context_overflow": "truncate_oldest_messages"}
        )
        contents = ["1 " * 500_000, "2", "3 3", "4", "5"]
        roles = ["user", "assistant", "user", "assistant", "user"]
        messages = [
            {"role": role, "content": content}
            for role, content in zip(roles, contents, strict=True)
        ]
        await engine.chat.completions.create(messages=messages, max_tokens=1)
        assert seen(engine)[:4] == [3, 3, 4, 5]
        assert tokenizer.num_chars < 100


class TestBesideTheEventLoop:
    async def test_a_template_keeps_nobody_waiting(self) -> None:
        """The event loop and other answers continue until the test lets the template end."""
        program = Program()
        engine = engine_with(chat_format=program)
        asking = asyncio.create_task(engine.chat.completions.create(**asked("1", max_tokens=1)))
        await begun(program)
        reply = await engine.completions.create(prompt="5", max_tokens=3)
        assert reply.choices[0].text == "6 7 8 "
        program.may_end.set()
        assert (await asking).choices[0].message.content == "2 "

    async def test_many_short_messages_are_a_long_text(self) -> None:
        threads: list[threading.Thread] = []

        class Noting(AllMessages):
            def render(self, *args: object, **fields: object) -> str:
                threads.append(threading.current_thread())
                return "1"

        engine = engine_with(chat_format=Noting())
        for count in (1, 1000):
            messages = [{"role": "user", "content": ""}] * count
            await engine.chat.completions.create(messages=messages, max_tokens=1)
        assert [thread is threading.main_thread() for thread in threads] == [True, False]

    async def test_a_long_prompt_keeps_no_short_one_waiting(self) -> None:
        program = Program()
        engine = engine_with(
            chat_format=program,
            tokenizer=CountingTokenizer(),
            options={"context_overflow": "shift"},
        )
        long = asyncio.create_task(
            engine.chat.completions.create(**asked("1234567 " * 20_000, max_tokens=1))
        )
        await begun(program)
        short = asyncio.create_task(engine.chat.completions.create(**asked("1", max_tokens=1)))
        while len(program.rendered) < 2:
            await asyncio.sleep(0)
        program.may_end.set()
        assert (await short).choices[0].message.content == "2 "
        assert (await long).choices[0].message.content == "568 "

    async def test_requests_are_served_in_the_order_in_which_they_came(self) -> None:
        program = Program()
        engine = engine_with(chat_format=program)
        asking = [
            asyncio.create_task(engine.chat.completions.create(**asked(str(i), max_tokens=1)))
            for i in range(20)
        ]
        await begun(program)
        program.may_end.set()
        await asyncio.gather(*asking)
        assert program.rendered == [str(i) for i in range(20)]
        steps = backend_of(engine).steps
        firsts = [share.token_ids[0] for step in steps for share in step.sequences]
        assert firsts == list(range(20))

    def test_one_event_loop_after_the_other(self) -> None:
        program = Program()
        program.may_end.set()
        engine = engine_with(chat_format=program)

        async def crowd() -> list[str | None]:
            asking = [
                engine.chat.completions.create(**asked(str(i), max_tokens=1)) for i in range(4)
            ]
            return [reply.choices[0].message.content for reply in await asyncio.gather(*asking)]

        for _ in range(3):
            assert asyncio.run(crowd()) == ["1 ", "2 ", "3 ", "4 "]

    def test_an_event_loop_that_ends_in_the_middle_leaves_the_next_one_free(self) -> None:
        program = Program()
        engine = engine_with(chat_format=program)
        ended = asyncio.new_event_loop()
        left = ended.create_task(engine.chat.completions.create(**asked("1")))
        ended.run_until_complete(begun(program))
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            ended.run_until_complete(left)
        ended.close()
        program.may_end.set()
        reply = asyncio.run(engine.chat.completions.create(**asked("5", max_tokens=1)))
        assert reply.choices[0].message.content == "6 "

    async def test_prompts_in_the_making_have_places_in_the_queue(self) -> None:
        program = Program()
        parts = make_loaded(windows=4, max_waiting=2)
        engine = MLCEngine(models=[replace(parts, chat_format=program)])
        most = parts.loop.scheduler.limits.max_sequences + 2
        fields = [asked("1", max_tokens=1, n=most - 1), asked("2", max_tokens=1)]
        asking = [asyncio.create_task(engine.chat.completions.create(**each)) for each in fields]
        await begun(program)
        for _ in range(3):
            with pytest.raises(QueueFullError, match=f"{most} sequences run or wait and 1 more"):
                await engine.chat.completions.create(**asked("3"))
        asking.pop().cancel()
        asking.append(asyncio.create_task(engine.chat.completions.create(**fields[1])))
        program.may_end.set()
        replies = await asyncio.gather(*asking)
        assert [len(reply.choices) for reply in replies] == [most - 1, 1]
        assert engine._session(None)._num_encoding == 0

    async def test_errors_come_as_they_are(self) -> None:
        program = Program()
        program.error = TemplateError("no such role")
        program.may_end.set()
        with pytest.raises(TemplateError, match="no such role"):
            await engine_with(chat_format=program).chat.completions.create(**asked("1"))

    async def test_a_request_that_is_cancelled_ends_at_once_and_the_next_one_runs(self) -> None:
        program = Program()
        engine = engine_with(chat_format=program)
        left = asyncio.create_task(engine.chat.completions.create(**asked("1")))
        await begun(program)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        following = asyncio.create_task(engine.chat.completions.create(**asked("5", max_tokens=1)))
        program.may_end.set()
        assert (await following).choices[0].message.content == "6 "
        assert len(backend_of(engine).steps) == 1
        assert num_used(engine) == 0

    @pytest.mark.parametrize("stream", [False, True])
    async def test_a_model_that_is_unloaded_meanwhile(self, stream: bool) -> None:
        program = Program()
        engine = engine_with(chat_format=program)

        async def ask() -> None:
            reply = await engine.chat.completions.create(**asked("1", stream=stream))
            if stream:
                await anext(reply)

        asking = asyncio.create_task(ask())
        await begun(program)
        await engine.unload()
        program.may_end.set()
        with pytest.raises(ModelNotLoadedError, match="unloaded before this answer began"):
            await asking

    async def test_an_answer_that_is_interrupted_meanwhile_ends_with_no_token(self) -> None:
        program = Program()
        engine = engine_with(chat_format=program)
        asking = asyncio.create_task(engine.chat.completions.create(**asked("1", n=2)))
        await begun(program)
        engine.interrupt_generate()
        program.may_end.set()
        reply = await asking
        assert [choice.finish_reason for choice in reply.choices] == ["abort", "abort"]
        assert [choice.message.content for choice in reply.choices] == ["", ""]
        assert num_used(engine) == 0
        following = await engine.chat.completions.create(**asked("1", max_tokens=1))
        assert following.choices[0].message.content == "2 "

    async def test_a_stream_that_is_interrupted_meanwhile_ends(self) -> None:
        program = Program()
        engine = engine_with(chat_format=program)
        asking = asyncio.create_task(engine.chat.completions.create(**asked("1", stream=True)))
        await begun(program)
        engine.interrupt_generate()
        program.may_end.set()
        reasons = [chunk.choices[0].finish_reason async for chunk in await asking]
        assert reasons == [None, "abort"]

    async def test_thinking_is_still_left_out(self) -> None:
        engine = engine_with()
        extra_body = {"enable_thinking": False}
        reply = await engine.chat.completions.create(
            **asked(counted(1, 3), max_tokens=1, extra_body=extra_body)
        )
        assert reply.choices[0].message.content == f"{NO_THOUGHT + 1} "


def test_steps_are_finished_with_their_result() -> None:
    def steps() -> Steps[int]:
        yield
        return (yield from inner()) + 1

    def inner() -> Steps[int]:
        yield
        return 1

    assert finish(steps()) == 2
