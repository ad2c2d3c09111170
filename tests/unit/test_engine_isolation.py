"""One request never harms another: hostile ones beside innocent ones, on a fake device."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, MutableSequence
from dataclasses import replace

import pytest
from fake_model import NumberTokenizer, asked, counted, make_engine, make_loaded, model_of, num_used
from test_engine_loop import Collector, make_loop, make_sequence

from webllm import MLCEngine
from webllm.api.chat_completion import FinishReason
from webllm.engine.host_sampler import HostSampler
from webllm.engine.loop import GenerationLoop
from webllm.engine.sequence import Sequence, SequenceParams
from webllm.errors import (
    ContextLengthError,
    DeviceLostError,
    LogitProcessorError,
    RequestError,
)
from webllm.ops.sampled import TokenLogprobs
from webllm.ops.sampling import LogitEdits, SamplingParams
from webllm.testing import FakeBackend

INNOCENTS = 5
Logits = MutableSequence[float]


class Hostile(Collector):
    """Raises at its third token, or at its end."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self._at = at

    def accept(self, token_id: int, logprobs: TokenLogprobs | None) -> FinishReason | None:
        super().accept(token_id, logprobs)
        if self._at == "accept" and len(self.token_ids) == 3:
            raise ZeroDivisionError("of the third token")
        return None

    def end(self, reason: FinishReason) -> None:
        if self._at == "end":
            raise ZeroDivisionError("of the end")
        super().end(reason)


def innocents(loop: GenerationLoop, numbers: range) -> list[Collector]:
    outputs = [Collector() for _ in numbers]
    for i, output in zip(numbers, outputs, strict=True):
        loop.add(make_sequence(100 * i, 5 + 17 * i, 3 + 5 * i), output)
    return outputs


async def check_innocents(outputs: list[Collector]) -> None:
    """Checks that each has the tokens that it would have alone."""
    for i, output in enumerate(outputs):
        assert await output.done == "length"
        first = 100 * i + 5 + 17 * i
        assert output.token_ids == list(range(first, first + 3 + 5 * i))


@pytest.mark.parametrize("max_steps_in_flight", [1, 2, 3])
@pytest.mark.parametrize("at", ["accept", "end"])
async def test_an_output_that_raises_ends_its_own_sequence(
    max_steps_in_flight: int, at: str
) -> None:
    loop = make_loop(FakeBackend(max_steps_in_flight=max_steps_in_flight))
    before = innocents(loop, range(2))
    hostile = Hostile(at)
    loop.add(make_sequence(700, 9, 10), hostile)
    after = innocents(loop, range(2, INNOCENTS))
    with pytest.raises(ZeroDivisionError, match=r"of the (third|end)"):
        await hostile.done
    await check_innocents(before + after)
    assert loop.scheduler.blocks.num_free == loop.scheduler.blocks.num_blocks


def with_sampling(sampling: SamplingParams) -> Sequence:
    params = SequenceParams(max_tokens=5, stop_ids=frozenset(), sampling=sampling)
    return Sequence(array("I", [1, 2]), params)


NEVER_PACKED: dict[str, tuple[Callable[[], Sequence], str]] = {
    "no tokens": (lambda: make_sequence(0, 0, 5), "has no tokens"),
    "a seed of 40 bits": (lambda: with_sampling(SamplingParams(seed=1 << 40)), "cannot be packed"),
    "a negative top_k": (lambda: with_sampling(SamplingParams(top_k=-1)), "cannot be packed"),
    "token ids of 64 bits": (
        lambda: Sequence(array("Q", [1 << 40]), SequenceParams(5, frozenset())),
        "give 'I'",
    ),
    "more edits than a step has": (
        lambda: Sequence(
            array("I", [1]),
            SequenceParams(5, frozenset()),
            LogitEdits(dict.fromkeys(range(1 << 17 | 1), 1.0)),
        ),
        "131072 are allowed",
    ),
}


@pytest.mark.parametrize("kind", NEVER_PACKED)
async def test_what_no_step_can_be_packed_with_never_enters_one(kind: str) -> None:
    loop = make_loop(FakeBackend())
    make, said = NEVER_PACKED[kind]
    before = innocents(loop, range(2))
    with pytest.raises(RequestError, match=said):
        loop.add(make(), Collector())
    await check_innocents(before + innocents(loop, range(2, INNOCENTS)))


@pytest.mark.parametrize("max_steps_in_flight", [1, 2, 3])
async def test_a_lost_device_leaves_nothing_to_the_next_request(max_steps_in_flight: int) -> None:
    backend = FakeBackend(max_steps_in_flight=max_steps_in_flight)
    loop = make_loop(backend)
    outputs = innocents(loop, range(INNOCENTS))
    await asyncio.sleep(0)
    backend.error = DeviceLostError("the device went away")
    for output in outputs:
        with pytest.raises(DeviceLostError):
            await output.done
    backend.recover()
    await check_innocents(innocents(loop, range(INNOCENTS)))
    assert loop.runner.num_in_flight == 0
    assert loop.scheduler.blocks.num_free == loop.scheduler.blocks.num_blocks


