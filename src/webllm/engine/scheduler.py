"""Chooses the next batch: one token of each decoding sequence, and chunks of prompts.

Knows counts, not devices. A sequence is admitted when the KV cache has blocks for its tokens so
far. When no block is left for a running sequence's next token, the youngest sequence is preempted:
it frees its blocks, and is computed again later. So the oldest sequence always reaches its end.
"""

from __future__ import annotations

import logging
from array import array
from collections import deque
from dataclasses import dataclass, field

from webllm.api.chat_completion import FinishReason
from webllm.engine.block_manager import NO_PREFIX, BlockManager
from webllm.engine.sequence import Prefill, Sequence
from webllm.errors import ContextLengthError, QueueFullError, RequestError
from webllm.ops.sampling import EDIT_WORDS, LogitEdits
from webllm.ops.step import FROM_SAMPLED, MAX_EDITS, Step, StepSequence

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """One step, and the sequence that gets the token of each of its outputs."""

    step: Step
    sequences: list[Sequence]
    num_tokens: int
    is_prefill: bool  # False: it only decodes
    prefills: list[Prefill]  # of prompts whose sequences want to know


@dataclass(frozen=True, slots=True)
class StepLimits:
    """The largest step.

    max_prefill_tokens_with_decode: most prefill tokens in a step that also decodes, because a
    larger chunk delays running streams. 0: prefill and decode steps take turns.
    prefill_equals_decode: whether prefill computes a token with the same bits as decoding does. If
    not, steps take turns, so that replayed tokens may fill a step.
    """

    max_sequences: int = 64
    max_tokens: int = 512
    max_prefill_tokens_with_decode: int = 512
    prefill_equals_decode: bool = True

    def __post_init__(self) -> None:
        assert self.prefill_equals_decode or not self.max_prefill_tokens_with_decode


@dataclass(slots=True)
class _Draft:
    """The batch that is being put together."""

    scheduled: list[StepSequence] = field(default_factory=list)
    sequences: list[Sequence] = field(default_factory=list)
    prefills: list[Prefill] = field(default_factory=list)
    num_tokens: int = 0
    num_edits: int = 0
    is_prefill: bool = False
    blocked_on: Sequence | None = None  # to be preempted, after its steps in flight are read

    def has_room_for(self, edits: LogitEdits) -> bool:
        return self.num_edits + len(edits) <= MAX_EDITS


