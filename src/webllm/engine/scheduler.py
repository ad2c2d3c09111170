"""What runs next: one token of every sequence that decodes, and prompts in chunks, beside them or
in turns.

Pure bookkeeping. A sequence is admitted when the KV cache has room for its tokens so far. When a
running one finds no block for its next token, the youngest gives its blocks back and waits to be
computed again, so that the oldest always ends.
"""

from __future__ import annotations

import logging
from array import array
from collections import deque
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field

from webllm.engine.block_manager import NO_PREFIX, BlockManager
from webllm.engine.sequence import FinishReason, Sequence
from webllm.errors import ContextLengthError, QueueFullError, RequestError
from webllm.ops.sampling import LogitEdits
from webllm.ops.step import MAX_EDITS, Step, StepSequence, sampled_by

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """One step, and whose tokens it samples, in the order of its outputs."""

    step: Step
    sampled: Tokens[Sequence]
    reads_prompts: bool  # else it only decodes


@dataclass(frozen=True, slots=True)
class StepLimits:
    """max_prompt_tokens: most prefill tokens in a step that also decodes; a larger chunk delays
    running streams. 0: prefill and decode take turns.
    """

    max_sequences: int = 64
    max_tokens: int = 512
    max_prompt_tokens: int = 512


@dataclass(slots=True)
class _Draft:
    """A batch in the making."""

    shares: list[StepSequence] = field(default_factory=list)
    sampled: list[Sequence] = field(default_factory=list)
    num_tokens: int = 0
    num_edits: int = 0
    reads_prompts: bool = False
    held: Sequence | None = None  # has to give its blocks back: takes no further step

    def has_room_for(self, edits: LogitEdits) -> bool:
        return self.num_edits + len(edits) <= MAX_EDITS


