"""How far a prompt has been read, in the first chunks of a stream."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from fake_model import CONTEXT, NumberModels, asked, counted, make_engine, number_models
from fake_worker import Worker
from memory_journal import MemoryStorage
from test_engine_loop import BLOCK_SIZE

from webllm.api.usage import PromptProgress
from webllm.engine.journal import Journal
from webllm.testing import fake_engine
from webllm.workers.proxy import Recovery, WorkerMLCEngine

__all__ = ["number_models"]  # a fixture

PROMPT = counted(1, 100).strip()
STEP = 32  # tokens
PROGRESS: dict[str, Any] = {"stream": True, "extra_body": {"return_progress": True}}


async def split(stream: Any) -> tuple[list[PromptProgress], list[Any]]:
    """Returns the progress of the prompt, and the chunks after it, none of which has any."""
    chunks = [chunk async for chunk in stream]
    progress = [chunk.prompt_progress for chunk in chunks if chunk.prompt_progress is not None]
    assert not any(chunk.choices or chunk.usage for chunk in chunks[: len(progress)])
    rest = chunks[len(progress) :]
    assert all(chunk.prompt_progress is None for chunk in rest)
    return progress, rest


def processed(progress: list[PromptProgress]) -> list[int]:
    """Returns how far each step came, up to the whole prompt."""
    done = [each.processed for each in progress]
    assert done == sorted(set(done))
    assert done[-1:] == [each.total for each in progress[-1:]]
    times = [each.time_ms for each in progress]
    assert times == sorted(times)
    return done


def without_head(chunks: list[Any]) -> list[Any]:
    return [chunk.choices for chunk in chunks]


@pytest.mark.parametrize("n", [1, 3])
async def test_a_stream_begins_with_the_progress_of_its_prompt(n: int) -> None:
    for request in (asked(PROMPT, n=n, max_tokens=3), {"prompt": PROMPT, "n": n, "max_tokens": 3}):
        engine = make_engine(windows=2)
        create = engine.chat_completion if "messages" in request else engine.completion
        plain: Any = await create({**request, "stream": True})
        _, expected = await split(plain)
        engine = make_engine(windows=2)
        create = engine.chat_completion if "messages" in request else engine.completion
        progress, rest = await split(await create({**request, **PROGRESS}))
        assert processed(progress) == [32, 64, 96, 100]
        assert {(each.total, each.cache) for each in progress} == {(100, 0)}
        assert without_head(rest) == without_head(expected)


async def test_what_the_prefix_cache_has_is_processed_at_once() -> None:
    engine = make_engine(windows=2)
    await engine.completions.create(prompt=PROMPT, max_tokens=1)
    progress, _ = await split(
        await engine.completions.create(prompt=PROMPT, max_tokens=1, **PROGRESS)
    )
    assert [(each.cache, each.processed) for each in progress] == [(96, 100)]
    progress, _ = await split(
        await engine.completions.create(prompt=f"{PROMPT} 7" + " 8" * 50, max_tokens=1, **PROGRESS)
    )
    assert [(each.cache, each.processed) for each in progress] == [(96, 128), (96, 151)]


async def test_each_of_a_crowd_sees_its_own() -> None:
    engine = make_engine(windows=8)

    async def one(first: int, length: int) -> tuple[list[PromptProgress], str]:
        prompt = counted(first, first + length - 1)
        stream = await engine.completions.create(prompt=prompt, max_tokens=9, **PROGRESS)
        progress, rest = await split(stream)
        return progress, "".join(chunk.choices[0].text for chunk in rest)

    lengths = [1, 200, 33, 64, 150, 7, 90]
    starts = [1 + 100 * i for i in range(len(lengths))]
    both = zip(starts, lengths, strict=True)
    answers = await asyncio.gather(*(one(first, length) for first, length in both))
    for first, length, (progress, text) in zip(starts, lengths, answers, strict=True):
        assert processed(progress)[-1] == length
        assert len(progress) >= -(-length // STEP)
        assert text == counted(first + length, first + length + 8)


async def test_a_prompt_that_is_read_again_goes_on_where_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Four answers need all blocks, of which a prompt that came later has most."""
    engine = make_engine()
    caplog.set_level(logging.DEBUG, "webllm")
    length = CONTEXT - 5 * BLOCK_SIZE
    prompts = [counted(first, first + BLOCK_SIZE - 6) for first in (1, 101, 201, 301)]
    others = [engine.completions.create(prompt=each, max_tokens=53) for each in prompts]
    long = engine.completions.create(prompt=counted(500, 499 + length), max_tokens=2, **PROGRESS)
    *_, stream = await asyncio.gather(*others, long)
    progress, rest = await split(stream)
    assert f"preempts a sequence of {length} tokens" in caplog.text
    assert processed(progress)[-1] == length
    assert "".join(chunk.choices[0].text for chunk in rest) == counted(500 + length, 501 + length)


async def test_who_does_not_ask_is_not_told() -> None:
    engine = make_engine(windows=2)
    given: list[dict[str, Any]] = [{}, {"extra_body": {"return_progress": False}}]
    for extra in given:
        stream = await engine.completions.create(prompt=PROMPT, stream=True, max_tokens=2, **extra)
        progress, rest = await split(stream)
        assert (progress, len(rest)) == ([], 3)
    reply = await engine.completions.create(prompt=PROMPT, max_tokens=1, **given[1])
    assert "prompt_progress" not in reply.to_dict()


async def test_readers_that_attach_see_it_unless_they_have_tokens() -> None:
    async with fake_engine(lambda text: "abc" * 9) as engine:
        await engine.reload("m.gguf")
        engine._journal = Journal(MemoryStorage())

        async def attach(*, shows: bool = True, **resumable: Any) -> Any:
            resumable["session_id"] = "s"
            extra = {"return_progress": shows, "resumable": resumable}
            return await engine.completions.create(
                prompt="x" * 3000, stream=True, seed=1, extra_body=extra
            )

        first = await attach()
        head = await anext(first)
        assert head.prompt_progress is not None
        progress, rest = await split(await attach())
        assert progress[0] == head.prompt_progress
        assert processed(progress)[-1] == 3000
        assert without_head((await split(await attach(shows=False)))[1]) == without_head(rest)
        assert (await split(await attach(shows=False)))[0] == []
        assert (await split(await attach(from_token=3)))[0] == []
        await first.aclose()
        resumed, again = await split(await attach())  # from the journal, which has the answer
        assert (resumed, without_head(again)) == ([], without_head(rest))


async def test_an_interrupt_ends_the_prompt() -> None:
    engine = make_engine(windows=2)
    stream = await engine.completions.create(prompt=PROMPT, max_tokens=2, **PROGRESS)
    await anext(stream)
    engine.interrupt_generate()
    progress, rest = await split(stream)
    assert len(progress) < 4
    assert [chunk.choices[0].finish_reason for chunk in rest] == ["abort"]


@pytest.mark.parametrize("recovery", [None, Recovery()])
async def test_it_crosses_to_other_processes(
    number_models: NumberModels,
    recovery: Recovery | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WEBLLM_HOME", str(tmp_path))
    worker = Worker(number_models.load)
    engine = WorkerMLCEngine(worker.port, recovery=recovery)
    await engine.reload("m.gguf")
    progress, rest = await split(
        await engine.chat.completions.create(**asked(PROMPT, max_tokens=2, **PROGRESS))
    )
    assert processed(progress) == [32, 64, 96, 100]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in rest) == counted(101, 102)
    assert len({chunk.id for chunk in rest}) == 1
    await engine.close()
    await worker.end()
