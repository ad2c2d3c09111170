"""Chooses the next batch: a token for each decoding sequence, and prefill chunks with or between.

Knows counts, not devices. A sequence is admitted when the KV cache has room for its tokens so far.
When a running one finds no block for its next token, the youngest is preempted: it frees its blocks
and waits to be computed again, so that the oldest always ends.
"""

from __future__ import annotations

import logging
from array import array
from collections import deque
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field

from webllm.api.chat_completion import FinishReason
from webllm.engine.block_manager import NO_PREFIX, BlockManager
from webllm.engine.sequence import Sequence
from webllm.errors import ContextLengthError, QueueFullError, RequestError
from webllm.ops.sampling import EDIT_WORDS, LogitEdits
from webllm.ops.step import FROM_SAMPLED, MAX_EDITS, Step, StepSequence

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """One step, and the sequences that it samples for, in the order of its outputs."""

    step: Step
    sampled: Tokens[Sequence]
    num_tokens: int
    is_prefill: bool  # else it only decodes


@dataclass(frozen=True, slots=True)
class StepLimits:
    """max_prefill_tokens_with_decode: most prefill tokens in a step that also decodes; a larger
    chunk delays running streams. 0: prefill and decode steps take turns.
    """

    max_sequences: int = 64
    max_tokens: int = 512
    max_prefill_tokens_with_decode: int = 512


@dataclass(slots=True)
class _Draft:
    """A batch in the making."""

    scheduled: list[StepSequence] = field(default_factory=list)
    sampled: list[Sequence] = field(default_factory=list)
    num_tokens: int = 0
    num_edits: int = 0
    is_prefill: bool = False
    blocked_on: Sequence | None = None  # is preempted once its steps in flight are read

    def has_room_for(self, edits: LogitEdits) -> bool:
        return self.num_edits + len(edits) <= MAX_EDITS


