"""The step buffer's words."""

from __future__ import annotations

import struct

from webllm.ops.program import BatchShape
from webllm.ops.step import SAMPLING_WORDS, Sampling, Step, StepLayout, StepSequence

LAYOUT = StepLayout(BatchShape(max_tokens=8, max_seqs=4, max_outputs=4, max_blocks=3), 16)


def floats(words: list[int]) -> list[float]:
    return list(struct.unpack(f"={len(words)}f", struct.pack(f"={len(words)}I", *words)))


def test_two_sequences() -> None:
    sampling = Sampling(temperature=0.5, top_p=0.25, min_p=0.125, top_k=7, seed=0xFFFFFFFF)
    step = Step(
        (
            StepSequence([5, 6, 7], 18, [9, 4], [2]),
            StepSequence([8], 1, [2], [0], sampling, ((11, -1.5), (12, 2.0))),
        )
    )
    words = list(LAYOUT.pack(step))
    section = lambda start, count: words[start : start + count]  # noqa: E731
    assert section(LAYOUT.header, 8) == [4, 2, 2, 2, 0, 0, 0, 0]
    assert section(LAYOUT.token_ids, 4) == [5, 6, 7, 8]
    assert section(LAYOUT.positions, 4) == [15, 16, 17, 0]
    assert section(LAYOUT.seq_ids, 4) == [0, 0, 0, 1]
    assert section(LAYOUT.slots, 4) == [9 * 16 + 15, 4 * 16, 4 * 16 + 1, 2 * 16]
    assert section(LAYOUT.context_lens, 2) == [18, 1]
    assert section(LAYOUT.query_starts, 3) == [0, 3, 4]
    assert section(LAYOUT.output_rows, 2) == [2, 3]
    assert section(LAYOUT.block_tables, 6) == [9, 4, 0, 2, 0, 0]
    second = section(LAYOUT.sampling + SAMPLING_WORDS, SAMPLING_WORDS)
    assert floats(second[:3]) == [0.5, 0.25, 0.125]
    assert second[3:5] == [7, 0xFFFFFFFF]
    biases = words[LAYOUT.biases :]
    assert (biases[:2], biases[3:5]) == ([1, 11], [1, 12])
    assert floats([biases[2], biases[5]]) == [-1.5, 2.0]


def test_chained_flag() -> None:
    words = LAYOUT.pack(Step((StepSequence([0], 4, [1], [0]),), chained=True))
    assert words[LAYOUT.flags] == 1
    assert len(words) == LAYOUT.block_tables + LAYOUT.shape.max_blocks
