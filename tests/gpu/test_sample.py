"""Sampling against the rule in numpy, exactly, and against the exact distribution."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from kernel_case import POISON, Array, Bench, variant_of, variants

from sampling_cases import (
    DISTRIBUTIONS,
    INF,
    PENALTIES,
    check_counts,
    check_logprobs,
    distribution,
    edits_of,
    entries_of,
    expected,
    seeded,
)
from webllm.backends.webgpu.device.protocol import Device
from webllm.backends.webgpu.kernels.sample import SampleScratch, sample, sample_scratch_bytes
from webllm.backends.webgpu.kernels.variant import KernelVariant
from webllm.ops.program import BatchShape
from webllm.ops.sampled import Sampled, SampledLayout
from webllm.ops.sampling import IN_PROMPT, SamplingParams
from webllm.ops.step import Step, StepSequence, sampled_by

# One vocabulary and shape for most tests: kernels are compiled for each.
VOCAB = 4500
MAX_ROWS = 256
SHAPE = BatchShape(MAX_ROWS, MAX_ROWS, MAX_ROWS, 1)
LAYOUT = SampledLayout(MAX_ROWS)
CONTEXT = 11


def shares(
    samplings: Sequence[SamplingParams], edits: Sequence[array[int]] | None = None
) -> list[StepSequence]:
    """Returns one row per sequence, each at position CONTEXT - 1."""
    return [
        StepSequence([1], CONTEXT, [0], [0], sampling, *(edits[i : i + 1] if edits else ()))
        for i, sampling in enumerate(samplings)
    ]


def draw(
    device: Device,
    variant: KernelVariant,
    logits: Array,
    sequences: Sequence[StepSequence],
    before: Sequence[int] = (),
) -> Sampled:
    """Returns the tokens that the rows sample; `before`: those of the previous step."""
    bench = Bench(device)
    rows, vocab = logits.shape
    given = Step(sequences)
    step = bench.step(given, SHAPE)
    sizes = sample_scratch_bytes(variant, vocab, MAX_ROWS)
    scratch = SampleScratch(*(bench.poisoned(size) for size in sizes))
    words = np.full(LAYOUT.num_bytes(MAX_ROWS) // 4, POISON, np.uint32)
    words[: len(before)] = before
    sampled = bench.upload(words)
    dispatches = sample(
        device, variant, step=step, logits=bench.upload(logits), vocab=vocab, scratch=scratch,
        sampled=sampled, first_logprobs=LAYOUT.logprobs, is_plain=given.is_plain,
    )  # fmt: skip
    bench.run(dispatches)
    left = bench.read(sampled, np.uint32)
    asked = [row for row, s in enumerate(sequences) if s.sampling.num_logprobs is not None]
    first = max(rows, len(before))
    assert (left[first:MAX_ROWS] == POISON).all(), "a token more than asked for"
    others = np.delete(left[MAX_ROWS:][: 41 * MAX_ROWS].reshape(MAX_ROWS, 41), asked, axis=0)
    assert (others == POISON).all(), "logprobs nobody asked for"
    return LAYOUT.read(left.tobytes(), given)


def check(
    device: Device,
    logits: Array,
    sequences: Sequence[StepSequence],
    chosen: Sequence[KernelVariant] | None = None,
    before: Sequence[int] = (),
    known: Sequence[int | None] | None = None,
) -> None:
    """Compares with numpy; `known`: the input tokens of chained rows."""
    known = known or [None] * len(logits)
    want = [
        expected(row, sequence, CONTEXT - 1, token)
        for row, sequence, token in zip(logits, sequences, known, strict=True)
    ]
    for variant in chosen or variants(device):
        got = draw(device, variant, logits, sequences, before)
        np.testing.assert_array_equal(got.token_ids, [token for token, _ in want])
        for mine, (_, logprobs) in zip(got.logprobs, want, strict=True):
            check_logprobs(mine, logprobs)


def test_greedy_takes_the_lowest_of_equals(device: Device) -> None:
    random = np.random.default_rng(1)
    logits = random.integers(-5, 5, (5, VOCAB)).astype(np.float32)
    logits[3] = -np.inf
    logits[3, VOCAB // 2] = -1e30
    logits[4] = -2.0
    check(device, logits, shares([SamplingParams()] * 5))


@pytest.mark.parametrize("spread", [0.1, 1.0, 2.5, 8.0])
def test_random_parameters(device: Device, spread: float) -> None:
    random = np.random.default_rng(int(10 * spread))
    rows = 32
    logits = random.normal(0, spread, (rows, VOCAB)).astype(np.float32)
    samplings = [
        SamplingParams(
            temperature=float(random.choice([0.0, 0.3, 0.7, 1.0, 2.0])),
            top_p=float(random.choice([1.0, 0.95, 0.5, 0.05, 0.0])),
            min_p=float(random.choice([0.0, 0.0, 0.1, 0.5])),
            top_k=int(random.choice([0, 0, 1, 5, 40, 2000, VOCAB])),
            seed=int(random.integers(2**32)),
        )
        for _ in range(rows)
    ]
    check(device, logits, shares(samplings))


def test_ties_at_the_threshold_are_all_kept(device: Device) -> None:
    random = np.random.default_rng(3)
    logits = random.integers(-3, 4, (12, VOCAB)).astype(np.float32)  # more than candidates fit
    samplings = [
        SamplingParams(1.0, top_k=k, seed=s) for k in (1, 7, 700, VOCAB - 1) for s in (1, 2)
    ]
    samplings += [SamplingParams(1.0, top_p=p, seed=9) for p in (0.1, 0.3, 0.6, 0.9)]
    check(device, logits, shares(samplings))


def test_masked_logits(device: Device) -> None:
    logits = np.full((4, VOCAB), -np.inf, np.float32)
    logits[:, [7, 1500, 2999]] = [1.0, 0.5, 0.75]
    logits[1, 100:] = -1e30
    logits[3, :] = -50.0
    samplings = [
        SamplingParams(1.0, 0.9, seed=4),
        SamplingParams(1.0, 0.9, top_k=50),
        SamplingParams(1.0, top_k=2),
    ]
    check(device, logits, shares([*samplings, SamplingParams(1.0, 0.5, seed=2)]))


EDITS = edits_of(
    (4499, 100.0, 2),
    (4, -100.0, IN_PROMPT | 5),
    (5, -INF, 1),
    *((i, 0.5 if i % 3 else 2.5, IN_PROMPT * (i % 2) + i % 5) for i in range(6, 3000, 7)),
)


def test_biases(device: Device) -> None:
    random = np.random.default_rng(8)
    logits = random.normal(0, 1, (4, VOCAB)).astype(np.float32)
    edits = [
        edits_of((4499, 11.0, 0), (5, 3.0, 0)),
        edits_of(),
        edits_of((0, -100.0, 0), (17, 20.0, 0)),
        edits_of(*((i, -INF, 0) for i in range(VOCAB) if i != 1234)),
    ]
    samplings = [
        SamplingParams(),
        SamplingParams(1.0, seed=3),
        SamplingParams(0.5, seed=1),
        SamplingParams(1.0, 0.5),
    ]
    check(device, logits, shares(samplings, edits))


@pytest.mark.parametrize("num_logprobs", [None, 0, 5, 20])
def test_edits_and_logprobs(device: Device, num_logprobs: int | None) -> None:
    random = np.random.default_rng(9)
    logits = random.normal(0, 2, (12, VOCAB)).astype(np.float32)
    logits[3] = np.round(logits[3])  # ties among the likeliest
    logits[4, 3:] = -np.inf
    penalties: list[dict[str, Any]] = [{}, {"repetition_penalty": 1.3}, {"frequency_penalty": 0.4},
                 {"presence_penalty": -0.7}, {"repetition_penalty": 0.8, "presence_penalty": 1.0},
                 {"repetition_penalty": 1.2, "frequency_penalty": -0.3}]  # fmt: skip
    samplings = [
        SamplingParams(temperature, 0.95, seed=row, num_logprobs=num_logprobs, **each)
        for temperature in (0.0, 1.1)
        for row, each in enumerate(penalties)
    ]
    samplings[2] = SamplingParams()
    edits = [EDITS] * 12
    edits[4] = edits_of()
    check(device, logits, shares(samplings, edits))


def test_chained_tokens_are_penalized(device: Device) -> None:
    """They count as generated once more than their entries say, if they have any."""
    logits = np.random.default_rng(10).normal(0, 1, (6, VOCAB)).astype(np.float32)
    before = [7, 13, 4499]
    inputs = [2, None, 0, 1, 2, 0]  # outputs of the step before
    logits[range(6), [before[i or 0] for i in inputs]] = 6.0
    entry = edits_of((7, 0.5, 1), (13, 0.0, IN_PROMPT), (9, 1.0, 2))
    penalties = SamplingParams(0.8, 0.9, seed=4, repetition_penalty=1.1, presence_penalty=5.5)
    samplings = [PENALTIES, PENALTIES, penalties, PENALTIES, penalties, SamplingParams(1.0, seed=1)]
    sequences = [
        StepSequence(
            [7 if of is None else sampled_by(of)], CONTEXT, [0], [0], samplings[row],
            entry if row % 2 == 0 else edits_of(),
        )
        for row, of in enumerate(inputs)
    ]  # fmt: skip
    known = [None if of is None else before[of] for of in inputs]
    check(device, logits, sequences, before=before, known=known)


@pytest.mark.parametrize("case", DISTRIBUTIONS)
def test_distribution(device: Device, case: str) -> None:
    """1024 draws from 12 unmasked tokens follow the exact distribution."""
    sampling, edits = DISTRIBUTIONS[case]
    possible = np.linspace(0, VOCAB - 1, 12).astype(int)
    logits = np.full(VOCAB, -1e30, np.float32)
    logits[possible] = np.sort(np.random.default_rng(2).normal(0, 1.5, 12))[::-1]
    edits = edits_of(*((int(possible[i]), bias, n) for i, bias, n in entries_of(edits)))
    counts = np.zeros(VOCAB)
    for turn in range(4):
        samplings = [seeded(sampling, MAX_ROWS * turn + row) for row in range(MAX_ROWS)]
        rows = shares(samplings, [edits] * MAX_ROWS)
        drawn = draw(device, variant_of(device, "workgroup"), np.tile(logits, (MAX_ROWS, 1)), rows)
        counts += np.bincount(drawn.token_ids, minlength=VOCAB)
    check_counts(counts, distribution(logits, sampling, entries_of(edits)))


@pytest.mark.parametrize("name", ["workgroup", "scalar"])
def test_large_vocabulary(device: Device, name: str) -> None:
    """There are more edits than the loop iterations that lavapipe allows a thread."""
    random = np.random.default_rng(6)
    logits = random.normal(0, 3, (5, 262144)).astype(np.float32)
    samplings = [SamplingParams(), SamplingParams(0.8, 0.95, 0.02, 64, 5), SamplingParams(1.0, 0.9)]
    samplings += [
        SamplingParams(num_logprobs=20),
        SamplingParams(1.0, num_logprobs=20, presence_penalty=0.3),
    ]
    edits = [edits_of()] * 4 + [edits_of(*((i, -0.1, i % 4 // 2) for i in range(0, 262144, 2)))]
    check(device, logits, shares(samplings, edits), chosen=[variant_of(device, name)])
