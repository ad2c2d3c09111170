"""Scheduler and block manager under random operations, against a KV cache that holds tokens."""

from __future__ import annotations

from array import array
from collections import Counter, deque
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from webllm.engine.block_manager import NO_PREFIX, BlockManager
from webllm.engine.scheduler import Batch, Scheduler, StepLimits
from webllm.engine.sequence import ContextShift, Sequence, SequenceParams
from webllm.errors import ContextLengthError
from webllm.ops.sampling import LogitEdits
from webllm.ops.step import FROM_SAMPLED, MAX_EDITS, StepSequence
from webllm.testing import FakeBackend

NUM_BLOCKS, BLOCK_SIZE = 12, 4
LIMITS = StepLimits(max_sequences=4, max_tokens=7, max_prefill_tokens_with_decode=3)
IN_TURNS = StepLimits(max_sequences=4, max_tokens=7, max_prefill_tokens_with_decode=0)
# On a device that rounds differently in prefill and in decoding.
UNEQUAL = replace(IN_TURNS, prefill_equals_decode=False)


def make_scheduler(num_blocks: int = NUM_BLOCKS, limits: StepLimits = LIMITS) -> Scheduler:
    return Scheduler(BlockManager(num_blocks, BLOCK_SIZE), limits)


def make_sequence(
    token_ids: list[int], max_tokens: int, *, counts: bool = False, window: int | None = None
) -> Sequence:
    shift = ContextShift(window, 2) if window else None
    params = SequenceParams(max_tokens, frozenset(), shift=shift)
    return Sequence(array("I", token_ids), params, LogitEdits(counts=counts))


class RoundingBackend(FakeBackend):
    """Its KV cache also has each token's position, and how it was computed, unless `is_equal`."""

    def __init__(self, *, is_equal: bool) -> None:
        super().__init__(vocab_size=5, hashes=True)
        self.is_equal = is_equal
        self.is_prefill = False  # of the step that runs

    def write(self, slot: tuple[int, int], token_id: int, position: int) -> None:
        content = token_id + 5 * (self.is_prefill and not self.is_equal) + 10 * position
        super().write(slot, content, position)


