"""The generation loop over a fake device."""

from __future__ import annotations

import asyncio
from array import array

import pytest

from webllm.api.chat_completion import FinishReason
from webllm.engine.block_manager import BlockManager
from webllm.engine.loop import GenerationLoop
from webllm.engine.runner import Runner
from webllm.engine.scheduler import Scheduler, StepLimits
from webllm.engine.sequence import Sequence, SequenceParams
from webllm.errors import ContextLengthError, DeviceLostError
from webllm.host import NATIVE, Host
from webllm.ops.program import BatchShape, KVCacheShape, Program
from webllm.ops.sampled import TokenLogprobs
from webllm.ops.step import FROM_SAMPLED
from webllm.testing import FakeBackend

BLOCK_SIZE = 16


class Collector:
    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.done: asyncio.Future[FinishReason] = asyncio.get_running_loop().create_future()

    def accept(self, token_id: int, logprobs: TokenLogprobs | None) -> FinishReason | None:
        self.token_ids.append(token_id)
        return None

    def end(self, reason: FinishReason) -> None:
        self.done.set_result(reason)

    def fail(self, error: BaseException) -> None:
        self.done.set_exception(error)


def make_loop(
    backend: FakeBackend,
    num_blocks: int = 64,
    chunk: int = 32,
    context: int | None = None,
    max_waiting: int = 1024,
    host: Host = NATIVE,
) -> GenerationLoop:
    program = Program((), KVCacheShape(1, 1, 32, BLOCK_SIZE), backend.vocab_size)
    limits = StepLimits(max_sequences=64, max_tokens=chunk, max_prefill_tokens_with_decode=chunk)
    scheduler = Scheduler(BlockManager(num_blocks, BLOCK_SIZE), limits, context, max_waiting)
    max_blocks = scheduler.blocks.blocks_for(scheduler.max_positions)
    largest = BatchShape(chunk, limits.max_sequences, limits.max_sequences, max_blocks)
    return GenerationLoop(scheduler, Runner(backend, program, largest), host)


def make_sequence(first: int, length: int, max_tokens: int, *stop_ids: int) -> Sequence:
    params = SequenceParams(max_tokens=max_tokens, stop_ids=frozenset(stop_ids))
    return Sequence(array("I", range(first, first + length)), params)


@pytest.mark.parametrize("max_steps_in_flight", [1, 2, 3])
async def test_concurrent_sequences_get_their_own_tokens(max_steps_in_flight: int) -> None:
    backend = FakeBackend(max_steps_in_flight=max_steps_in_flight)
    loop = make_loop(backend)
    sequences = [make_sequence(100 * i, 5 + 17 * i, 3 + 5 * i) for i in range(6)]
    outputs = [Collector() for _ in sequences]
    for sequence, output in zip(sequences, outputs, strict=True):
        loop.add(sequence, output)
    for i, (sequence, output) in enumerate(zip(sequences, outputs, strict=True)):
        assert await output.done == "length"
        end = 100 * i + sequence.num_prompt_tokens
        assert output.token_ids == list(range(end, end + 3 + 5 * i))
    assert loop.scheduler.blocks.num_free == 64


async def test_long_prompt_is_chunked_and_written_in_order() -> None:
    backend = FakeBackend()
    loop = make_loop(backend, chunk=32)
    output = Collector()
    loop.add(make_sequence(7, 100, 1), output)
    await output.done
    assert [step.num_tokens for step in backend.steps] == [32, 32, 32, 4]
    assert backend.context(range(7), 100, BLOCK_SIZE) == list(range(7, 107))


async def test_decoding_alone_is_chained() -> None:
    backend = FakeBackend()
    loop = make_loop(backend)
    output = Collector()
    loop.add(make_sequence(0, 3, 10), output)
    await output.done
    chained = [step.sequences[0].token_ids[0] >= FROM_SAMPLED for step in backend.steps]
    assert chained == [False] + [True] * 9


async def test_stop_token_ends_and_is_not_shown() -> None:
    loop = make_loop(FakeBackend())
    output = Collector()
    loop.add(make_sequence(0, 3, 100, 6), output)
    assert await output.done == "stop"
    assert output.token_ids == [3, 4, 5]


async def test_abort_frees_the_blocks_at_once() -> None:
    loop = make_loop(FakeBackend())
    sequence, output = make_sequence(0, 40, 500), Collector()
    loop.add(sequence, output)
    for _ in range(10):
        await asyncio.sleep(0)
    assert loop.scheduler.blocks.num_free < 64
    loop.finish(sequence, "abort")
    assert loop.scheduler.blocks.num_free == 64
    assert await output.done == "abort"
    await loop.close()


async def test_sequences_wait_for_blocks_and_then_run() -> None:
    loop = make_loop(FakeBackend(), num_blocks=4)
    outputs = [Collector() for _ in range(3)]
    for i, output in enumerate(outputs):
        loop.add(make_sequence(100 * i, 30, 20), output)
    assert [await output.done for output in outputs] == ["length"] * 3
    assert [output.token_ids[0] for output in outputs] == [30, 130, 230]


async def test_what_never_fits_is_refused() -> None:
    loop = make_loop(FakeBackend(), num_blocks=2)
    with pytest.raises(ContextLengthError, match="need 39 positions, the context window has 32"):
        loop.add(make_sequence(0, 30, 10), Collector())


async def test_a_lost_device_fails_every_sequence() -> None:
    backend = FakeBackend()
    loop = make_loop(backend)
    outputs = [Collector(), Collector()]
    for output in outputs:
        loop.add(make_sequence(0, 3, 100), output)
    await asyncio.sleep(0)
    backend.error = DeviceLostError("the device went away")
    for output in outputs:
        with pytest.raises(DeviceLostError):
            await output.done
    assert loop.scheduler.blocks.num_free == 64
