"""Scheduler and block manager under random operations."""

from __future__ import annotations

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from webllm.engine.block_manager import BlockManager
from webllm.engine.scheduler import Batch, Scheduler
from webllm.engine.sequence import FinishReason, Sequence, SequenceParams

NUM_BLOCKS, BLOCK_SIZE = 12, 4


class SchedulerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(
            BlockManager(NUM_BLOCKS, BLOCK_SIZE), max_sequences=4, max_chunk_tokens=5
        )
        self.sequences: list[Sequence] = []
        self.in_flight: deque[Batch] = deque()

    @rule(length=st.integers(1, 20), max_tokens=st.integers(1, 10))
    def add(self, length: int, max_tokens: int) -> None:
        sequence = Sequence([1] * length, SequenceParams(max_tokens, frozenset()))
        self.scheduler.add(sequence)
        self.sequences.append(sequence)

    @rule()
    def submit(self) -> None:
        batch = self.scheduler.next_batch()
        if batch is None:
            assert self.in_flight or not self.scheduler.running, "nothing runs, nothing comes"
            return
        assert 1 <= batch.step.num_tokens <= 5
        assert batch.step.num_outputs == len(batch.sampled)
        self.in_flight.append(batch)

    @rule()
    def read(self) -> None:
        if not self.in_flight:
            return
        for sequence in self.in_flight.popleft().sampled:
            sequence.num_pending -= 1
            if sequence.finish_reason is None:
                sequence.token_ids.append(1)
                if sequence.num_output_tokens == sequence.params.max_tokens:
                    self.scheduler.finish(sequence, FinishReason.LENGTH)

    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        if self.sequences:
            self.scheduler.finish(data.draw(st.sampled_from(self.sequences)), FinishReason.ABORT)

    @invariant()
    def every_block_has_one_owner(self) -> None:
        owned = [block for s in self.sequences for block in s.blocks]
        assert len(owned) == len(set(owned))
        assert len(owned) + self.scheduler.blocks.num_free == NUM_BLOCKS

    @invariant()
    def none_outgrows_its_blocks(self) -> None:
        for s in self.sequences:
            assert s.num_output_tokens <= s.params.max_tokens
            if s.finish_reason is None:
                assert s.num_computed <= len(s.blocks) * BLOCK_SIZE


SchedulerMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None
)
TestScheduler = SchedulerMachine.TestCase


def test_all_that_is_added_ends() -> None:
    scheduler = Scheduler(BlockManager(NUM_BLOCKS, BLOCK_SIZE), max_sequences=3)
    sequences = [
        Sequence([1] * (1 + i % 9), SequenceParams(1 + i % 7, frozenset())) for i in range(50)
    ]
    for sequence in sequences:
        scheduler.add(sequence)
    while scheduler.has_work:
        batch = scheduler.next_batch()
        assert batch is not None
        for sequence in batch.sampled:
            sequence.num_pending -= 1
            sequence.token_ids.append(1)
            if sequence.num_output_tokens == sequence.params.max_tokens:
                scheduler.finish(sequence, FinishReason.LENGTH)
    assert [s.num_output_tokens for s in sequences] == [s.params.max_tokens for s in sequences]