class Device:
    """Runs a scheduler's batches, several in flight."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.backend = RoundingBackend(is_equal=scheduler.limits.prefill_equals_decode)
        self.in_flight: deque[tuple[Batch, list[int]]] = deque()
        self.outputs: dict[Sequence, list[int]] = {}

    def submit(self) -> bool:
        batch = self.scheduler.next_batch()
        if batch is not None:
            check(batch, self.scheduler.limits)
            self.backend.is_prefill = batch.is_prefill
            self.in_flight.append((batch, self.backend.run(batch.step, BLOCK_SIZE)))
        return batch is not None

    def read(self) -> None:
        batch, token_ids = self.in_flight.popleft()
        for sequence, token_id in zip(batch.sequences, token_ids, strict=True):
            if sequence.finish_reason is None:
                sequence.accept(token_id)
                self.outputs.setdefault(sequence, []).append(token_id)
                if sequence.num_output_tokens == sequence.params.max_tokens:
                    self.scheduler.finish(sequence, "length")

    def run(self, max_steps_in_flight: int = 1) -> None:
        """Runs until everything has ended."""
        while self.scheduler.has_work or self.in_flight:
            while len(self.in_flight) < max_steps_in_flight and self.submit():
                pass
            assert self.in_flight, "nothing runs, and nothing comes"
            self.read()


def check(batch: Batch, limits: StepLimits) -> None:
    shares = batch.step.sequences
    decoding = [share for share in shares if share.token_ids[0] >= FROM_SAMPLED]
    assert batch.is_prefill or all(len(share.token_ids) == 1 for share in shares)
    assert limits.max_prefill_tokens_with_decode or not (batch.is_prefill and decoding)
    assert 1 <= batch.step.num_tokens <= LIMITS.max_tokens
    assert batch.step.num_outputs == len(batch.sequences)
    assert all(sum(t >= FROM_SAMPLED for t in share.token_ids) <= 1 for share in shares)


@cache
def alone(
    prompt: tuple[int, ...], max_tokens: int, window: int | None, limits: StepLimits = LIMITS
) -> list[int]:
    device = Device(make_scheduler(limits=limits))
    sequence = make_sequence([*prompt], max_tokens, window=window)
    device.scheduler.add(sequence)
    device.run()
    return device.outputs[sequence]


class SchedulerMachine(RuleBasedStateMachine):
    """Random operations; prompts have few different tokens, so that prefixes are often shared."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts: dict[Sequence, list[int]] = {}

    @initialize(limits=st.sampled_from([LIMITS, IN_TURNS, UNEQUAL]))
    def begin(self, limits: StepLimits) -> None:
        self.device = Device(make_scheduler(limits=limits))
        self.scheduler = self.device.scheduler

    @rule(
        first=st.integers(0, 2),  # 2: blocks that are equal but for their place
        length=st.integers(1, 20),
        max_tokens=st.integers(1, 25),
        counts=st.booleans(),
        shifts=st.booleans(),
    )
    def add(self, first: int, length: int, max_tokens: int, counts: bool, shifts: bool) -> None:
        prompt = [first] + [2] * (length - 1)
        window = 20 if shifts else None
        sequence = make_sequence(prompt, max_tokens, counts=counts, window=window)
        self.scheduler.add(sequence)
        self.prompts[sequence] = prompt

    @rule(moves=st.integers(0, 255))
    def submit_and_read(self, moves: int) -> None:
        """Makes eight moves, each a bit: drawing them one by one would take most of the time."""
        for i in range(8):
            if moves >> i & 1:
                self.submit()
            elif self.device.in_flight:
                self.device.read()
            self.every_block_is_free_or_used_and_counted()
            self.none_outgrows_its_blocks()

    def submit(self) -> None:
        if len(self.device.in_flight) < 3 and not self.device.submit():
            assert self.device.in_flight or not self.scheduler.has_work, "stuck"

    @rule(data=st.data(), num_tokens=st.integers(0, 25))
    def cut_and_replay(self, data: st.DataObject, num_tokens: int) -> None:
        """Ends a sequence, and replays its tokens up to any in another sequence."""
        unfinished = [*self.scheduler.running, *self.scheduler.waiting]
        if not unfinished:
            return
        sequence = data.draw(st.sampled_from(unfinished))
        self.scheduler.finish(sequence, "abort")
        outputs = self.device.outputs.get(sequence, [])[:num_tokens]
        prompt, shift = self.prompts[sequence], sequence.params.shift
        again = make_sequence(
            prompt,
            sequence.params.max_tokens,
            counts=sequence.edits.counts,
            window=None if shift is None else shift.window_tokens,
        )
        again.replay(outputs)
        self.scheduler.add(again)
        self.prompts[again] = prompt
        self.device.outputs[again] = list(outputs)

    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        unfinished = [*self.scheduler.running, *self.scheduler.waiting]
        if unfinished:
            self.scheduler.finish(data.draw(st.sampled_from(unfinished)), "abort")

    @rule()
    def forget(self) -> None:
        self.scheduler.blocks.reset_prefix_cache()

    @invariant()
    def every_block_is_free_or_used_and_counted(self) -> None:
        blocks = self.scheduler.blocks
        ref_counts = Counter(block for s in self.scheduler.running for block in s.block_table)
        assert [ref_counts[block] for block in range(NUM_BLOCKS)] == blocks._ref_counts
        free = [*blocks._free, *blocks._evictable]
        assert len(free) == len(set(free)) == blocks.num_free
        assert set(free) == set(range(NUM_BLOCKS)) - ref_counts.keys()
        assert blocks._evictable.keys() <= blocks._keys.keys()
        assert not set(blocks._free) & blocks._keys.keys()

    @invariant()
    def none_outgrows_its_blocks(self) -> None:
        for s in self.prompts:
            assert s.num_output_tokens <= s.params.max_tokens
            assert s.num_computed_tokens <= len(s.block_table) * BLOCK_SIZE
            if s.finish_reason is not None:
                assert not s.block_table

    def teardown(self) -> None:
        """Checks that every sequence ends with the tokens that it would have alone."""
        self.device.run(max_steps_in_flight=3)
        assert self.scheduler.blocks.num_free == NUM_BLOCKS
        for sequence, prompt in self.prompts.items():
            outputs = self.device.outputs.get(sequence, [])
            shift = sequence.params.shift
            window = None if shift is None else shift.window_tokens
            max_tokens, limits = sequence.params.max_tokens, self.scheduler.limits
            expected = alone(tuple(prompt), max_tokens, window, limits)
            if sequence.finish_reason == "length":
                assert outputs == expected
            else:
                assert outputs == expected[: len(outputs)]


