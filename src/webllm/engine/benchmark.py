"""Prefill and decode times of a loaded model, through the very loop that serves requests."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

from webllm.engine.loading import LoadedModel
from webllm.engine.sequence import FinishReason, Sequence, SequenceParams


@dataclass(frozen=True, slots=True)
class Rates:
    """prefill_s: until the last prompt's first token; decode_s: from there to the end."""

    prefill_s: float
    decode_s: float


class _Clock:
    """Notes when its sequence's first and last tokens came."""

    def __init__(self) -> None:
        self.first = 0.0
        self.done: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def accept(self, token_id: int) -> FinishReason | None:
        self.first = self.first or time.perf_counter()
        return None

    def end(self, reason: FinishReason) -> None:
        self.done.set_result(time.perf_counter())

    def fail(self, error: BaseException) -> None:
        self.done.set_exception(error)


async def measure(model: LoadedModel, prompt_tokens: int, gen_tokens: int, batch: int = 1) -> Rates:
    """Greedy, end-of-sequence tokens ignored; random prompts differ, so nothing is shared."""
    vocab_size = model.runner.program.vocab_size
    params = SequenceParams(max_tokens=gen_tokens + 1, stop_ids=frozenset())
    clocks = []
    started = time.perf_counter()
    for seed in range(batch):
        prompt_ids = random.Random(seed).choices(range(vocab_size), k=prompt_tokens)
        clocks.append(_Clock())
        model.loop.add(Sequence(prompt_ids, params), clocks[-1])
    ended = max([await clock.done for clock in clocks])
    first = max(clock.first for clock in clocks)
    return Rates(first - started, ended - first)
