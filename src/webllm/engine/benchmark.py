"""Measures prefill and decode of a loaded model, through the loop that serves requests."""

from __future__ import annotations

import asyncio
import random
import time
from array import array
from dataclasses import dataclass

from webllm.api.chat_completion import FinishReason
from webllm.engine.loaded_model import LoadedModel
from webllm.engine.scheduler import Scheduler
from webllm.engine.sequence import Sequence, SequenceParams
from webllm.errors import ContextLengthError, RequestError
from webllm.ops.sampled import TokenLogprobs


@dataclass(frozen=True, slots=True)
class Rates:
    """The times of a batch, from which tokens per second follow.

    prefill_s: seconds until every prompt has its first token. decode_s: seconds from there to the
    end. num_decoded: tokens that came in that time.
    """

    prefill_s: float
    decode_s: float
    num_decoded: int


class _ArrivalTimes:
    """Records when the tokens of a sequence come."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def accept(self, token_id: int, logprobs: TokenLogprobs | None) -> FinishReason | None:
        self.times.append(time.perf_counter())
        return None

    def end(self, reason: FinishReason) -> None:
        if not self.done.done():  # done: the measurement was cancelled
            self.done.set_result(None)

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)


async def measure(model: LoadedModel, prompt_tokens: int, gen_tokens: int, batch: int = 1) -> Rates:
    """Measures greedy decoding of random prompts, which share no prefix. Ignores end tokens.

    Raises ContextLengthError for more tokens than the context window has, and RequestError for a
    batch whose sequences could not all run at once: its rates would mean nothing.
    """
    _check(model.loop.scheduler, prompt_tokens, gen_tokens, batch)
    model.loop.reset_prefix_cache()  # it has the prompts of the last measurement
    vocabulary = range(model.vocab_size)
    params = SequenceParams(max_tokens=gen_tokens + 1, stop_ids=frozenset())
    sequences = [
        Sequence(array("I", random.Random(seed).choices(vocabulary, k=prompt_tokens)), params)
        for seed in range(batch)
    ]
    clocks = [_ArrivalTimes() for _ in sequences]
    started = time.perf_counter()
    try:
        for sequence, clock in zip(sequences, clocks, strict=True):
            model.loop.add(sequence, clock)
        await asyncio.gather(*(clock.done for clock in clocks))
    finally:
        for sequence in sequences:
            model.loop.finish(sequence, "abort")
    first = max(clock.times[0] for clock in clocks)
    decoded = [at for clock in clocks for at in clock.times if at > first]
    return Rates(first - started, max(decoded) - first, len(decoded))


def _check(scheduler: Scheduler, prompt_tokens: int, gen_tokens: int, batch: int) -> None:
    for name, value in (
        ("prompt_tokens", prompt_tokens),
        ("gen_tokens", gen_tokens),
        ("batch", batch),
    ):
        if value < 1:
            raise RequestError(f"{name} is {value}; give at least 1", field=name)
    num_positions = prompt_tokens + gen_tokens
    most = scheduler.max_concurrency(num_positions)
    if not most:
        raise ContextLengthError(
            f"prompts of {prompt_tokens} tokens with {gen_tokens} generated after each need "
            f"{num_positions} positions, the context window has {scheduler.max_positions}; take "
            "fewer tokens or load the model with a larger context_window_size",
            field="prompt_tokens",
        )
    if batch > most:
        raise RequestError(
            f"batch is {batch}; of {num_positions} tokens the KV cache holds {most} at once: take "
            "a smaller batch or fewer tokens",
            field="batch",
        )
