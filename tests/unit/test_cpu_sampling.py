"""Compares sampling with the rule of docs/sampling.md, written out in float64."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cpu_cases import KERNELS, FakeCheckpoint, ProgramBuilder, Runner

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
from webllm.ops.program import BatchShape
from webllm.ops.sampling import IN_PROMPT, SamplingParams
from webllm.ops.step import Step, StepSequence, sampled_by

VOCAB = 512
MASK = 0xFFFFFFFF


class TableRunner(Runner):
    """A runner whose logits are the rows of its `table`."""

    table: np.ndarray


@pytest.fixture(scope="module", params=[name for name in KERNELS if name != "baseline"])
def runner(request: pytest.FixtureRequest) -> Iterator[TableRunner]:
    """Runs on each kind of kernels."""
    checkpoint = FakeCheckpoint()
    build = ProgramBuilder(checkpoint, VOCAB)
    table = checkpoint.floats("tensor.0")
    table = np.vstack([table[:20] * 3, np.round(table[20:] * 2)])  # the second half has ties
    checkpoint.bytes_of["tensor.0"] = table.astype("<f4").tobytes()
    limits = BatchShape(max_tokens=256, max_seqs=8, max_outputs=256, max_blocks=64)
    program = build.program(build.x)
    with TableRunner(KERNELS[request.param](), program, checkpoint, limits, 64) as runner:
        runner.table = table
        yield runner


def share(
    tokens: list[int], sampling: SamplingParams, edits: array[int] | None = None
) -> StepSequence:
    """A sequence whose tokens are all outputs; no op reads the KV cache, so blocks may overlap."""
    count = len(tokens)
    blocks = range(-(-count // 16))
    return StepSequence(tokens, count, blocks, range(count), sampling, edits or array("I"))


def step(tokens: list[int], sampling: SamplingParams, edits: array[int] | None = None) -> Step:
    return Step([share(tokens, sampling, edits)])


def pcg(value: int) -> int:
    state = (value * 747796405 + 2891336453) & MASK
    word = (((state >> ((state >> 28) + 4)) ^ state) * 277803737) & MASK
    return (word >> 22) ^ word


def gumbel(seed: int, position: int, token: int) -> float:
    u = (pcg((pcg(seed ^ pcg(position)) + token) & MASK) >> 8) * 2**-24 + 2**-25
    return -math.log(-math.log(u))


def kept(logits: np.ndarray, s: SamplingParams) -> np.ndarray:
    """Returns a mask of the tokens that may be drawn."""
    scaled = logits.astype(np.float32) / np.float32(s.temperature)
    keep = np.ones(len(scaled), bool)
    if s.top_k:
        keep &= scaled >= np.sort(scaled)[::-1][min(s.top_k, len(scaled)) - 1]
    p = np.exp(scaled.astype(np.float64) - scaled.max())
    if s.top_p < 1:
        values = np.unique(scaled[keep])[::-1]
        mass = np.cumsum([p[keep & (scaled == v)].sum() for v in values]) / p[keep].sum()
        keep &= scaled >= values[np.searchsorted(mass, s.top_p)]
    if s.min_p:
        keep &= p >= s.min_p
    return keep


def expected_token(logits: np.ndarray, s: SamplingParams, position: int) -> int:
    if s.temperature == 0:
        return int(logits.argmax())
    scaled = (logits.astype(np.float32) / np.float32(s.temperature)).astype(np.float64)
    noise = [gumbel(s.seed, position, i) for i in range(len(scaled))]
    return int(np.where(kept(logits, s), scaled + noise, -np.inf).argmax())


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(),
        SamplingParams(1.0, seed=7),
        SamplingParams(0.3, seed=1 << 31),
        SamplingParams(1.5, top_k=1),
        SamplingParams(1.0, top_k=5, seed=3),
        SamplingParams(1.0, top_k=100000, seed=3),
        SamplingParams(0.8, top_p=0.9, seed=4),
        SamplingParams(2.0, top_p=0.1, seed=5),
        SamplingParams(1.0, min_p=0.05, seed=6),
        SamplingParams(1.3, top_p=0.95, min_p=0.02, top_k=40, seed=8),
    ],
    ids=str,
)
def test_follows_the_rule(runner: TableRunner, sampling: SamplingParams) -> None:
    tokens = list(range(40))
    expected = [expected_token(runner.table[t], sampling, i) for i, t in enumerate(tokens)]
    assert list(runner.tokens(step(tokens, sampling))) == expected


def test_biases(runner: TableRunner) -> None:
    biases = edits_of((5, 100.0, 0), (6, 120.0, 0), (7, -100.0, 0))
    assert list(runner.tokens(step([1, 2], SamplingParams(), biases))) == [6, 6]
    masked = edits_of(*((i, -INF, 0) for i in range(VOCAB) if i != 77))
    for sampling in (SamplingParams(), SamplingParams(1.0), SamplingParams(1.0, 0.9, 0.1, 5)):
        assert list(runner.tokens(step([1, 2], sampling, masked))) == [77, 77]


def test_greedy_takes_the_first_of_equals(runner: TableRunner) -> None:
    logits = runner.table[30]
    assert (
        runner.tokens(step([30], SamplingParams()))[0] == np.flatnonzero(logits == logits.max())[0]
    )


@pytest.mark.parametrize("case", DISTRIBUTIONS)
def test_distribution(runner: TableRunner, case: str) -> None:
    sampling, edits = DISTRIBUTIONS[case]
    order = np.argsort(-runner.table[3])
    edits = edits_of(*((int(order[i]), bias, n) for i, bias, n in entries_of(edits)))
    counts = np.zeros(VOCAB)
    for seed in range(20):
        drawn = runner.tokens(step([3] * 256, seeded(sampling, seed), edits))
        counts += np.bincount(drawn, minlength=VOCAB)
    check_counts(counts, distribution(runner.table[3], sampling, entries_of(edits)))


def test_the_draw_ignores_the_batch(runner: TableRunner) -> None:
    sampling = SamplingParams(1.0, seed=11)
    together = runner.tokens(step(list(range(20)), sampling))
    last = Step([StepSequence([19], 20, [0, 1], [0], sampling)])
    assert runner.tokens(last)[0] == together[19]


def check_step(runner: TableRunner, step: Step, known: list[int | None]) -> None:
    """Compares a step with numpy; `known`: for each output, its row's token if it is chained."""
    sampled = runner.sampled(step)
    outputs = [(sequence, row) for sequence in step.sequences for row in sequence.outputs]
    for i, (sequence, row) in enumerate(outputs):
        token_id = sequence.token_ids[row] if known[i] is None else known[i]
        position = sequence.context_len - len(sequence.token_ids) + row
        token, logprobs = expected(runner.table[token_id], sequence, position, known[i])
        assert sampled.token_ids[i] == token
        check_logprobs(sampled.logprobs[i], logprobs)