class Scheduler:
    """Serves sequences first come, first served.

    max_positions: the context window; None stands for the whole KV cache. max_waiting: most
    sequences that wait while `limits.max_sequences` run.
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
        self.running: list[Sequence] = []  # the oldest first
        self._num_sampling_steps = 0  # submitted so far; other steps have no outputs
        self._last_was_prefill = False

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        """Queues a sequence. It is known to be able to run to its end; nothing is checked later.

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

    def check_queue(self, num_more: int = 1, num_encoding: int = 0) -> None:
        """Raises QueueFullError if `num_more` sequences are too many.

        num_encoding: sequences that will be added soon, because their prompts are being encoded.
        """
        num_taken = len(self.running) + len(self.waiting) + num_encoding
        if num_taken + num_more > self.limits.max_sequences + self.max_waiting:
            raise QueueFullError(
                f"{num_taken} sequences run or wait and {num_more} more were asked for; "
                f"{self.limits.max_sequences} run at once and {self.max_waiting} may wait: ask "
                "again later, or raise max_waiting_sequences of MLCEngineConfig"
            )

    def max_concurrency(self, num_positions: int) -> int:
        """Returns the most sequences of `num_positions` each that can run together."""
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
        """Returns the batch to submit next.

        Returns None if there is nothing to run, or not before a step in flight has been read.
        """
        draft = _Draft()
        self._shift_full_windows()
        if self.limits.max_prefill_tokens_with_decode:
            self._schedule_decodes(draft)
            self._schedule_prefills(draft)
        else:
            self._alternate(draft)
        if not draft.scheduled:  # a sequence that was just admitted may have tokens to decode only
            self._schedule_decodes(draft)
        if not draft.scheduled:
            return None
        self._num_sampling_steps += bool(draft.sequences)
        self._last_was_prefill = draft.is_prefill
        return Batch(
            Step(draft.scheduled),
            draft.sequences,
            draft.num_tokens,
            draft.is_prefill,
            draft.prefills,
        )

    def _alternate(self, draft: _Draft) -> None:
        """Schedules only decodes or only prefills: prefills, unless the last step had some."""
        if self._last_was_prefill:
            self._schedule_decodes(draft)
        if not draft.scheduled:
            self._schedule_prefills(draft)

    def _shift_full_windows(self) -> None:
        """Restarts each sequence whose context window is full, with the tokens that it keeps."""
        for sequence in [s for s in self.running if s.num_tokens > s.window_tokens]:
            if not sequence.num_pending:
                self._preempt(sequence)
                sequence.shift()

    def _schedule_decodes(self, draft: _Draft) -> None:
        replaying = []
        for sequence in tuple(self.running):
            if self._may_decode(sequence, draft):
                num_slots = len(sequence.block_table) * self.blocks.block_size
                if sequence.num_computed_tokens < num_slots or self._add_block(sequence, draft):
                    self._schedule(sequence, 1, draft)
                    if not sequence.num_pending:
                        replaying.append(sequence)
        for sequence in replaying:
            self._schedule_replay(sequence, draft)

    def _schedule_replay(self, sequence: Sequence, draft: _Draft) -> None:
        """Fills the step with generated tokens of a sequence that are computed once more.

        Each is a row of its own, as if it belonged to another sequence with the same blocks. So it
        is decoded as it was before.
        """
        num_rows = self.limits.max_sequences - len(draft.scheduled)
        num_left = sequence.num_tokens - sequence.num_computed_tokens
        if not draft.has_room_for(sequence.edits):  # the last row samples
            num_left -= 1
        for _ in range(min(num_rows, num_left)):
            self._schedule(sequence, 1, draft)

    def _may_decode(self, sequence: Sequence, draft: _Draft) -> bool:
        """Whether a sequence's newest sampled token may be computed in this step."""
        num_sampled = sequence.num_output_tokens + sequence.num_pending
        if sequence.is_prefill or num_sampled >= sequence.params.max_tokens:
            return False
        if sequence.num_tokens > sequence.window_tokens or sequence is draft.blocked_on:
            return False
        if sequence.edits.words and not draft.has_room_for(sequence.edits):
            return False
        if not sequence.num_pending:
            return True
        # Only the device knows the token. It still has it, if no later step sampled. It can count
        # one pending token for the penalties, not several.
        assert sequence.pending_output is not None
        is_last = sequence.pending_output[0] == self._num_sampling_steps
        return is_last and (sequence.num_pending == 1 or not sequence.edits.counts)

    def _add_block(self, sequence: Sequence, draft: _Draft) -> bool:
        """Allocates a block for the sequence's next token; preempts younger sequences for it.

        Returns False if the sequence itself was preempted, or must wait for a step in flight.
        """
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
        """Continues the prompts of running sequences, then admits waiting sequences."""
        token_budget = self.limits.max_tokens - draft.num_tokens
        if draft.scheduled:
            token_budget = min(token_budget, self.limits.max_prefill_tokens_with_decode)
        for sequence in self.running:
            if token_budget and sequence.is_prefill and draft.has_room_for(sequence.edits):
                token_budget -= self._schedule_chunk(sequence, token_budget, draft)
        while token_budget and self.waiting and len(self.running) < self.limits.max_sequences:
            sequence = self.waiting[0]
            if not (draft.has_room_for(sequence.edits) and self._admit(sequence)):
                return
            self.running.append(self.waiting.popleft())
            if sequence.is_prefill:
                token_budget -= self._schedule_chunk(sequence, token_budget, draft)

    def _schedule_chunk(self, sequence: Sequence, token_budget: int, draft: _Draft) -> int:
        draft.is_prefill = True
        left = self._prefill_end(sequence) - sequence.num_computed_tokens
        return self._schedule(sequence, min(left, token_budget), draft)

    def _prefill_end(self, sequence: Sequence) -> int:
        """Returns the number of the sequence's first tokens that prefill may compute.

        The last generated token is always decoded: it is one token anyway.
        """
        if not self.limits.prefill_equals_decode:
            return sequence.num_prefill_tokens
        return sequence.num_tokens - bool(sequence.num_output_tokens)

    def _admit(self, sequence: Sequence) -> bool:
        """Allocates blocks for a sequence's tokens, reusing those of a cached prefix.

        Returns False if there are too few. One block is left free for the running sequences.
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
        """Takes the longest cached prefix, except for the last token, whose logits are wanted."""
        size = self.blocks.block_size
        for i in range((sequence.num_tokens - 1) // size):
            match = self.blocks.match(sequence.prefix_id, *self._content(sequence, i))
            if match is None:
                break
            block, sequence.prefix_id = match
            sequence.block_table.append(block)
            sequence.num_inserted_blocks += 1
            sequence.num_computed_tokens += size
        sequence.is_prefill = sequence.num_computed_tokens < self._prefill_end(sequence)

    def _content(self, sequence: Sequence, i: int) -> tuple[array[int], int]:
        """Returns the tokens of the sequence's block `i`, and how many of them are prefilled."""
        size = self.blocks.block_size
        start = i * size
        num_prefilled = size
        if not self.limits.prefill_equals_decode:
            num_prefilled = min(max(sequence.num_prefill_tokens - start, 0), size)
        return sequence.token_ids[start : start + size], num_prefilled

    def _schedule(self, sequence: Sequence, token_budget: int, draft: _Draft) -> int:
        """Adds the sequence's next tokens to the batch, within the budget; returns their number."""
        start = sequence.num_computed_tokens
        count = min(sequence.num_tokens - start, token_budget)
        token_ids = sequence.token_ids[start : start + count]
        if sequence.num_pending:
            assert sequence.pending_output is not None
            token_ids = array("I", (FROM_SAMPLED | sequence.pending_output[1],))
        sequence.num_computed_tokens = end = start + count
        if end // self.blocks.block_size > sequence.num_inserted_blocks:
            self._insert_full_blocks(sequence)
        outputs: tuple[int, ...] = ()
        if sequence.is_prefill:
            sequence.is_prefill = end < self._prefill_end(sequence)
            if sequence.on_prefill is not None and not sequence.num_output_tokens:
                draft.prefills.append(Prefill(sequence, sequence.num_cached_tokens, end))
        if end == sequence.num_tokens:
            outputs = (count - 1,)
            sequence.num_tokens += 1
            sequence.num_pending += 1
            sequence.pending_output = self._num_sampling_steps + 1, len(draft.sequences)
            draft.sequences.append(sequence)
            draft.num_edits += len(sequence.edits.words) // EDIT_WORDS
        sampling, edits = sequence.params.sampling, sequence.edits.words
        draft.scheduled.append(
            StepSequence(token_ids, end, sequence.block_table, outputs, sampling, edits)
        )
        draft.num_tokens += count
        return count

    def _insert_full_blocks(self, sequence: Sequence) -> None:
        """Adds the sequence's full blocks to the prefix cache.

        Their content may not be computed yet, but steps run in order: any step that reads a block
        is submitted after the one that writes it.
        """
        size = self.blocks.block_size
        num_known = min(sequence.num_computed_tokens, len(sequence.token_ids)) // size
        for i in range(sequence.num_inserted_blocks, num_known):
            content = self._content(sequence, i)
            block = sequence.block_table[i]
            sequence.prefix_id = self.blocks.insert(block, sequence.prefix_id, *content)
        sequence.num_inserted_blocks = max(sequence.num_inserted_blocks, num_known)

    def _preempt(self, sequence: Sequence) -> None:
        _log.debug("preempts a sequence of %d tokens", sequence.num_tokens)
        self._release(sequence)
        self.running.remove(sequence)
        self.waiting.appendleft(sequence)

    def _release(self, sequence: Sequence) -> None:
        """Frees the sequence's blocks; all its tokens are to be computed again."""
        self._insert_full_blocks(sequence)
        self.blocks.free(sequence.block_table)
        sequence.block_table = array("I")
        sequence.num_computed_tokens = 0
        sequence.is_prefill = True
        sequence.num_inserted_blocks = 0
        sequence.prefix_id = NO_PREFIX
