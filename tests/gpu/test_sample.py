"""Sampling against the rule in numpy, exactly; and its distribution."""

from dataclasses import replace

import numpy as np
import pytest
from kernel_case import Bench, targets

from webllm.kernels.sample import SampleScratch, sample, sample_scratch_bytes
from webllm.ops import reference
from webllm.ops.program import BatchShape
from webllm.ops.step import Sampling, Step, StepSequence

# One vocabulary and shape for most tests: kernels are compiled for each.
VOCAB = 4500
MAX_ROWS = 256
SHAPE = BatchShape(MAX_ROWS, MAX_ROWS, MAX_ROWS, 1)
CONTEXT = 11


def draw(device, target, logits, samplings, biases=None):
    """A token for each row; all of them sit at position CONTEXT - 1."""
    bench = Bench(device)
    rows, vocab = logits.shape
    sequences = [
        StepSequence([1], CONTEXT, [0], [0], sampling, biases[row] if biases else ())
        for row, sampling in enumerate(samplings)
    ]
    step = bench.step(Step(sequences), SHAPE)
    sizes = sample_scratch_bytes(target, vocab, MAX_ROWS)
    scratch = SampleScratch(*(bench.poisoned(size) for size in sizes))
    sampled = bench.poisoned(4 * rows)
    dispatches = sample(
        device, target, step=step, logits=bench.upload(logits), vocab=vocab, scratch=scratch,
        sampled=sampled,
    )  # fmt: skip
    bench.run(dispatches)
    return bench.written(sampled, 4 * rows)


def check(device, logits, samplings, biases=None, forms=None):
    want = [
        reference.sample(row, sampling, CONTEXT - 1, biases[i] if biases else ())
        for i, (row, sampling) in enumerate(zip(logits, samplings, strict=True))
    ]
    for target in forms or targets(device):
        np.testing.assert_array_equal(draw(device, target, logits, samplings, biases), want)


def test_greedy_takes_the_lowest_of_equals(device):
    random = np.random.default_rng(1)
    logits = random.integers(-5, 5, (5, VOCAB)).astype(np.float32)
    logits[3] = -np.inf
    logits[3, VOCAB // 2] = -1e30
    logits[4] = -2.0
    check(device, logits, [Sampling()] * 5)


@pytest.mark.parametrize("spread", [0.1, 1.0, 2.5, 8.0])
def test_random_parameters(device, spread):
    random = np.random.default_rng(int(10 * spread))
    rows = 32
    logits = random.normal(0, spread, (rows, VOCAB)).astype(np.float32)
    samplings = [
        Sampling(
            temperature=float(random.choice([0.0, 0.3, 0.7, 1.0, 2.0])),
            top_p=float(random.choice([1.0, 0.95, 0.5, 0.05, 0.0])),
            min_p=float(random.choice([0.0, 0.0, 0.1, 0.5])),
            top_k=int(random.choice([0, 0, 1, 5, 40, 2000, VOCAB])),
            seed=int(random.integers(2**32)),
        )
        for _ in range(rows)
    ]
    check(device, logits, samplings)


def test_ties_at_the_threshold_are_all_kept(device):
    random = np.random.default_rng(3)
    logits = random.integers(-3, 4, (12, VOCAB)).astype(np.float32)  # more than candidates fit
    samplings = [Sampling(1.0, top_k=k, seed=s) for k in (1, 7, 700, VOCAB - 1) for s in (1, 2)]
    samplings += [Sampling(1.0, top_p=p, seed=9) for p in (0.1, 0.3, 0.6, 0.9)]
    check(device, logits, samplings)


def test_masked_logits(device):
    logits = np.full((4, VOCAB), -np.inf, np.float32)
    logits[:, [7, 1500, 2999]] = [1.0, 0.5, 0.75]
    logits[1, 100:] = -1e30
    logits[3, :] = -50.0
    samplings = [Sampling(1.0, 0.9, seed=4), Sampling(1.0, 0.9, top_k=50), Sampling(1.0, top_k=2)]
    check(device, logits, [*samplings, Sampling(1.0, 0.5, seed=2)])


def test_biases(device):
    random = np.random.default_rng(8)
    logits = random.normal(0, 1, (3, VOCAB)).astype(np.float32)
    biases = [
        [(4499, 9.0), (5, 3.0), (4499, 2.0)],
        [],
        [(0, 100.0), (0, -100.0), (17, 20.0)],
    ]
    check(device, logits, [Sampling(), Sampling(1.0, seed=3), Sampling(0.5, seed=1)], biases)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(1.0),
        Sampling(0.6),
        Sampling(1.5, top_p=0.8),
        Sampling(1.0, top_k=4),
        Sampling(1.0, min_p=0.2),
    ],
    ids=["plain", "cold", "top_p", "top_k", "min_p"],
)
def test_distribution(device, sampling):
    """Chi-square of 2048 draws from 12 tokens that are not masked."""
    possible = np.linspace(0, VOCAB - 1, 12).astype(int)
    logits = np.full(VOCAB, -1e30, np.float32)
    logits[possible] = np.random.default_rng(2).normal(0, 1.5, 12)
    counts = np.zeros(VOCAB)
    for turn in range(8):
        seeded = [replace(sampling, seed=MAX_ROWS * turn + row) for row in range(MAX_ROWS)]
        drawn = draw(device, targets(device)[0], np.tile(logits, (MAX_ROWS, 1)), seeded)
        counts += np.bincount(drawn, minlength=VOCAB)
    kept = (logits >= reference.threshold(logits, sampling)) & (logits > -1e30)
    assert counts[~kept].sum() == 0
    expected = np.exp(logits[kept].astype(np.float64) / sampling.temperature)
    expected *= counts.sum() / expected.sum()
    chi_square = np.sum((counts[kept] - expected) ** 2 / expected)
    freedom = kept.sum() - 1
    assert chi_square < freedom + 4 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("form", [0, 1], ids=["workgroup", "single"])
def test_large_vocabulary(device, form):
    random = np.random.default_rng(6)
    logits = random.normal(0, 3, (3, 262144)).astype(np.float32)
    samplings = [Sampling(), Sampling(0.8, 0.95, 0.02, 64, 5), Sampling(1.0, 0.9)]
    check(device, logits, samplings, forms=[targets(device)[form]])