EDITS = edits_of(
    (3, 100.0, 2), (4, -100.0, IN_PROMPT | 5), (5, -INF, 1), (200, 2.5, IN_PROMPT), (511, 0.0, 9)
)


@pytest.mark.parametrize("temperature", [0.0, 1.2])
@pytest.mark.parametrize("num_logprobs", [None, 0, 5, 20])
def test_edits_and_logprobs(
    runner: TableRunner, temperature: float, num_logprobs: int | None
) -> None:
    def sampling(**penalties: Any) -> SamplingParams:
        return SamplingParams(temperature, 0.95, seed=9, num_logprobs=num_logprobs, **penalties)

    every = {"repetition_penalty": 1.3, "frequency_penalty": -0.5, "presence_penalty": 0.25}
    shares = [
        share([4, 25], sampling(), EDITS),
        share([5], sampling(repetition_penalty=0.7), EDITS),
        share([6], SamplingParams(temperature, seed=2)),
        share([7], sampling(frequency_penalty=0.4), EDITS),
        share([8, 30], sampling(**every), EDITS),
    ]
    check_step(runner, Step(shares), [None] * 7)


def test_chained_tokens(runner: TableRunner) -> None:
    """Chained tokens are embedded and penalized as generated, with or without an edit."""
    forced = [17, 3, 25]
    first = [share([1], SamplingParams(), edits_of((t, 1000.0, 0))) for t in forced]
    assert list(runner.tokens(Step(first))) == forced
    prompt = share([1, 2], SamplingParams())
    runner.tokens(Step([StepSequence(prompt.token_ids, 2, prompt.block_table, [])]))  # no outputs
    entry = edits_of((9, 0.5, 1), (17, 0.0, 2), (3, 1.0, IN_PROMPT))
    chained = [
        StepSequence([sampled_by(2)], 5, [0], [0], PENALTIES),
        StepSequence([4], 5, [0], [0], PENALTIES, entry),
        StepSequence([sampled_by(0)], 5, [0], [0], PENALTIES, entry),
        StepSequence([11, sampled_by(1)], 6, [0], [0, 1], PENALTIES, entry),
        StepSequence([sampled_by(2)], 5, [0], [0], seeded(SamplingParams(1.0), 5)),
    ]
    check_step(runner, Step(chained), [25, None, 17, None, 3, 25])


def test_resampling(runner: TableRunner) -> None:
    """Samples the host's logits with edits; later steps can refer to the sampled tokens."""
    sampling = SamplingParams(0.7, seed=3, num_logprobs=3, presence_penalty=2.0)
    given = np.random.default_rng(4).normal(0, 2, (3, VOCAB)).astype(np.float32)
    given[1, 12] = 500.0
    shares = Step([share([4, 25], sampling, EDITS), share([5], sampling)])
    runner.tokens(shares.without_sampling())
    sampled = runner.resampled(shares, given)
    rows = [(shares.sequences[0], 0), (shares.sequences[0], 1), (shares.sequences[1], 0)]
    for i, (sequence, position) in enumerate(rows):
        token, logprobs = expected(given[i], sequence, position)
        assert sampled.token_ids[i] == token
        check_logprobs(sampled.logprobs[i], logprobs)
    check_step(runner, Step([StepSequence([sampled_by(1)], 3, [0], [0], PENALTIES)]), [12])
