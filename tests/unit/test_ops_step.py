"""The words that a step is packed into, and the steps that are refused."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from itertools import chain

import pytest

from webllm.errors import ContextLengthError, DeviceError, RequestError
from webllm.ops.program import BatchShape
from webllm.ops.sampling import (
    EDIT_WORDS,
    IN_PROMPT,
    MAX_LOGPROBS,
    SAMPLING_WORDS,
    SamplingParams,
    edit,
)
from webllm.ops.step import MAX_EDITS, Step, StepLayout, StepSequence, sampled_by

LAYOUT = StepLayout(
    BatchShape(max_tokens=64, max_seqs=4, max_outputs=4, max_blocks=3),
    block_size=16,
    num_blocks=13,
    num_token_ids=100,
)


def floats(words: Sequence[int]) -> list[float]:
    return list(struct.unpack(f"={len(words)}f", struct.pack(f"={len(words)}I", *words)))


def test_three_sequences() -> None:
    sampling = SamplingParams(0.5, 0.25, 0.125, 7, 0xFFFFFFFF, 1.5, 0.75, -2.0, 0)
    edits = edit(11, -1.5) + edit(12, 2.0, 3 | IN_PROMPT)
    step = Step(
        (
            StepSequence([5, 6, 7], 18, [9, 4], [2]),
            StepSequence([8], 1, [2], [0], sampling, edits),
            StepSequence([1, sampled_by(1)], 4, array("I", [5]), [0, 1], sampling, edits),
        )
    )
    words = list(LAYOUT.pack(step))

    def section(start: int, count: int) -> list[int]:
        return words[start : start + count]

    assert section(LAYOUT.header, 4) == [6, 3, 4, 0]
    assert section(LAYOUT.token_ids, 6) == [5, 6, 7, 8, 1, (1 << 31) + 1]
    assert section(LAYOUT.positions, 6) == [15, 16, 17, 0, 2, 3]
    assert section(LAYOUT.seq_ids, 6) == [0, 0, 0, 1, 2, 2]
    assert section(LAYOUT.slot_mapping, 6) == [9 * 16 + 15, 4 * 16, 4 * 16 + 1, 2 * 16, 82, 83]
    assert section(LAYOUT.context_lens, 3) == [18, 1, 4]
    assert section(LAYOUT.query_starts, 4) == [0, 3, 4, 6]
    assert section(LAYOUT.output_rows, 4) == [2, 3, 4, 5]
    assert section(LAYOUT.block_tables, 9) == [9, 4, 0, 2, 0, 0, 5, 0, 0]
    first, second, third, fourth = (
        section(LAYOUT.sampling + SAMPLING_WORDS * output, SAMPLING_WORDS) for output in range(4)
    )
    assert floats(first[:3]) == [0, 1, 0]
    assert (floats(first[5:8]), first[8:]) == ([1, 0, 0], [0, 0, 0, 0])
    assert floats(second[:3]) == [0.5, 0.25, 0.125]
    assert second[3:5] == [7, 0xFFFFFFFF]
    assert floats(second[5:8]) == [1.5, 0.75, -2]
    end = LAYOUT.block_tables + 3 * LAYOUT.shape.max_blocks
    assert second[8:] == [1, end, 2, 0]
    assert third == fourth == [*second[:9], end + 2 * EDIT_WORDS, 2, 0]
    assert words[end:] == list(edits + edits)
    assert (edits[0], floats(edits[1:2]), edits[2]) == (11, [-1.5], 0)
    assert (edits[3], floats(edits[4:5]), edits[5]) == (12, [2.0], (1 << 31) + 3)


def test_a_chunk_of_a_prompt() -> None:
    """A chunk's slots follow the block table; the words end with it."""
    blocks = [7, 3, 12]
    for first, end in ((0, 48), (5, 16), (15, 17), (16, 32), (3, 44), (47, 48)):
        sequence = StepSequence(range(first, end), end, blocks, ())
        words = LAYOUT.pack(Step((sequence,)))
        want = [blocks[p // 16] * 16 + p % 16 for p in range(first, end)]
        assert list(words[LAYOUT.slot_mapping : LAYOUT.slot_mapping + end - first]) == want
        positions = words[LAYOUT.positions : LAYOUT.positions + end - first]
        assert list(positions) == list(range(first, end))
        assert len(words) == LAYOUT.block_tables + LAYOUT.shape.max_blocks


def test_what_a_step_holds_at_most() -> None:
    half = array("I", chain.from_iterable(edit(i) for i in range(MAX_EDITS // 4))) * 2
    shares = [StepSequence([1], 1, [0, 1, 2], (0,), SamplingParams(), half)] * 2
    full = Step((*shares, *[StepSequence([1], 1, [0, 1, 2], (0,))] * 2))
    assert len(LAYOUT.pack(full)) == LAYOUT.num_words
    with pytest.raises(DeviceError, match="too many edits"):
        LAYOUT.pack(Step((*shares, StepSequence([1], 1, [0], (0,), SamplingParams(), edit(1)))))


def test_plain_steps() -> None:
    assert Step((StepSequence([1], 1, [0], (0,), SamplingParams(0.7, 0.9, 0.1, 40, 3)),)).is_plain
    for sampling in (
        SamplingParams(repetition_penalty=1.1),
        SamplingParams(frequency_penalty=0.1),
        SamplingParams(presence_penalty=0.1),
        SamplingParams(num_logprobs=0),
    ):
        step = Step((StepSequence([1], 1, [0], (0,), sampling),))
        assert not step.is_plain
        assert step.without_sampling().is_plain
    edited = Step((StepSequence([1], 1, [0], (0,), SamplingParams(), edit(1)),))
    assert not edited.is_plain
    assert edited.without_sampling().is_plain


def test_a_position_beyond_the_context_window() -> None:
    """Block table and rotary tables end at the context window."""
    LAYOUT.pack(Step((StepSequence([1], 48, [0, 1, 2], (0,)),)))
    for sequence in (
        StepSequence([1], 49, [0, 1, 2, 3], (0,)),
        StepSequence([1] * 20, 60, [0, 1, 2, 3], (19,)),
        StepSequence(
            [1], 16, [0, 1, 2, 3], (0,)
        ),  # more blocks than a row of the block table holds
    ):
        with pytest.raises(ContextLengthError, match="the context window has 48"):
            LAYOUT.pack(Step((sequence,)))


ONE = StepSequence([1], 1, [0], (0,))
MISFITS = {
    "no tokens": [StepSequence([], 1, [0], ())],
    "before the start": [StepSequence([1, 2], 1, [0], ())],
    "no block": [StepSequence([1], 17, [0], ())],
    "token id": [StepSequence([100], 1, [0], ())],
    "token id of a prompt": [StepSequence([1, 100, 2], 3, [0], ())],
    "output sampled before": [StepSequence([sampled_by(4)], 1, [0], ())],
    "block": [StepSequence([1], 1, [13], ())],
    "block of a prompt": [StepSequence([1, 2], 2, [3, 13], ())],
    "tokens": [StepSequence([1] * 40, 40, [0, 1, 2], ())] * 2,
    "sequences": [ONE] * 5,
    "outputs": [StepSequence([1] * 5, 5, [0], range(5))],
    "output row": [StepSequence([1, 2], 2, [0], (2,))],
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_what_does_not_fit_is_refused(misfit: str) -> None:
    with pytest.raises(DeviceError):
        LAYOUT.pack(Step(MISFITS[misfit]))


@pytest.mark.parametrize("num_logprobs", [-1, MAX_LOGPROBS + 1, 2**32])
def test_more_logprobs_than_a_row_holds(num_logprobs: int) -> None:
    with pytest.raises(RequestError, match="at most 20"):
        SamplingParams(num_logprobs=num_logprobs)
