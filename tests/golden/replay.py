"""Cuts answers of a real model at random tokens, replays them, and compares the rest.

It imports webllm alone, so that it also runs in a page: see test_replay_in_browser.py.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from webllm import MLCEngine
from webllm.api.chat_completion import FinishReason
from webllm.api.validation import completion_request
from webllm.engine.loaded_model import LoadedModel
from webllm.engine.prompts import completion_prompt
from webllm.ops.sampled import TokenLogprobs
from webllm.text.detokenizer import StreamingDetokenizer
from webllm.text.steps import finish
from webllm.text.stop import StopMatcher

TEXT = "The sea is deep and the sky is high. " * 3
PENALTIES = {"frequency_penalty": 0.7, "presence_penalty": 0.3, "repetition_penalty": 1.2}
LOGPROBS = {"logprobs": True, "top_logprobs": 2}
REQUESTS: list[dict[str, Any]] = [
    {"prompt": TEXT, "temperature": 0, "seed": 0, "stop": [" deep and the sky is high", "never"]},
    {"prompt": "Once upon a time", "temperature": 1.0, "seed": 7, "n": 2},
    {
        "prompt": "one two three " * 9,
        "temperature": 0.8,
        "seed": 8,
        "logit_bias": {28: 3.0, 260: -100},
        **PENALTIES,
        **LOGPROBS,
    },
    {
        "prompt": "Once upon a time",
        "temperature": 0,
        "seed": 0,
        "logit_bias": {28: -5},
        **PENALTIES,
    },
]

Token = tuple[int, TokenLogprobs | None]


class Choice:
    """The output of one sequence: the tokens that follow `given_ids`, the whole text, its end."""

    def __init__(self, model: LoadedModel, stop: Sequence[str], given_ids: list[int]) -> None:
        self.tokens: list[Token] = []
        self.text = ""
        self.ended: asyncio.Future[FinishReason] = asyncio.get_running_loop().create_future()
        self._detokenizer = StreamingDetokenizer(model.tokenizer)
        self._matcher = StopMatcher(tuple(stop))
        for token_id in given_ids:
            assert not self._stops(token_id), "the answer ended before the cut"

    def accept(self, token_id: int, logprobs: TokenLogprobs | None) -> FinishReason | None:
        self.tokens.append((token_id, logprobs))
        return "stop" if self._stops(token_id) else None

    def _stops(self, token_id: int) -> bool:
        text, stopped = self._matcher.feed(self._detokenizer.push(token_id))
        self.text += text
        return stopped

    def end(self, reason: FinishReason) -> None:
        self.ended.set_result(reason)

    def fail(self, error: BaseException) -> None:
        self.ended.set_exception(error)


Given = list[list[int]]  # token ids, of each choice
Answer = list[tuple[list[Token], str, FinishReason]]  # of each choice


async def generated(
    model: LoadedModel, request: dict[str, Any], max_tokens: int, given: Given | None = None
) -> Answer:
    """Returns the answer to a request, without the tokens that are given."""
    checked = completion_request({**request, "max_tokens": max_tokens, "ignore_eos": True})
    prompt = finish(completion_prompt(model, checked))
    given = given or [[] for _ in prompt.sequences]
    choices = [Choice(model, prompt.stop_strings, token_ids) for token_ids in given]
    for sequence, choice, token_ids in zip(prompt.sequences, choices, given, strict=True):
        sequence.replay(token_ids)
        model.loop.add(sequence, choice)
    reasons = [await choice.ended for choice in choices]
    return [(c.tokens, c.text, reason) for c, reason in zip(choices, reasons, strict=True)]


async def check(engine: MLCEngine, num_cuts: int, max_tokens: int = 40, seed: int = 0) -> None:
    """Compares answers that are cut and replayed, alone and together, with undisturbed ones.

    num_cuts: of each choice of each request, at random. seed: of the cuts; 0 for any.
    """
    seed = seed or random.getrandbits(32)
    print(f"the cuts of seed {seed}")
    rng = random.Random(seed)
    model = engine._session(None).model
    whole = await asyncio.gather(*(generated(model, each, max_tokens) for each in REQUESTS))
    ((tokens, _, reason),) = whole[0]
    assert (reason, len(tokens)) == ("stop", 10), whole[0]

    async def replay(i: int) -> None:
        cuts = [rng.randrange(len(tokens)) for tokens, _, _ in whole[i]]
        pairs = [(choice, cut) for choice, cut in zip(whole[i], cuts, strict=True)]
        given = [[token_id for token_id, _ in choice[0][:cut]] for choice, cut in pairs]
        expected = [(choice[0][cut:], *choice[1:]) for choice, cut in pairs]
        found = await generated(model, REQUESTS[i], max_tokens, given)
        assert found == expected, f"seed {seed}: {REQUESTS[i]} cut at {cuts}"

    for _ in range(num_cuts):
        model.loop.reset_prefix_cache()
        for i in range(len(REQUESTS)):
            await replay(i)
        model.loop.reset_prefix_cache()
        await asyncio.gather(*map(replay, range(len(REQUESTS))))
