"""Cuts answers of a real model at some tokens, replays them, and compares the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from webllm import MLCEngine
from webllm.api.chat_completion import FinishReason
from webllm.api.validation import completion_request
from webllm.engine.loaded_model import LoadedModel
from webllm.engine.prompts import completion_prompt
from webllm.ops.sampled import TokenLogprobs
from webllm.text.steps import finish

TEXT = "The sea is deep and the sky is high. " * 3
REQUESTS: list[dict[str, Any]] = [
    {"prompt": TEXT, "temperature": 0, "seed": 0},
    {"prompt": "Once upon a time", "temperature": 1.0, "seed": 7, "n": 2},
    {
        "prompt": "one two three " * 9,
        "temperature": 0.8,
        "seed": 8,
        "frequency_penalty": 0.7,
        "presence_penalty": 0.3,
        "repetition_penalty": 1.2,
        "logit_bias": {28: 3.0, 260: -100},
        "logprobs": True,
        "top_logprobs": 2,
    },
]
MAX_TOKENS = 40

Token = tuple[int, TokenLogprobs | None]


class Tokens:
    """The output of one sequence, as its tokens."""

    def __init__(self) -> None:
        self.found: list[Token] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def accept(self, token_id: int, logprobs: TokenLogprobs | None) -> FinishReason | None:
        self.found.append((token_id, logprobs))
        return None

    def end(self, reason: FinishReason) -> None:
        self.ended.set_result(None)

    def fail(self, error: BaseException) -> None:
        self.ended.set_exception(error)


async def generated(
    model: LoadedModel, request: dict[str, Any], given: list[list[int]] | None = None
) -> list[list[Token]]:
    """Returns the tokens of each choice that follow those given."""
    checked = completion_request({**request, "max_tokens": MAX_TOKENS, "ignore_eos": True})
    sequences = finish(completion_prompt(model, checked)).sequences
    outputs = [Tokens() for _ in sequences]
    for sequence, output, given_ids in zip(sequences, outputs, given or [[], []], strict=False):
        sequence.replay(given_ids)
        model.loop.add(sequence, output)
    await asyncio.gather(*(output.ended for output in outputs))
    return [output.found for output in outputs]


async def check(engine: MLCEngine, cuts: Iterable[int]) -> None:
    """Compares answers that are cut and replayed, alone and together, with undisturbed ones."""
    model = engine._session(None).model
    whole = [await generated(model, request) for request in REQUESTS]

    async def rest(i: int, cut: int) -> None:
        given = [[token_id for token_id, _ in choice[:cut]] for choice in whole[i]]
        found = await generated(model, REQUESTS[i], given)
        assert found == [choice[cut:] for choice in whole[i]], (REQUESTS[i], cut)

    for cut in cuts:
        model.loop.reset_prefix_cache()
        for i in range(len(REQUESTS)):
            await rest(i, cut)
        model.loop.reset_prefix_cache()
        await asyncio.gather(*(rest(i, (cut + 5 * i) % MAX_TOKENS) for i in range(len(REQUESTS))))