# 300 runs of 150 rules: 108,000 operations. A failure is not shrunk, which would take minutes.
SchedulerMachine.TestCase.settings = settings(
    max_examples=300, stateful_step_count=150, deadline=None, phases=[Phase.generate]
)
TestScheduler = SchedulerMachine.TestCase


@pytest.mark.parametrize(
    "limits", [LIMITS, IN_TURNS, UNEQUAL], ids=["together", "in turns", "unequal"]
)
@pytest.mark.parametrize("max_steps_in_flight", [1, 2, 3])
def test_all_that_is_added_ends(max_steps_in_flight: int, limits: StepLimits) -> None:
    device = Device(make_scheduler(limits=limits))
    sequences = [make_sequence([i % 5] * (1 + i % 9), 1 + i % 7) for i in range(50)]
    for sequence in sequences:
        device.scheduler.add(sequence)
    device.run(max_steps_in_flight)
    assert [s.num_output_tokens for s in sequences] == [s.params.max_tokens for s in sequences]


def test_a_prompt_seen_before_is_not_computed_again() -> None:
    device = Device(make_scheduler())
    first, second = make_sequence([1] * 13, 1), make_sequence([1] * 13, 1)
    device.scheduler.add(first)
    device.run()
    computed = sum(step.num_tokens for step in device.backend.steps)
    device.scheduler.add(second)
    device.run()
    assert computed == 13
    assert second.num_cached_tokens == 12
    assert sum(step.num_tokens for step in device.backend.steps) == 14


def test_choices_share_their_prompt_within_a_step() -> None:
    device = Device(make_scheduler(limits=StepLimits(max_sequences=4, max_tokens=7)))
    for _ in range(3):
        device.scheduler.add(make_sequence([1] * 5, 1))
    batch = device.scheduler.next_batch()
    assert batch is not None
    assert [len(share.token_ids) for share in batch.step.sequences] == [5, 1, 1]


def test_a_running_stream_keeps_prompt_chunks_small() -> None:
    device = Device(make_scheduler())
    device.scheduler.add(make_sequence([1] * 3, 20))
    assert device.submit()
    device.read()
    device.scheduler.add(make_sequence([2] * 20, 1))
    batch = device.scheduler.next_batch()
    assert batch is not None
    assert [len(share.token_ids) for share in batch.step.sequences] == [1, 3]


def test_prompts_and_decoding_take_turns_where_asked_to() -> None:
    device = Device(make_scheduler(limits=IN_TURNS))
    device.scheduler.add(make_sequence([1] * 3, 20))
    assert device.submit()
    device.read()
    device.scheduler.add(make_sequence([2] * 20, 1))
    turns = []
    for _ in range(6):
        assert device.submit()
        turns.append(device.in_flight[-1][0].step.num_tokens)
        device.read()
    assert turns == [1, 7, 1, 7, 1, 6]


def test_the_youngest_makes_room_and_goes_on_later() -> None:
    device = Device(make_scheduler(num_blocks=4))
    old, young = make_sequence([1] * 6, 9), make_sequence([2] * 6, 9)
    device.scheduler.add(old)
    device.scheduler.add(young)
    device.run(max_steps_in_flight=2)
    assert device.outputs[old] == alone((1,) * 6, 9, None)
    assert device.outputs[young] == alone((2,) * 6, 9, None)


def test_a_replay_decodes_several_tokens_in_a_step() -> None:
    expected = alone((1,) * 6, 12, None, UNEQUAL)
    device = Device(make_scheduler(limits=UNEQUAL))
    sequence = make_sequence([1] * 6, 12)
    sequence.replay(expected[:9])
    device.scheduler.add(sequence)
    device.run()
    assert [step.num_tokens for step in device.backend.steps] == [6, 4, 4, 1, 1, 1]
    assert device.outputs[sequence] == expected[9:]


def test_a_replay_leaves_a_token_to_generate() -> None:
    with pytest.raises(AssertionError, match="nothing is left to generate"):
        make_sequence([1] * 6, 3).replay([1, 2, 3])


