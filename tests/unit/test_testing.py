"""The fakes for users: an engine whose answers a function writes."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from fake_model import asked

from webllm import BlockingMLCEngine, MLCEngineConfig
from webllm.errors import ContextLengthError
from webllm.testing import fake_engine

DOCS = (Path(__file__).parents[2] / "docs" / "python.md").read_text()


def test_the_example_in_the_documentation_runs() -> None:
    section = DOCS.split("## Testing your own program\n")[1]
    [example] = re.findall(r"```python\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    exec(compile(example, "docs/python.md", "exec"), {})


async def test_answers_come_whole_and_in_pieces() -> None:
    async with fake_engine(lambda said: f"«{said}»") as engine:
        await engine.reload("SmolLM2-135M-Instruct")
        reply = await engine.chat.completions.create(**asked("Grüß Gott"))
        assert reply.choices[0].message.content == "«Grüß Gott»"
        assert reply.usage.completion_tokens == len("«Grüß Gott»".encode()) + 1  # and the end
        stream = await engine.completions.create(prompt="a", stream=True)
        assert [chunk.choices[0].text async for chunk in stream if chunk.choices][:3] == [*"«a»"]


async def test_requests_keep_their_limits() -> None:
    async with fake_engine(lambda said: said * 100) as engine:
        await engine.reload("m.gguf")
        reply = await engine.completions.create(prompt="xy", max_tokens=3)
        assert (reply.choices[0].text, reply.choices[0].finish_reason) == ("xyx", "length")
        reply = await engine.completions.create(prompt="x.", stop=".")
        assert reply.choices[0].text == "x"
        with pytest.raises(ContextLengthError):
            await engine.completions.create(prompt="x" * 5000)


async def test_each_request_is_answered_once_and_an_error_fails_it() -> None:
    answers = ["first", "second"]
    async with fake_engine(lambda said: answers.pop(0)) as engine:
        await engine.reload("m.gguf")
        for expected in ("first", "second"):
            reply = await engine.chat.completions.create(**asked("same"))
            assert reply.choices[0].message.content == expected
        with pytest.raises(IndexError):
            await engine.chat.completions.create(**asked("same"))


async def test_choices_and_requests_at_once_keep_their_own_answers() -> None:
    answers = iter(["first answer", "SECOND!", "third one.", "a", "b"])
    async with fake_engine(lambda said: next(answers)) as engine:
        await engine.reload("m.gguf")
        reply = await engine.chat.completions.create(**asked("same"), n=3)
        said = {choice.message.content for choice in reply.choices}
        assert said == {"first answer", "SECOND!", "third one."}
        replies = [engine.chat.completions.create(**asked("same")) for _ in range(2)]
        said = {reply.choices[0].message.content for reply in await asyncio.gather(*replies)}
        assert said == {"a", "b"}


async def test_an_answer_that_is_no_text_says_so() -> None:
    async with fake_engine(lambda said: None) as engine:  # type: ignore[arg-type, return-value]
        await engine.reload("m.gguf")
        with pytest.raises(TypeError, match="the answer is None; return a str"):
            await engine.completions.create(prompt="x")


def test_without_async_and_with_progress() -> None:
    texts: list[str] = []
    config = MLCEngineConfig(init_progress_callback=lambda report: texts.append(report.text))
    with BlockingMLCEngine(engine=fake_engine(str.upper, config)) as engine:
        engine.reload("m.gguf")
        assert engine.chat.completions.create(**asked("hi")).choices[0].message.content == "HI"
    assert texts[-1] == "Ready"