async def test_a_request_that_comes_while_the_failed_steps_end_is_served() -> None:
    backend = FakeBackend(max_steps_in_flight=3)
    loop = make_loop(backend)
    (failed,) = innocents(loop, range(1, 2))
    late: list[Collector] = []

    def ask_again(_: object) -> None:
        backend.recover()
        late.extend(innocents(loop, range(INNOCENTS)))

    failed.done.add_done_callback(ask_again)
    backend.error = DeviceLostError("the device went away")
    with pytest.raises(DeviceLostError):
        await failed.done
    await check_innocents(late)


class RaisesAbove:
    """Raises in the method `at`, for rows that continue a number above `limit`."""

    def __init__(self, at: str, limit: int) -> None:
        self._at, self._limit = at, limit

    def process_logits(self, logits: Logits) -> Logits:
        if self._at == "process_logits" and list(logits).index(1.0) > self._limit:
            logits[0] = 100.0  # masked
            raise ZeroDivisionError
        return logits

    def process_sampled_token(self, token: int) -> None:
        if self._at == "process_sampled_token" and token > self._limit:
            raise ZeroDivisionError

    def reset_state(self) -> None: ...


@pytest.mark.parametrize("at", ["process_logits", "process_sampled_token"])
async def test_a_logit_processor_fails_the_sequence_it_failed_for(at: str) -> None:
    engine = make_engine(windows=8)
    model_of(engine).loop.runner.host_sampler = HostSampler(RaisesAbove(at, 700), 1000)
    replies = await asyncio.gather(
        *(
            engine.chat.completions.create(**asked(str(first), max_tokens=20))
            for first in (1, 690, 100, 200)
        ),
        return_exceptions=True,
    )
    failed = replies.pop(1)
    assert isinstance(failed, LogitProcessorError)
    assert f"{at} failed: ZeroDivisionError" in str(failed)
    said = [reply.choices[0].message.content for reply in replies]  # type: ignore[union-attr]
    assert said == [counted(first + 1, first + 20) for first in (1, 100, 200)]
    assert num_used(engine) == 0


class Broken(NumberTokenizer):
    def token_bytes(self, token_id: int) -> bytes:
        if token_id == 705:
            raise KeyError(token_id)
        return super().token_bytes(token_id)


async def test_a_detokenizer_that_raises_fails_its_own_answer() -> None:
    engine = MLCEngine(models=[replace(make_loaded(windows=8), tokenizer=Broken())])

    async def stream(first: int) -> str:
        chunks = await engine.completions.create(prompt=str(first), max_tokens=20, stream=True)
        return "".join([chunk.choices[0].text async for chunk in chunks])

    said = await asyncio.gather(*map(stream, (1, 700, 100)), return_exceptions=True)
    assert isinstance(said.pop(1), KeyError)
    assert said == [counted(2, 21), counted(101, 120)]
    assert num_used(engine) == 0


async def test_one_choice_that_fails_ends_the_others_of_its_request() -> None:
    engine = MLCEngine(models=[replace(make_loaded(windows=8), tokenizer=Broken())])
    with pytest.raises(KeyError):
        await engine.completions.create(prompt="700", max_tokens=20, n=3)
    assert num_used(engine) == 0


class TestWindow:
    """No request reaches a position beyond the context window."""

    @pytest.mark.parametrize(
        ("prompt_tokens", "gen_tokens", "batch"), [(900, 20, 1), (200, 57, 4), (256, 1, 1)]
    )
    async def test_a_benchmark_beyond_it(
        self, prompt_tokens: int, gen_tokens: int, batch: int
    ) -> None:
        engine = make_engine(windows=4)
        said = f"need {prompt_tokens + gen_tokens} positions, the context window has 256; take"
        with pytest.raises(ContextLengthError, match=said):
            await engine.benchmark(prompt_tokens, gen_tokens, batch)

    async def test_a_benchmark_that_fills_it(self) -> None:
        assert (await make_engine().benchmark(200, 56)).num_decoded == 56
        assert (await make_engine(windows=4).benchmark(200, 56, 4)).num_decoded > 56

    @pytest.mark.parametrize("name", ["prompt_tokens", "gen_tokens", "batch"])
    async def test_a_benchmark_of_nothing(self, name: str) -> None:
        numbers = {"prompt_tokens": 5, "gen_tokens": 5, "batch": 1} | {name: 0}
        with pytest.raises(RequestError, match=f"{name} is 0; give at least 1"):
            await make_engine().benchmark(**numbers)

    @pytest.mark.parametrize(
        ("num_prompt", "max_tokens"), [(250, 8), (257, 1), (900, 1), (300, -100)]
    )
    async def test_a_sequence_beyond_it(self, num_prompt: int, max_tokens: int) -> None:
        loop = model_of(make_engine(windows=4)).loop
        with pytest.raises(ContextLengthError, match="the context window has 256"):
            loop.add(make_sequence(0, num_prompt, max_tokens), Collector())

    async def test_one_token_forwarded_too_many(self) -> None:
        engine = make_engine(windows=4)
        assert await engine.forward_tokens_and_sample([1] * 255, True) == 2
        with pytest.raises(ContextLengthError):
            await engine.forward_tokens_and_sample([1, 2], False)
