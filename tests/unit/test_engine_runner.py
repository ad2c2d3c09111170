"""The choice of an executable while others compile; the tests decide when kernels are ready."""

from __future__ import annotations

import asyncio
import random
from array import array

import pytest
from fake_model import settle
from test_engine_loop import Collector, make_loop, make_sequence

from webllm.engine.loop import GenerationLoop
from webllm.engine.sequence import Sequence, SequenceParams
from webllm.errors import DeviceError
from webllm.ops.program import BatchShape, Program
from webllm.ops.sampling import SamplingParams
from webllm.ops.step import Step
from webllm.testing import FakeBackend, FakeExecutable

Kind = tuple[int, int, bool]  # tokens, sequences, plain


class SlowBackend(FakeBackend):
    """A backend whose kernels are ready when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.compiling: dict[Kind, asyncio.Future[None]] = {}
        self.ran: list[tuple[int, int]] = []  # shapes of the executables that ran

    def compile(self, program: Program, shape: BatchShape) -> FakeExecutable:
        return SlowExecutable(self, shape, program.kv_cache.block_size)

    def finish(self, *kinds: Kind) -> None:
        for kind in kinds:
            self.compiling[kind].set_result(None)

    def fail(self, kind: Kind) -> None:
        self.compiling[kind].set_exception(DeviceError(f"{kind} does not compile"))


class SlowExecutable(FakeExecutable):
    backend: SlowBackend

    async def ready(self, is_plain: bool = True) -> None:
        kind = self.shape.max_tokens, self.shape.max_seqs, is_plain
        future = asyncio.get_running_loop().create_future()
        await self.backend.compiling.setdefault(kind, future)

    def submit(self, step: Step) -> None:
        kind = self.shape.max_tokens, self.shape.max_seqs, step.is_plain
        assert self.backend.compiling[kind].done(), f"{kind} would be waited for"
        self.backend.ran.append((self.shape.max_tokens, self.shape.max_seqs))
        super().submit(step)


PROMPT, ONE, TWO = (8, 1, True), (1, 1, True), (2, 2, True)  # of 8 tokens, then by sequences
FEW, FEW_PROMPTS = (8, 8, True), (32, 8, True)  # prepared for several sequences


async def started() -> tuple[SlowBackend, GenerationLoop, Sequence, Collector]:
    """Starts a single stream."""
    backend = SlowBackend()
    loop = make_loop(backend)
    sequence, output = make_sequence(0, 8, 500), Collector()
    loop.add(sequence, output)
    await settle()
    backend.finish(PROMPT)
    await settle()
    backend.finish(ONE)
    await settle()
    assert output.token_ids[:2] == [8, 9]
    return backend, loop, sequence, output


async def closed(loop: GenerationLoop, backend: SlowBackend) -> None:
    loop.abort_all()
    for future in backend.compiling.values():
        if not future.done():
            future.set_result(None)
    await loop.close()
    await loop.runner.close()


async def test_the_loop_goes_on_while_nothing_is_compiled() -> None:
    backend = SlowBackend()
    loop = make_loop(backend)
    output = Collector()
    loop.add(make_sequence(0, 8, 3), output)
    await settle()  # which would never return if the loop were blocked
    assert list(backend.compiling) == [PROMPT]
    assert backend.ran == []
    backend.finish(PROMPT)
    await settle()
    backend.finish(ONE)
    assert await output.done == "length"
    assert output.token_ids == [8, 9, 10]
    assert backend.ran == [(8, 1), (1, 1), (1, 1)]


async def test_a_larger_executable_serves_until_the_right_one_is_compiled() -> None:
    backend, loop, first, output = await started()
    second, other = make_sequence(100, 8, 500), Collector()
    loop.add(second, other)
    await settle()
    backend.finish(FEW)
    backend.finish(FEW_PROMPTS)
    await settle()
    assert other.token_ids[:3] == [108, 109, 110]
    assert backend.ran[-1] == (8, 8), "two sequences in a shape for eight"
    backend.finish(TWO)
    await settle()
    assert backend.ran[-1] == (2, 2)
    loop.finish(first, "abort")
    loop.finish(second, "abort")
    for first_token, collector in ((8, output), (108, other)):
        count = len(collector.token_ids)
        assert collector.token_ids == list(range(first_token, first_token + count))
    await closed(loop, backend)


async def test_what_decodes_never_takes_the_form_of_prompts() -> None:
    """Prefill and decode results differ in bits, so a prefill executable would be wrong."""
    backend, loop, _, output = await started()
    loop.add(make_sequence(100, 8, 500), Collector())
    await settle()
    backend.finish(FEW_PROMPTS)
    await settle()
    count = len(output.token_ids)
    await settle()
    assert len(output.token_ids) == count, "two that decode wait for an executable that decodes"
    assert (2, 2) not in backend.ran
    backend.finish(FEW)
    await settle()
    assert len(output.token_ids) > count
    await closed(loop, backend)


async def test_what_cannot_be_compiled_is_done_without(caplog: pytest.LogCaptureFixture) -> None:
    backend, loop, _, output = await started()
    other = Collector()
    loop.add(make_sequence(100, 8, 500), other)
    await settle()
    backend.finish(FEW)
    backend.finish(FEW_PROMPTS)
    await settle()
    backend.fail(TWO)
    await settle()
    count = len(other.token_ids)
    await settle()
    assert len(other.token_ids) > count
    assert len(output.token_ids) > 2
    assert caplog.text.count("does not compile") == 1
    await closed(loop, backend)


async def test_what_cannot_be_compiled_at_all_fails_the_request() -> None:
    backend = SlowBackend()
    loop = make_loop(backend)
    output = Collector()
    loop.add(make_sequence(0, 8, 3), output)
    await settle()
    backend.fail(PROMPT)
    with pytest.raises(DeviceError, match="does not compile"):
        await output.done
    del backend.compiling[PROMPT]
    again = Collector()
    loop.add(make_sequence(0, 8, 1), again)
    await settle()
    backend.finish(PROMPT)
    assert await again.done == "length"


def test_sizes_of_steps_do_not_pile_up() -> None:
    runner = make_loop(FakeBackend()).runner
    for num_tokens in range(1, 2000):
        runner._kind_of(num_tokens, 1, True, True)
    assert runner._kind_of.cache_info().currsize == 1024


async def test_penalties_have_kernels_of_their_own() -> None:
    backend = SlowBackend()
    loop = make_loop(backend)
    params = SequenceParams(3, frozenset(), SamplingParams(presence_penalty=1.0))
    sequence, output = Sequence(make_sequence(0, 8, 3).token_ids, params), Collector()
    loop.add(sequence, output)
    await settle()
    assert list(backend.compiling) == [(8, 1, False)]
    backend.finish((8, 1, False))
    await settle()
    backend.finish((1, 1, False))
    await output.done


async def test_a_request_that_ends_while_it_waits_frees_its_blocks() -> None:
    backend = SlowBackend()
    loop = make_loop(backend)
    sequence, output = make_sequence(0, 8, 3), Collector()
    loop.add(sequence, output)
    await settle()
    loop.finish(sequence, "abort")
    assert await output.done == "abort"
    assert loop.scheduler.blocks.num_free == 64
    await closed(loop, backend)


async def test_a_step_that_never_ran_leaves_no_prefix_behind() -> None:
    """The event loop ends while the kernels compile; another one continues."""
    backend = SlowBackend()
    loop = make_loop(backend)
    output = Collector()
    loop.add(make_sequence(0, 20, 3), output)
    await settle()
    assert loop._task is not None
    loop._task.cancel()
    assert await output.done == "abort"
    again = Collector()
    loop.add(make_sequence(0, 20, 3), again)
    await settle()
    backend.finish((24, 1, True))
    await settle()
    backend.finish(ONE)
    assert await again.done == "length"
    assert again.token_ids == [20, 21, 22]


async def test_closing_waits_for_what_is_being_compiled() -> None:
    backend, loop, _, _ = await started()
    loop.add(make_sequence(100, 8, 500), Collector())
    await settle()
    closing = asyncio.create_task(closed_at_once(loop))
    await settle()
    assert not closing.done()
    for future in backend.compiling.values():
        if not future.done():
            future.set_result(None)
    await closing


async def closed_at_once(loop: GenerationLoop) -> None:
    await loop.close()
    await loop.runner.close()


class FickleBackend(FakeBackend):
    """A backend whose kernels take a random time to compile, or fail."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(vocab_size=100, max_steps_in_flight=rng.randint(1, 3), hashes=True)
        self.rng = rng
        self.min_prefill_tokens = rng.choice([1, 16])

    def compile(self, program: Program, shape: BatchShape) -> FakeExecutable:
        return FickleExecutable(self, shape, program.kv_cache.block_size)