class Scheduler:
    """First come, first served.

    max_positions: the context window; None: the whole KV cache. max_waiting: sequences that may
    wait while `limits.max_sequences` run.
    """

    def __init__(
        self,
        blocks: BlockManager,
        limits: StepLimits | None = None,
        max_positions: int | None = None,
        max_waiting: int = 1024,
    ) -> None:
        kv_positions = blocks.num_blocks * blocks.block_size
        self.blocks = blocks
        self.limits = limits or StepLimits()
        self.max_positions = kv_positions if max_positions is None else max_positions
        self.max_waiting = max_waiting
        assert self.max_positions <= kv_positions, "a sequence must be able to run alone"
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # by age
        self._num_steps = 0  # with outputs
        self._last_was_prefill = False

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        """Queues a sequence, which can then run to its end: nothing is checked later.

        Raises RequestError, ContextLengthError or QueueFullError.
        """
        if not sequence.num_prompt_tokens:
            raise RequestError("the prompt has no tokens; give at least one")
        if sequence.max_positions > self.max_positions:
            raise ContextLengthError(
                f"{sequence.num_prompt_tokens} prompt tokens and max_tokens "
                f"{sequence.params.max_tokens} need {sequence.max_positions} positions, the "
                f"context window has {self.max_positions}; shorten the prompt, lower max_tokens or "
                "load the model with a larger context_window_size",
                field="max_tokens",
            )
        self.check_queue()
        self.waiting.append(sequence)

    def check_queue(self, num_more: int = 1, num_coming: int = 0) -> None:
        """Raises QueueFullError if there is no room for `num_more` sequences, given those here and
        `num_coming` whose prompts are being made.
        """
        num_taken = len(self.running) + len(self.waiting) + num_coming
        if num_taken + num_more > self.limits.max_sequences + self.max_waiting:
            raise QueueFullError(
                f"{num_taken} sequences run or wait and {num_more} more were asked for; "
                f"{self.limits.max_sequences} run at once and {self.max_waiting} may wait: ask "
                "again later, or raise max_waiting_sequences of MLCEngineConfig"
            )

    def most_at_once(self, num_positions: int) -> int:
        """Returns how many sequences of `num_positions` each can run together; 0 if none can."""
        if num_positions > self.max_positions:
            return 0
        by_blocks = self.blocks.num_blocks // self.blocks.blocks_for(num_positions)
        return min(by_blocks, self.limits.max_sequences)

    def finish(self, sequence: Sequence, reason: FinishReason) -> None:
        """Ends a sequence and frees its blocks at once; its tokens in flight are dropped.

        Steps run in order, so a later owner of a block writes it after any step in flight.
        """
        if sequence.finish_reason is not None:
            return
        sequence.finish_reason = reason
        (self.running if sequence in self.running else self.waiting).remove(sequence)
        self._release(sequence)

    def next_batch(self) -> Batch | None:
        """Returns None if there is nothing to run before a step in flight has been read."""
        draft = _Draft()
        self._shift_windows()
        if self.limits.max_prefill_tokens_with_decode:
            self._schedule_decodes(draft)
            self._schedule_prefills(draft)
        else:
            self._alternate(draft)
        if not draft.scheduled:
            return None
        self._num_steps += bool(draft.sampled)
        self._last_was_prefill = draft.is_prefill
        return Batch(Step(draft.scheduled), draft.sampled, draft.num_tokens, draft.is_prefill)

    def _alternate(self, draft: _Draft) -> None:
        if self._last_was_prefill:
            self._schedule_decodes(draft)
        if not draft.scheduled:
            self._schedule_prefills(draft)
        if not draft.scheduled and not self._last_was_prefill:
            self._schedule_decodes(draft)

    def _shift_windows(self) -> None:
        """Sequences whose window is full start over with the tokens they keep."""
        for sequence in [s for s in self.running if s.num_tokens > s.window_tokens]:
            if not sequence.num_pending:
                self._preempt(sequence)
                sequence.shift()

    def _schedule_decodes(self, draft: _Draft) -> None:
        for sequence in tuple(self.running):
            if self._may_decode(sequence, draft):
                num_slots = len(sequence.block_table) * self.blocks.block_size
                if sequence.num_computed_tokens < num_slots or self._add_block(sequence, draft):
                    self._schedule(sequence, 1, draft)

    def _may_decode(self, sequence: Sequence, draft: _Draft) -> bool:
        """Whether its next token is one that was sampled, and may be computed now."""
        num_sampled = sequence.num_output_tokens + sequence.num_pending
        if sequence.is_prefill or num_sampled >= sequence.params.max_tokens:
            return False
        if sequence.num_tokens > sequence.window_tokens or sequence is draft.blocked_on:
            return False
        if sequence.edits.words and not draft.has_room_for(sequence.edits):
            return False
        if not sequence.num_pending:
            return True
        # The device still has the token if the step that sampled it was the last to sample, and
        # counts it for the penalties if it is the only one that the host has not seen.
        assert sequence.pending_output is not None
        is_last = sequence.pending_output[0] == self._num_steps
        return is_last and (sequence.num_pending == 1 or not sequence.edits.counts)

    def _add_block(self, sequence: Sequence, draft: _Draft) -> bool:
        """Allocates a block for the sequence's next token; preempts the youngest for it."""
        while True:
            if blocks := self.blocks.allocate(1):
                sequence.block_table.extend(blocks)
                return True
            youngest = self.running[-1]
            if youngest.num_pending:
                draft.blocked_on = youngest
                return False
            self._preempt(youngest)
            if youngest is sequence:
                return False

    def _schedule_prefills(self, draft: _Draft) -> None:
        """Continues the prompts of running sequences, then admits waiting ones."""
        room = self.limits.max_tokens - draft.num_tokens
        if draft.scheduled:
            room = min(room, self.limits.max_prefill_tokens_with_decode)
        for sequence in self.running:
            if room and sequence.is_prefill and draft.has_room_for(sequence.edits):
                room -= self._schedule_chunk(sequence, room, draft)
        while room and self.waiting and len(self.running) < self.limits.max_sequences:
            sequence = self.waiting[0]
            if not (draft.has_room_for(sequence.edits) and self._admit(sequence)):
                return
            self.running.append(self.waiting.popleft())
            room -= self._schedule_chunk(sequence, room, draft)

    def _schedule_chunk(self, sequence: Sequence, room: int, draft: _Draft) -> int:
        draft.is_prefill = True
        return self._schedule(sequence, room, draft)

    def _admit(self, sequence: Sequence) -> bool:
        """Allocates blocks for all its tokens, beside those of a cached prefix; leaves one block
        free for the sequences that run.
        """
        self._match_prefix(sequence)
        num_missing = self.blocks.blocks_for(sequence.num_tokens) - len(sequence.block_table)
        num_spare = 1 if self.running else 0
        if num_missing + num_spare > self.blocks.num_free:
            self._release(sequence)
            return False
        sequence.block_table.extend(self.blocks.allocate(num_missing) or ())
        if not sequence.num_output_tokens:
            sequence.num_cached_tokens = sequence.num_computed_tokens
        return True

    def _match_prefix(self, sequence: Sequence) -> None:
        """Takes cached blocks; leaves at least one token to compute, because its logits are
        wanted.
        """
        size = self.blocks.block_size
        for start in range(0, sequence.num_tokens - size, size):
            token_ids = sequence.token_ids[start : start + size]
            match = self.blocks.match(sequence.prefix_id, token_ids)
            if match is None:
                return
            block, sequence.prefix_id = match
            sequence.block_table.append(block)
            sequence.num_inserted_blocks += 1
            sequence.num_computed_tokens += size

    def _schedule(self, sequence: Sequence, room: int, draft: _Draft) -> int:
        """Adds the sequence's next tokens to the batch; returns how many."""
        start = sequence.num_computed_tokens
        count = min(sequence.num_tokens - start, room)
        token_ids = sequence.token_ids[start : start + count]
        if sequence.num_pending:
            assert sequence.pending_output is not None
            token_ids = array("I", (FROM_SAMPLED | sequence.pending_output[1],))
        sequence.num_computed_tokens = end = start + count
        if end // self.blocks.block_size > sequence.num_inserted_blocks:
            self._insert_full_blocks(sequence)
        outputs: Tokens[int] = ()
        sequence.is_prefill = sequence.num_tokens - end > bool(sequence.num_output_tokens)
        if end == sequence.num_tokens:
            outputs = (count - 1,)
            sequence.num_tokens += 1
            sequence.num_pending += 1
            sequence.pending_output = self._num_steps + 1, len(draft.sampled)
            draft.sampled.append(sequence)
            draft.num_edits += len(sequence.edits.words) // EDIT_WORDS
        sampling, edits = sequence.params.sampling, sequence.edits.words
        draft.scheduled.append(
            StepSequence(token_ids, end, sequence.block_table, outputs, sampling, edits)
        )
        draft.num_tokens += count
        return count

    def _insert_full_blocks(self, sequence: Sequence) -> None:
        """Steps run in order: later ones may read a block as soon as its step is submitted."""
        size = self.blocks.block_size
        num_known = min(sequence.num_computed_tokens, len(sequence.token_ids)) // size
        for i in range(sequence.num_inserted_blocks, num_known):
            token_ids = sequence.token_ids[i * size : (i + 1) * size]
            block = sequence.block_table[i]
            sequence.prefix_id = self.blocks.insert(block, sequence.prefix_id, token_ids)
        sequence.num_inserted_blocks = max(sequence.num_inserted_blocks, num_known)

    def _preempt(self, sequence: Sequence) -> None:
        _log.debug("preempts a sequence of %d tokens", sequence.num_tokens)
        self._release(sequence)
        self.running.remove(sequence)
        self.waiting.appendleft(sequence)

    def _release(self, sequence: Sequence) -> None:
        self._insert_full_blocks(sequence)
        self.blocks.free(sequence.block_table)
        sequence.block_table = array("I")
        sequence.num_computed_tokens = 0
        sequence.is_prefill = True
        sequence.num_inserted_blocks = 0
        sequence.prefix_id = NO_PREFIX
