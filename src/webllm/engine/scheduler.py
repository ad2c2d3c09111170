"""What runs next: one chunk of a prompt, or one token of every running sequence.

Pure bookkeeping. A sequence is admitted when the KV cache has room for all it may come to hold,
so that no step ever fails for lack of blocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Tokens
from dataclasses import dataclass

from webllm.engine.block_manager import BlockManager
from webllm.engine.sequence import FinishReason, Sequence
from webllm.errors import ContextLengthError
from webllm.ops.step import Step, StepSequence


@dataclass(frozen=True, slots=True)
class Batch:
    """One step, and whose tokens it samples, in the order of its outputs."""

    step: Step
    sampled: tuple[Sequence, ...]


class Scheduler:
    """First come, first served; a prompt's chunk and a decode step take turns."""

    def __init__(
        self, blocks: BlockManager, *, max_sequences: int = 64, max_chunk_tokens: int = 512
    ) -> None:
        self.blocks = blocks
        self.max_sequences = max_sequences
        self.max_chunk_tokens = max_chunk_tokens
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._last: Batch | None = None
        self._prefill_next = True

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        """Raises ContextLengthError if the sequence could never run."""
        needed = self.blocks.blocks_for(sequence.max_positions)
        if needed > self.blocks.num_blocks:
            room = self.blocks.num_blocks * self.blocks.block_size
            raise ContextLengthError(
                f"{sequence.num_prompt_tokens} prompt tokens and max_tokens "
                f"{sequence.params.max_tokens} need {sequence.max_positions} positions, the KV "
                f"cache has {room}; shorten the prompt or lower max_tokens",
                field="max_tokens",
            )
        self.waiting.append(sequence)

    def finish(self, sequence: Sequence, reason: FinishReason) -> None:
        """Ends a sequence and frees its blocks at once; what is in flight for it is dropped.

        Steps run in order, so a later owner of a block writes it after any step in flight.
        """
        if sequence.finish_reason is not None:
            return
        sequence.finish_reason = reason
        (self.running if sequence in self.running else self.waiting).remove(sequence)
        self.blocks.free(sequence.blocks)
        sequence.blocks = []

    def next_batch(self) -> Batch | None:
        """None if there is nothing to do before a step in flight has been read."""
        self._admit()
        self._prefill_next = not self._prefill_next
        makers = (
            (self._prefill, self._decode) if self._prefill_next else (self._decode, self._prefill)
        )
        for make in makers:
            if batch := make():
                self._last = batch
                return batch
        return None

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self.max_sequences:
            blocks = self.blocks.allocate(self.waiting[0].max_positions)
            if blocks is None:
                return
            sequence = self.waiting.popleft()
            sequence.blocks = blocks
            self.running.append(sequence)

    def _prefill(self) -> Batch | None:
        sequence = next((s for s in self.running if not s.is_prefilled), None)
        if sequence is None:
            return None
        start = sequence.num_computed
        chunk = sequence.prompt_ids[start : start + self.max_chunk_tokens]
        sequence.num_computed += len(chunk)
        ends = sequence.is_prefilled
        outputs = (len(chunk) - 1,) if ends else ()
        step = Step((self._share(sequence, chunk, outputs),))
        if ends:
            sequence.num_pending += 1
        return Batch(step, (sequence,) if ends else ())

    def _decode(self) -> Batch | None:
        """Chained while the rows stay the same: their tokens never leave the device."""
        rows = tuple(s for s in self.running if s.is_prefilled and s.may_decode)
        if not rows:
            return None
        chained = any(s.num_pending for s in rows)
        if chained and (self._last is None or self._last.sampled != rows):
            return None
        shares = []
        for sequence in rows:
            sequence.num_computed += 1
            token_id = 0 if chained else sequence.token_ids[-1]
            shares.append(self._share(sequence, (token_id,), (0,)))
            sequence.num_pending += 1
        return Batch(Step(tuple(shares), chained), rows)

    def _share(
        self, sequence: Sequence, token_ids: Tokens[int], outputs: Tokens[int]
    ) -> StepSequence:
        params = sequence.params
        used = self.blocks.blocks_for(sequence.num_computed)
        return StepSequence(
            token_ids,
            sequence.num_computed,
            sequence.blocks[:used],
            outputs,
            params.sampling,
            params.biases,
        )
