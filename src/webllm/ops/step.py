"""The small buffer that changes from step to step: one array of 32-bit words.

Both backends read this very layout; kernels get the section offsets as constants. Sections, in
words (T, S, O, B = the largest batch's tokens, seqs, outputs, blocks):

    header         4        num_tokens, num_seqs, num_outputs, num_biases
    flags          4        chained, 0, 0, 0
    token_ids      T        ignored where chained: row t then takes the device's sampled[t]
    positions      T        position of each token in its sequence
    seq_ids        T        row of each token's sequence below
    slots          T        KV slot it is written to: block * block_size + offset
    context_lens   S        positions in the KV cache after this step
    query_starts   S + 1    first token of each sequence; a sequence's tokens are contiguous
    output_rows    O        token row of each output
    sampling       O x 8    temperature f32 (0: greedy), top_p f32, min_p f32, top_k (0: off),
                            seed, 0, 0, 0
    block_tables   S x B    KV blocks of each sequence
    biases         1024 x 3 output row, token id, value f32 (logit_bias); must stay last
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from struct import Struct

from webllm.ops.program import BatchShape

SAMPLING_WORDS = 8
MAX_BIASES = 1024

_SAMPLING = Struct("=fffII12x")
_BIAS = Struct("=IIf")

assert array("I").itemsize == 4, sys.platform


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one output row is drawn; see `webllm.sampling`."""

    temperature: float = 0.0
    top_p: float = 1.0
    min_p: float = 0.0
    top_k: int = 0
    seed: int = 0  # 32 bits


@dataclass(frozen=True, slots=True)
class StepSequence:
    """One sequence's share of a step; its new tokens end at `context_len`."""

    token_ids: Sequence[int]
    context_len: int  # positions filled after this step, this step's tokens included
    blocks: Sequence[int]
    outputs: Sequence[int]  # rows within token_ids whose logits are wanted
    sampling: Sampling = Sampling()
    biases: Sequence[tuple[int, float]] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One batch. `chained`: the tokens are the ones the previous step sampled, row by row."""

    sequences: Sequence[StepSequence]
    chained: bool = False

    @property
    def num_tokens(self) -> int:
        return sum(len(sequence.token_ids) for sequence in self.sequences)

    @property
    def num_outputs(self) -> int:
        return sum(len(sequence.outputs) for sequence in self.sequences)


@dataclass(frozen=True, slots=True)
class StepLayout:
    """Section offsets, in words; `shape` is the largest batch, the same for all executables."""

    shape: BatchShape
    block_size: int
    header: int = field(default=0, init=False)
    flags: int = field(default=4, init=False)
    token_ids: int = field(default=8, init=False)

    @property
    def positions(self) -> int:
        return self.token_ids + self.shape.max_tokens

    @property
    def seq_ids(self) -> int:
        return self.positions + self.shape.max_tokens

    @property
    def slots(self) -> int:
        return self.seq_ids + self.shape.max_tokens

    @property
    def context_lens(self) -> int:
        return self.slots + self.shape.max_tokens

    @property
    def query_starts(self) -> int:
        return self.context_lens + self.shape.max_seqs

    @property
    def output_rows(self) -> int:
        return self.query_starts + self.shape.max_seqs + 1

    @property
    def sampling(self) -> int:
        return self.output_rows + self.shape.max_outputs

    @property
    def block_tables(self) -> int:
        return self.sampling + SAMPLING_WORDS * self.shape.max_outputs

    @property
    def biases(self) -> int:
        return self.block_tables + self.shape.max_seqs * self.shape.max_blocks

    @property
    def num_words(self) -> int:
        return self.biases + 3 * MAX_BIASES

    def pack(self, step: Step) -> array[int]:
        """The step as words, cut after what is used."""
        return _Packer(self).pack(step)


class _Packer:
    def __init__(self, layout: StepLayout) -> None:
        self.layout = layout
        self.words = array("I", bytes(4 * layout.biases))
        self.biases = bytearray()
        self.num_tokens = 0
        self.num_outputs = 0

    def pack(self, step: Step) -> array[int]:
        for seq_id, sequence in enumerate(step.sequences):
            self._add_tokens(seq_id, sequence)
            self._add_outputs(sequence)
            self.num_tokens += len(sequence.token_ids)
        words, layout = self.words, self.layout
        words[layout.query_starts + len(step.sequences)] = self.num_tokens
        num_biases = len(self.biases) // _BIAS.size
        words[0:4] = array(
            "I", (self.num_tokens, len(step.sequences), self.num_outputs, num_biases)
        )
        words[layout.flags] = step.chained
        if self.biases:
            words.frombytes(bytes(self.biases))
            return words
        return words[: layout.block_tables + len(step.sequences) * layout.shape.max_blocks]

    def _add_tokens(self, seq_id: int, sequence: StepSequence) -> None:
        words, layout, row, count = (
            self.words,
            self.layout,
            self.num_tokens,
            len(sequence.token_ids),
        )
        first = sequence.context_len - count
        size = layout.block_size
        words[layout.token_ids + row : layout.token_ids + row + count] = array(
            "I", sequence.token_ids
        )
        for i in range(count):
            position = first + i
            words[layout.positions + row + i] = position
            words[layout.seq_ids + row + i] = seq_id
            words[layout.slots + row + i] = (
                sequence.blocks[position // size] * size + position % size
            )
        words[layout.context_lens + seq_id] = sequence.context_len
        words[layout.query_starts + seq_id] = row
        table = layout.block_tables + seq_id * layout.shape.max_blocks
        words[table : table + len(sequence.blocks)] = array("I", sequence.blocks)

    def _add_outputs(self, sequence: StepSequence) -> None:
        words, layout, s = self.words, self.layout, sequence.sampling
        packed = array("I", _SAMPLING.pack(s.temperature, s.top_p, s.min_p, s.top_k, s.seed))
        for row in sequence.outputs:
            output = self.num_outputs
            words[layout.output_rows + output] = self.num_tokens + row
            at = layout.sampling + SAMPLING_WORDS * output
            words[at : at + SAMPLING_WORDS] = packed
            for token_id, value in sequence.biases:
                self.biases += _BIAS.pack(output, token_id, value)
            self.num_outputs += 1