class Scheduler:
    """First come, first served.

    max_positions: the context window; None: the whole KV cache. max_waiting: how many sequences
    may wait beside the `limits.max_sequences` that run.
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
        self.num_expected = 0  # sequences that will be added when their prompts are made
        self._num_steps = 0  # with outputs
        self._read_prompts = False  # the last step did

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        """A sequence that is accepted can run to its end: nothing is checked later.

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
        sequence.check()
        self.check_queue()
        self.waiting.append(sequence)

    def check_queue(self, num_more: int = 1, num_coming: int = 0) -> None:
        """Raises QueueFullError if `num_more` sequences are too many, beside those that are here
        and `num_coming` whose prompts are being made.
        """
        num_taken = len(self.running) + len(self.waiting) + num_coming
        if num_taken + num_more > self.limits.max_sequences + self.max_waiting:
            raise QueueFullError(
                f"{num_taken} sequences run or wait and {num_more} more were asked for; "
                f"{self.limits.max_sequences} run at once and {self.max_waiting} may wait: ask "
                "again later, or raise max_waiting_sequences of MLCEngineConfig"
            )

    def most_at_once(self, num_positions: int) -> int:
        """How many sequences of `num_positions` each can run together; 0 if not even one can."""
        if num_positions > self.max_positions:
            return 0
        by_blocks = self.blocks.num_blocks // self.blocks.blocks_for(num_positions)
        return min(by_blocks, self.limits.max_sequences)

    def finish(self, sequence: Sequence, reason: FinishReason) -> None:
        """Ends a sequence and frees its blocks at once; what is in flight for it is dropped.

        Steps run in order, so a later owner of a block writes it after any step in flight.
        """
        if sequence.finish_reason is not None:
            return
        sequence.finish_reason = reason
        (self.running if sequence in self.running else self.waiting).remove(sequence)
        self._release(sequence)

    def next_batch(self) -> Batch | None:
        """None if there is nothing to do before a step in flight has been read."""
        draft = _Draft()
        self._shift()
        if self.limits.max_prompt_tokens:
            self._decode(draft)
            self._prefill(draft, self.limits.max_prompt_tokens)
        else:
            self._take_turns(draft)
        if not draft.shares:
            return None
        self._num_steps += bool(draft.sampled)
        self._read_prompts = draft.reads_prompts
        return Batch(Step(draft.shares), draft.sampled, draft.reads_prompts)

    def _take_turns(self, draft: _Draft) -> None:
        if self._read_prompts:
            self._decode(draft)
        if not draft.shares:
            self._prefill(draft)
        if not draft.shares and not self._read_prompts:
            self._decode(draft)

    def _shift(self) -> None:
        """Sequences whose window is full start over with what they keep."""
        for sequence in [s for s in self.running if s.needs_shift and not s.num_pending]:
            self._preempt(sequence)
            sequence.shift()

    def _decode(self, draft: _Draft) -> None:
        for sequence in tuple(self.running):
            may_run = self._may_decode(sequence) and draft.has_room_for(sequence.edits)
            if may_run and sequence is not draft.held and self._reserve(sequence, draft):
                self._take(sequence, 1, draft)

    def _may_decode(self, sequence: Sequence) -> bool:
        if not sequence.decodes or sequence.is_all_sampled or sequence.needs_shift:
            return False
        if not sequence.num_pending:
            return sequence.num_computed > 0  # else it was preempted a moment ago
        # The device still has the token if the step that sampled it was the last to sample, and
        # counts it for the penalties if it is the only one that the host has not seen.
        assert sequence.pending_output is not None
        is_last = sequence.pending_output[0] == self._num_steps
        return is_last and (sequence.num_pending == 1 or not sequence.edits.counts)

    def _reserve(self, sequence: Sequence, draft: _Draft) -> bool:
        """A block for the sequence's next token, taken from the youngest if there is none."""
        while self.blocks.blocks_for(sequence.num_computed + 1) > len(sequence.blocks):
            if blocks := self.blocks.allocate(1):
                sequence.blocks.extend(blocks)
                return True
            youngest = self.running[-1]
            if youngest.num_pending:  # once these are read
                draft.held = youngest
                return False
            self._preempt(youngest)
            if youngest is sequence:
                return False
        return True

    def _prefill(self, draft: _Draft, beside_decode: int = 0) -> None:
        room = self.limits.max_tokens - draft.num_tokens
        if draft.shares:
            room = min(room, beside_decode)
        for sequence in self.running:
            if room and sequence.reads_prompt and draft.has_room_for(sequence.edits):
                room -= self._read_prompt(sequence, room, draft)
        while room and self.waiting and len(self.running) < self.limits.max_sequences:
            sequence = self.waiting[0]
            if not (draft.has_room_for(sequence.edits) and self._admit(sequence)):
                return
            self.running.append(self.waiting.popleft())
            room -= self._read_prompt(sequence, room, draft)

    def _read_prompt(self, sequence: Sequence, room: int, draft: _Draft) -> int:
        draft.reads_prompts = True
        return self._take(sequence, room, draft)

    def _admit(self, sequence: Sequence) -> bool:
        """Blocks for all its tokens, shared as far as their content is known; one stays free for
        those that run.
        """
        self._share_prefix(sequence)
        missing = self.blocks.blocks_for(sequence.num_tokens) - len(sequence.blocks)
        spare = 1 if self.running else 0
        if missing + spare > self.blocks.num_free:
            self._release(sequence)
            return False
        sequence.blocks.extend(self.blocks.allocate(missing) or ())
        if not sequence.num_output_tokens:
            sequence.num_cached_tokens = sequence.num_computed
        return True

    def _share_prefix(self, sequence: Sequence) -> None:
        """At least one token is left to compute: its logits are wanted."""
        size = self.blocks.block_size
        for start in range(0, sequence.num_tokens - size, size):
            shared = self.blocks.share(sequence.prefix, sequence.token_ids[start : start + size])
            if shared is None:
                return
            block, sequence.prefix = shared
            sequence.blocks.append(block)
            sequence.num_remembered += 1
            sequence.num_computed += size

    def _take(self, sequence: Sequence, room: int, draft: _Draft) -> int:
        """The sequence's next tokens go into the batch; returns how many."""
        start = sequence.num_computed
        count = min(sequence.num_uncomputed, room)
        token_ids = sequence.token_ids[start : start + count]
        if sequence.num_pending:
            assert sequence.pending_output is not None
            token_ids = array("I", (sampled_by(sequence.pending_output[1]),))
        sequence.num_computed += count
        self._remember(sequence)
        outputs: Tokens[int] = ()
        if sequence.num_uncomputed == 0:
            outputs = (count - 1,)
            sequence.num_pending += 1
            sequence.pending_output = self._num_steps + 1, len(draft.sampled)
            draft.sampled.append(sequence)
            draft.num_edits += len(sequence.edits)
        draft.shares.append(
            StepSequence(
                token_ids,
                sequence.num_computed,
                sequence.blocks,
                outputs,
                sequence.params.sampling,
                sequence.edits.words,
            )
        )
        draft.num_tokens += count
        return count

    def _remember(self, sequence: Sequence) -> None:
        """Full blocks of known tokens may be shared from now on: steps run in order."""
        size = self.blocks.block_size
        known = min(sequence.num_computed, len(sequence.token_ids)) // size
        for i in range(sequence.num_remembered, known):
            token_ids = sequence.token_ids[i * size : (i + 1) * size]
            sequence.prefix = self.blocks.remember(sequence.blocks[i], sequence.prefix, token_ids)
        sequence.num_remembered = max(sequence.num_remembered, known)

    def _preempt(self, sequence: Sequence) -> None:
        _log.debug("a sequence of %d tokens gives its blocks back", sequence.num_tokens)
        self._release(sequence)
        self.running.remove(sequence)
        self.waiting.appendleft(sequence)

    def _release(self, sequence: Sequence) -> None:
        self._remember(sequence)
        self.blocks.free(sequence.blocks)
        sequence.blocks = array("I")
        sequence.num_computed = 0
        sequence.num_remembered = 0
        sequence.prefix = NO_PREFIX