class FickleExecutable(FakeExecutable):
    backend: FickleBackend

    async def ready(self, is_plain: bool = True) -> None:
        for _ in range(self.backend.rng.choice([0, 0, 3, 30])):
            await asyncio.sleep(0)
        if self.backend.rng.random() < 0.05:
            raise DeviceError("does not compile")


def random_sequence(rng: random.Random, shared: list[int]) -> Sequence:
    """Makes a sequence with a shared prefix; some have a penalty, and so other kernels."""
    token_ids = shared[: rng.randrange(60)] + [rng.randrange(100) for _ in range(rng.randint(1, 9))]
    sampling = SamplingParams(presence_penalty=rng.choice([0.0, 0.0, 0.5]))
    return Sequence(
        array("I", token_ids), SequenceParams(rng.randint(1, 40), frozenset(), sampling)
    )


async def tokens_alone(token_ids: array[int], num_tokens: int) -> list[int]:
    loop, output = make_loop(FakeBackend(vocab_size=100, hashes=True)), Collector()
    loop.add(Sequence(token_ids, SequenceParams(num_tokens, frozenset())), output)
    await output.done
    return output.token_ids


@pytest.mark.parametrize("seed", range(20))
def test_whenever_kernels_are_compiled_each_has_the_tokens_it_has_alone(seed: int) -> None:
    """The KV cache holds few sequences, prefixes are shared, and an event loop ends while sequences
    run.
    """
    rng = random.Random(seed)
    loop = make_loop(FickleBackend(rng), num_blocks=rng.choice([12, 64]))
    shared = [rng.randrange(100) for _ in range(60)]

    async def begin(count: int) -> list[tuple[array[int], Sequence, Collector]]:
        under_way = []
        for _ in range(count):
            sequence, output = random_sequence(rng, shared), Collector()
            under_way.append((sequence.token_ids, sequence, output))
            loop.add(sequence, output)
            for _ in range(rng.choice([0, 1, 10])):
                await asyncio.sleep(0)
            if rng.random() < 0.2:
                loop.finish(rng.choice(under_way)[1], "abort")
        return under_way

    async def begin_and_end() -> None:
        for token_ids, sequence, output in await begin(8):
            try:
                reason = await output.done
            except DeviceError:
                continue
            count = len(output.token_ids)
            assert count == sequence.params.max_tokens or reason == "abort"
            if count:
                assert output.token_ids == await tokens_alone(token_ids, count)
        await loop.close()
        assert loop.scheduler.blocks.num_free == loop.scheduler.blocks.num_blocks

    asyncio.run(begin(rng.choice([0, 5])))
    asyncio.run(begin_and_end())
