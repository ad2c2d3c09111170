"""The step's words as kernels read them; `webllm.ops.step` describes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from webllm.backends.webgpu.device.protocol import Slice


class StepWords(Protocol):
    """First word of each section; `webllm.ops.step.StepLayout` has these."""

    @property
    def header(self) -> int: ...
    @property
    def token_ids(self) -> int: ...
    @property
    def positions(self) -> int: ...
    @property
    def seq_ids(self) -> int: ...
    @property
    def slot_mapping(self) -> int: ...
    @property
    def query_starts(self) -> int: ...
    @property
    def output_rows(self) -> int: ...
    @property
    def sampling(self) -> int: ...
    @property
    def block_tables(self) -> int: ...


@dataclass(frozen=True, slots=True)
class RowCount:
    """Rows of a value: at most `maximum`; word `word` of a step holds their number."""

    word: int
    maximum: int


@dataclass(frozen=True, slots=True)
class StepBuffer:
    """The step on the device, and its limits."""

    words: Slice
    layout: StepWords
    max_tokens: int
    max_seqs: int
    max_outputs: int
    max_blocks: int  # per sequence

    @property
    def tokens(self) -> RowCount:
        return RowCount(self.layout.header, self.max_tokens)

    @property
    def outputs(self) -> RowCount:
        return RowCount(self.layout.header + 2, self.max_outputs)
