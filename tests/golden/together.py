"""Runs requests of every kind alone and all at once: the answers must be the same."""

from __future__ import annotations

import asyncio
from typing import Any

from golden import compare
from webllm import MLCEngine


def sixteen(max_tokens: int, long_prompt_words: int) -> list[dict[str, Any]]:
    """Returns requests of different lengths and settings; one prompt is much longer."""
    chat = [{"role": "user", "content": "Tell me a short story about a cat and a boat."}]
    long = "one two three four five six seven eight nine ten " * (long_prompt_words // 10)
    requests: list[dict[str, Any]] = [
        {"messages": chat, "temperature": 0},
        {"messages": chat, "temperature": 0.7, "seed": 1},
        {"messages": chat, "temperature": 1.0, "seed": 2, "top_p": 0.8},
        {"messages": chat, "temperature": 1.0, "seed": 3, "top_k": 5, "n": 2},
        {"messages": chat, "temperature": 1.0, "seed": 4, "min_p": 0.05},
        {"messages": chat, "temperature": 0, "frequency_penalty": 1.0, "presence_penalty": 0.5},
        {"messages": chat, "temperature": 0.8, "seed": 5, "repetition_penalty": 1.3},
        {"messages": chat, "temperature": 0, "logit_bias": {"504": -100, "28": 2}},
        {"messages": chat, "temperature": 0, "logprobs": True, "top_logprobs": 3},
        {"messages": chat, "temperature": 0, "stop": [" the", "."]},
        {"messages": chat[:1], "temperature": 1.5, "seed": 6, "ignore_eos": True},
        {"prompt": "The", "temperature": 0},
        {"prompt": "1, 2, 3, 4,", "temperature": 0, "n": 2},
        {"prompt": "def add(a, b):\n", "temperature": 0.3, "seed": 7, "logprobs": True},
        {"prompt": long, "temperature": 0},
        {"prompt": long + " and then", "temperature": 0.5, "seed": 8, "frequency_penalty": -0.5},
    ]
    return [{"max_tokens": max_tokens + 3 * (i % 4)} | r for i, r in enumerate(requests)]


async def answer(engine: MLCEngine, request: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Returns text, finish reason and number of tokens of every choice."""
    if "messages" in request:
        chat = await engine.chat.completions.create(**request)
        return [(c.message.content, c.finish_reason) for c in chat.choices]
    completion = await engine.completions.create(**request)
    return [(c.text, c.finish_reason) for c in completion.choices]


async def check(engine: MLCEngine, requests: list[dict[str, Any]]) -> None:
    alone = []
    for request in requests:
        await engine.reset_chat()  # so that no prefix is shared
        alone.append(await answer(engine, request))
    await engine.reset_chat()
    together = await asyncio.gather(*(answer(engine, request) for request in requests))
    assert together == alone
    again = await asyncio.gather(*(answer(engine, request) for request in requests[::-1]))
    assert again[::-1] == alone, "with shared prefixes"


async def worst_logprob_error(engine: MLCEngine, num_tokens: int) -> tuple[int, float]:
    """Compares greedy answers with the golden ones as long as their tokens agree.

    Returns the number of compared tokens, and the largest error of a logprob among the golden
    five most probable, in nats.
    """
    golden = compare.read("smollm2-135m")
    compared, worst = 0, 0.0
    tokenizer = engine._session(None).model.tokenizer
    for prompt in golden["prompts"]:
        request = {"prompt": prompt["prompt"], "max_tokens": num_tokens, "temperature": 0}
        request |= {"logprobs": True, "top_logprobs": 20, "ignore_eos": True}
        reply = await engine.completions.create(**request)
        tokens = reply.choices[0].logprobs.content
        for step, token in enumerate(tokens):
            ours = {tuple(top.bytes): top.logprob for top in token.top_logprobs}
            ids = prompt["top_ids"][step][:5]
            for token_id, logprob in zip(ids, prompt["top_logprobs"][step], strict=False):
                text = tokenizer.decode([token_id], skip_special=False).encode()
                key = tuple(tokenizer.token_bytes(token_id) or text)
                worst = max(worst, abs(ours[key] - logprob))
                compared += 1
            if ids[0] != prompt["token_ids"][step] or token.token != tokenizer.decode(
                [ids[0]], skip_special=False
            ):
                break
    return compared, worst
