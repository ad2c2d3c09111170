"""A step: one batch of sequences, packed into one array of 32-bit words.

It holds all that differs between steps, so that a compiled plan never changes. Both backends read
this layout; kernels get the section offsets as constants. Sections, in words (T, S, O = tokens,
sequences and outputs of the largest batch; B = its blocks a sequence; E = edits of this step):

    header         4        num_tokens, num_seqs, num_outputs, resample (1: only sample, from logits
                            that the host has written)
    token_ids      T        a token's id, or FROM_SAMPLED | o: the token sampled by output o of the
                            last step that had outputs
    positions      T        position of each token in its sequence
    seq_ids        T        each token's sequence: a row of the sections below
    slot_mapping   T        KV slot that each token is written to: block * block_size + offset
    context_lens   S        positions of each sequence in the KV cache after this step
    query_starts   S + 1    first token of each sequence; a sequence's tokens are contiguous
    output_rows    O        token row of each output
    sampling       O x 12   temperature f32 (0: greedy), top_p f32, min_p f32, top_k (0: off),
                            seed, repetition_penalty f32, frequency_penalty f32,
                            presence_penalty f32, 1 + num_logprobs (0: none wanted),
                            first_edit (word offset in the step), num_edits, 0
    block_tables   S x B    KV blocks of each sequence
    edits          E x 3    token id, bias f32, count; directly after the last block table in use
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from webllm.errors import ContextLengthError, DeviceError
from webllm.ops.program import BatchShape
from webllm.ops.sampling import EDIT_WORDS, GREEDY, SAMPLING_WORDS, SamplingParams

FROM_SAMPLED = 1 << 31  # flag of a token id
MAX_EDITS = 1 << 17  # in one step

_HEADER_WORDS = 4

assert array("I").itemsize == 4, sys.platform


def sampled_by(output: int) -> int:
    """Returns an id for the token that output `output` of the last step with outputs samples.

    Only the device knows that token while the step is in flight.
    """
    return FROM_SAMPLED | output


@dataclass(frozen=True, slots=True)
class StepSequence:
    """The part of a step that belongs to one sequence; its new tokens end at `context_len`."""

    token_ids: Sequence[int]  # array("I") packs fastest, also for the block table
    context_len: int  # positions filled after this step
    block_table: Sequence[int]
    outputs: Sequence[int]  # indices into token_ids of the tokens whose logits are wanted
    sampling: SamplingParams = GREEDY
    # [num_edits, EDIT_WORDS], one entry a token at most, made by `edit`; used for every output
    edits: array[int] = field(default_factory=lambda: array("I"))


@dataclass(frozen=True, slots=True)
class Step:
    """The sequences of one batch."""

    sequences: Sequence[StepSequence]
    is_plain: bool = field(init=False)  # whether no output has edits, penalties or logprobs

    def __post_init__(self) -> None:
        is_plain = all(not s.edits and s.sampling.is_plain for s in self.sequences)
        object.__setattr__(self, "is_plain", is_plain)

    @property
    def num_tokens(self) -> int:
        return sum([len(sequence.token_ids) for sequence in self.sequences])

    @property
    def num_outputs(self) -> int:
        return sum([len(sequence.outputs) for sequence in self.sequences])

    def without_sampling(self) -> Step:
        """Returns the same step with the logits left unedited, for the host to sample from."""
        plain = [replace(s, sampling=GREEDY, edits=array("I")) for s in self.sequences]
        return Step(plain)


@dataclass(frozen=True, slots=True)
class StepLayout:
    """Section offsets in words. `shape` is the largest batch, the same for all executables.

    `pack` refuses everything that exceeds these bounds, because kernels do not check again.
    """

    shape: BatchShape
    block_size: int
    num_blocks: int  # of the KV cache
    num_token_ids: int  # rows of the embedding table
    header: int = field(init=False, default=0)
    resample: int = field(init=False, default=3)
    token_ids: int = field(init=False)
    positions: int = field(init=False)
    seq_ids: int = field(init=False)
    slot_mapping: int = field(init=False)
    context_lens: int = field(init=False)
    query_starts: int = field(init=False)
    output_rows: int = field(init=False)
    sampling: int = field(init=False)
    block_tables: int = field(init=False)
    num_words: int = field(init=False)  # of the largest step

    def __post_init__(self) -> None:
        tokens, seqs, outputs = self.shape.max_tokens, self.shape.max_seqs, self.shape.max_outputs
        sizes = {
            "token_ids": tokens,
            "positions": tokens,
            "seq_ids": tokens,
            "slot_mapping": tokens,
            "context_lens": seqs,
            "query_starts": seqs + 1,
            "output_rows": outputs,
            "sampling": SAMPLING_WORDS * outputs,
            "block_tables": seqs * self.shape.max_blocks + EDIT_WORDS * MAX_EDITS,
        }
        end = _HEADER_WORDS
        for name, size in sizes.items():
            object.__setattr__(self, name, end)
            end += size
        object.__setattr__(self, "num_words", end)

    def pack(self, step: Step) -> array[int]:
        """Returns the step as words, up to the last that is used.

        Raises ContextLengthError for a position beyond the context window, DeviceError for
        anything else out of bounds.
        """
        return _Packer(self, step).words


class _Packer:
    def __init__(self, layout: StepLayout, step: Step) -> None:
        self.layout = layout
        num_seqs = len(step.sequences)
        if num_seqs > layout.shape.max_seqs:
            raise DeviceError(f"a step of {num_seqs} sequences; the device takes {layout.shape}")
        used = layout.block_tables + num_seqs * layout.shape.max_blocks
        self.words = array("I", bytes(4 * used))
        self.num_tokens = 0
        self.num_outputs = 0
        for seq_id, sequence in enumerate(step.sequences):
            self._add_tokens(seq_id, sequence)
            if sequence.outputs:
                self._add_outputs(sequence)
            self.num_tokens += len(sequence.token_ids)
        self.words[layout.query_starts + num_seqs] = self.num_tokens
        self.words[:3] = array("I", (self.num_tokens, num_seqs, self.num_outputs))
        if len(self.words) > used + EDIT_WORDS * MAX_EDITS:
            raise DeviceError(f"a step holds at most {MAX_EDITS} edits of logits: too many edits")

    def _add_tokens(self, seq_id: int, sequence: StepSequence) -> None:
        words, layout, row = self.words, self.layout, self.num_tokens
        count, end, num_blocks = (
            len(sequence.token_ids),
            sequence.context_len,
            len(sequence.block_table),
        )
        if not 0 < count <= end <= num_blocks * layout.block_size:
            raise DeviceError(f"{count} tokens end at position {end} of {num_blocks} blocks")
        if num_blocks > layout.shape.max_blocks:
            room = layout.shape.max_blocks * layout.block_size
            raise ContextLengthError(
                f"a sequence of {end} positions; the context window has {room}: shorten the prompt"
            )
        if row + count > layout.shape.max_tokens:
            raise DeviceError(f"{row + count} tokens in one step; the device takes {layout.shape}")
        if count == 1:
            block, offset = divmod(end - 1, layout.block_size)
            token_id, block_id = sequence.token_ids[0], sequence.block_table[block]
            if token_id >= layout.num_token_ids or block_id >= layout.num_blocks:
                self._check_ids(token_id, block_id)
            words[layout.token_ids + row] = token_id
            words[layout.positions + row] = end - 1
            words[layout.seq_ids + row] = seq_id
            words[layout.slot_mapping + row] = block_id * layout.block_size + offset
        else:
            self._check_ids(max(sequence.token_ids), max(sequence.block_table))
            self._put(layout.token_ids + row, sequence.token_ids)
            self._put(layout.positions + row, range(end - count, end))
            self._put(layout.seq_ids + row, array("I", (seq_id,)) * count)
            self._put(layout.slot_mapping + row, _slots(sequence, layout.block_size))
        words[layout.context_lens + seq_id] = end
        words[layout.query_starts + seq_id] = row
        self._put(layout.block_tables + seq_id * layout.shape.max_blocks, sequence.block_table)

    def _check_ids(self, token_id: int, block_id: int) -> None:
        """Raises DeviceError for ids out of range; the caller passes a sequence's largest.

        For a single token it passes the last block only: earlier steps have checked the others.
        """
        layout = self.layout
        if token_id >= layout.num_token_ids:
            output = token_id - FROM_SAMPLED
            if not 0 <= output < layout.shape.max_outputs:
                raise DeviceError(f"token id {token_id}; the model has {layout.num_token_ids}")
        if block_id >= layout.num_blocks:
            raise DeviceError(f"KV block {block_id}; there are {layout.num_blocks}")

    def _add_outputs(self, sequence: StepSequence) -> None:
        words, layout = self.words, self.layout
        outputs, count = sequence.outputs, len(sequence.token_ids)
        if self.num_outputs + len(outputs) > layout.shape.max_outputs:
            raise DeviceError(f"{len(outputs)} outputs more; the device takes {layout.shape}")
        sampling = array("I", sequence.sampling.packed)
        if sequence.edits:
            sampling.extend((len(words), len(sequence.edits) // EDIT_WORDS))
            words.extend(sequence.edits)
        for row in outputs:
            if not 0 <= row < count:
                raise DeviceError(f"output row {row} of {count} tokens")
            words[layout.output_rows + self.num_outputs] = self.num_tokens + row
            self._put(layout.sampling + SAMPLING_WORDS * self.num_outputs, sampling)
            self.num_outputs += 1

    def _put(self, at: int, values: Sequence[int]) -> None:
        self.words[at : at + len(values)] = array("I", values)


def _slots(sequence: StepSequence, block_size: int) -> array[int]:
    slots = array("I")
    end = sequence.context_len
    position = end - len(sequence.token_ids)
    while position < end:
        block, offset = divmod(position, block_size)
        count = min(block_size - offset, end - position)
        first = sequence.block_table[block] * block_size + offset
        slots.extend(range(first, first + count))
        position += count
    return slots