def test_replays_sample_only_where_their_edits_fit() -> None:
    scheduler = make_scheduler(limits=UNEQUAL)
    biases = dict.fromkeys(range(MAX_EDITS // 2 + 1), 1.0)
    for first in range(2):
        params = SequenceParams(12, frozenset())
        sequence = Sequence(array("I", [first] * 3), params, LogitEdits(biases))
        sequence.replay([1, 1])
        scheduler.add(sequence)
    batches = [scheduler.next_batch() for _ in range(3)]
    steps = [batch.step for batch in batches if batch is not None]
    assert [(step.num_tokens, step.num_outputs) for step in steps] == [(6, 0), (3, 1), (1, 1)]


def test_steps_take_turns_where_prefill_rounds_differently() -> None:
    with pytest.raises(AssertionError):
        replace(LIMITS, prefill_equals_decode=False)


def test_a_prompt_does_not_share_generated_tokens_that_round_differently() -> None:
    for limits, num_cached in [(IN_TURNS, 12), (UNEQUAL, 8)]:
        device = Device(make_scheduler(limits=limits))
        first = make_sequence([1] * 8, 6)
        device.scheduler.add(first)
        device.run()
        second = make_sequence([*first.token_ids, 1, 1], 1)
        device.scheduler.add(second)
        device.run()
        assert second.num_cached_tokens == num_cached


def test_a_full_window_is_read_again_without_its_middle() -> None:
    device = Device(make_scheduler())
    sequence = make_sequence(list(range(10)), 20, window=16)
    device.scheduler.add(sequence)
    device.run()
    outputs = device.outputs[sequence]
    assert len(outputs) == 20
    assert sequence.token_ids[:2].tolist() == [0, 1]
    assert len(sequence.token_ids) <= 17
    kept = [0, 1, *outputs[:7]]  # 17 tokens are one too many: 2 + (16 - 2) // 2 stay
    context = (token_id + 10 * position for position, token_id in enumerate(kept))
    assert outputs[7] == hash(tuple(context)) % 5


def test_what_never_fits_is_refused() -> None:
    with pytest.raises(ContextLengthError, match="need 59 positions, the context window has 48"):
        make_scheduler().add(make_sequence([1] * 10, 50))


def test_a_penalized_sequence_is_at_most_one_token_ahead() -> None:
    device = Device(make_scheduler())
    device.scheduler.add(make_sequence([1], 10, counts=True))
    assert [device.submit() for _ in range(3)] == [True, True, False]


def test_chaining_goes_on_when_another_ends() -> None:
    device = Device(make_scheduler())
    for max_tokens in (2, 6):
        device.scheduler.add(make_sequence([1], max_tokens))
    shares: list[StepSequence] = []
    for _ in range(4):
        while len(device.in_flight) < 2 and device.submit():
            shares = list(device.in_flight[-1][0].step.sequences)
        device.read()
    assert len(shares) == 1
    assert shares[0].token_ids[0] & FROM_SAMPLED


class TestBlockManager:
    def test_content_is_found_until_its_block_is_needed(self) -> None:
        blocks = BlockManager(2, 4)
        (first,) = blocks.allocate(1) or []
        prefix = blocks.insert(first, NO_PREFIX, (1, 2, 3, 4), 4)
        blocks.free([first])
        assert blocks.match(NO_PREFIX, (1, 2, 3, 4), 4) == (first, prefix)
        blocks.free([first])
        assert blocks.match(NO_PREFIX, (1, 2, 3, 5), 4) is None
        assert blocks.match(prefix, (1, 2, 3, 4), 4) is None
        taken = blocks.allocate(2)
        assert taken is not None
        assert taken[-1] == first, "blank blocks go first"
        assert blocks.match(NO_PREFIX, (1, 2, 3, 4), 4) is None

    def test_a_sequence_loses_its_end_first(self) -> None:
        blocks = BlockManager(3, 1)
        taken = blocks.allocate(3) or []
        prefix = NO_PREFIX
        for i, block in enumerate(taken):
            prefix = blocks.insert(block, prefix, (i,), 1)
        blocks.free(taken)
        assert blocks.allocate(2) == taken[:0:-1]
        assert blocks.match(NO_PREFIX, (0,), 1) is not None

    def test_equal_content_is_evictable_once(self) -> None:
        blocks = BlockManager(2, 4)
        one, other = blocks.allocate(2) or []
        assert blocks.insert(one, NO_PREFIX, (1,) * 4, 4) == blocks.insert(
            other, NO_PREFIX, (1,) * 4, 4
        )
        blocks.free([other])
        assert blocks.match(NO_PREFIX, (1,) * 4, 4) == (one, 1)

    def test_freeing_twice_is_noticed(self) -> None:
        blocks = BlockManager(2, 4)
        taken = blocks.allocate(1) or []
        blocks.free(taken)
        with pytest.raises(AssertionError, match="freed twice"):
            blocks.free(taken)
