"""The progress of a long prompt, with a real model."""

from __future__ import annotations

from pathlib import Path

from webllm import MLCEngine, MLCEngineConfig
from webllm.api.usage import CompletionUsage, PromptProgress

MESSAGES = [{"role": "user", "content": "Count the waves of the sea. " * 200}]


async def read(
    engine: MLCEngine, return_progress: bool
) -> tuple[list[PromptProgress], str, CompletionUsage]:
    stream = await engine.chat.completions.create(
        messages=MESSAGES,
        stream=True,
        stream_options={"include_usage": True},
        max_tokens=8,
        temperature=0,
        extra_body={"return_progress": return_progress},
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    usage = chunks[-1].usage
    assert usage is not None
    return [chunk.prompt_progress for chunk in chunks if chunk.prompt_progress], text, usage


async def test_progress_ends_with_the_prompt_and_changes_no_answer(smollm2: Path) -> None:
    async with MLCEngine(MLCEngineConfig(device="cpu")) as engine:
        await engine.reload(str(smollm2))
        progress, text, usage = await read(engine, return_progress=True)
        done = [each.processed for each in progress]
        assert len(done) > 2
        assert done == sorted(set(done))
        assert {each.total for each in progress} == {usage.prompt_tokens} == {done[-1]}
        assert 0 < progress[0].time_ms < progress[-1].time_ms
        assert progress[-1].time_ms <= usage.extra.time_to_first_token_s * 1000 + 1
        [again], same_text, usage = await read(engine, return_progress=True)
        assert (again.processed, same_text) == (usage.prompt_tokens, text)
        assert usage.prompt_tokens_details is not None
        assert again.cache == usage.prompt_tokens_details.cached_tokens > 1000
        assert (await read(engine, return_progress=False))[:2] == ([], text)
