"""Sampling against the rule in numpy, exactly; and its distribution."""

import time

import numpy as np
import pytest
from kernel_case import Bench, targets

from webllm.kernels.sample import SampleScratch, sample, sample_scratch_bytes
from webllm.ops import reference
from webllm.ops.program import BatchShape
from webllm.ops.step import Sampling, Step, StepSequence

CONTEXT = 11


def draw(device, target, logits, samplings, biases=None, spare=1):
    """Tokens of rows that sit at positions CONTEXT - 1, CONTEXT - 1, ..."""
    bench = Bench(device)
    rows, vocab = logits.shape
    shape = BatchShape(rows + spare, rows + spare, rows + spare, 1)
    sequences = [
        StepSequence([1], CONTEXT, [0], [0], sampling, biases[row] if biases else ())
        for row, sampling in enumerate(samplings)
    ]
    step = bench.step(Step(sequences), shape)
    sizes = sample_scratch_bytes(target, vocab, shape.max_outputs)
    scratch = SampleScratch(*(bench.poisoned(size) for size in sizes))
    sampled = bench.poisoned(4 * rows)
    dispatches = sample(
        device, target, step=step, logits=bench.upload(logits), vocab=vocab, scratch=scratch,
        sampled=sampled,
    )  # fmt: skip
    bench.run(dispatches)
    return bench.written(sampled, 4 * rows)


def check(device, logits, samplings, biases=None):
    want = [
        reference.sample(row, sampling, CONTEXT - 1, biases[i] if biases else ())
        for i, (row, sampling) in enumerate(zip(logits, samplings, strict=True))
    ]
    for target in targets(device):
        np.testing.assert_array_equal(draw(device, target, logits, samplings, biases), want)


@pytest.mark.parametrize("vocab", [1, 33, 2048, 5000])
def test_greedy_takes_the_lowest_of_equals(device, vocab):
    random = np.random.default_rng(vocab)
    logits = random.integers(-5, 5, (4, vocab)).astype(np.float32)
    logits[3] = -np.inf
    logits[3, vocab // 2] = -1e30
    check(device, logits, [Sampling()] * 4)


@pytest.mark.parametrize(("vocab", "spread"), [(50, 1.0), (3000, 2.5), (9000, 4.0)])
def test_random_parameters(device, vocab, spread):
    random = np.random.default_rng(vocab)
    rows = 24
    logits = random.normal(0, spread, (rows, vocab)).astype(np.float32)
    samplings = [
        Sampling(
            temperature=float(random.choice([0.0, 0.3, 0.7, 1.0, 2.0])),
            top_p=float(random.choice([1.0, 0.95, 0.5, 0.05])),
            min_p=float(random.choice([0.0, 0.0, 0.1, 0.5])),
            top_k=int(random.choice([0, 0, 1, 5, 40, vocab])),
            seed=int(random.integers(2**32)),
        )
        for _ in range(rows)
    ]
    check(device, logits, samplings)


def test_ties_at_the_threshold_are_all_kept(device):
    random = np.random.default_rng(3)
    logits = random.integers(-3, 4, (12, 4000)).astype(np.float32)  # more ties than candidates fit
    samplings = [Sampling(1.0, top_k=k, seed=s) for k in (1, 7, 700, 3999) for s in (1, 2)]
    samplings += [Sampling(1.0, top_p=p, seed=9) for p in (0.1, 0.3, 0.6, 0.9)]
    check(device, logits, samplings)


def test_masked_logits(device):
    logits = np.full((3, 3000), -np.inf, np.float32)
    logits[:, [7, 1500, 2999]] = [1.0, 0.5, 0.75]
    logits[1, 100:] = -1e30
    samplings = [Sampling(1.0, 0.9, seed=4), Sampling(1.0, 0.9, top_k=50), Sampling(1.0, top_k=2)]
    check(device, logits, samplings)


def test_biases(device):
    random = np.random.default_rng(8)
    logits = random.normal(0, 1, (3, 4500)).astype(np.float32)
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
    """Chi-square of 4000 draws; 1e-4 of right samplers would fail, and seeds are fixed."""
    vocab, rows, rounds = 12, 500, 8
    logits = np.random.default_rng(2).normal(0, 1.5, vocab).astype(np.float32)
    target = targets(device)[0]
    counts = np.zeros(vocab)
    for turn in range(rounds):
        seeded = [
            Sampling(
                sampling.temperature, sampling.top_p, sampling.min_p, sampling.top_k,
                1000 * turn + row,
            )
            for row in range(rows)
        ]  # fmt: skip
        drawn = draw(device, target, np.tile(logits, (rows, 1)), seeded)
        counts += np.bincount(drawn, minlength=vocab)
    kept = logits >= reference.threshold(logits, sampling)
    expected = np.where(kept, np.exp(logits.astype(np.float64) / sampling.temperature), 0)
    expected *= counts.sum() / expected.sum()
    assert not counts[~kept].any()
    chi_square = np.sum((counts[kept] - expected[kept]) ** 2 / expected[kept])
    freedom = kept.sum() - 1
    assert chi_square < freedom + 4 * np.sqrt(2 * freedom) + 10


def test_large_vocabulary(device):
    random = np.random.default_rng(6)
    logits = random.normal(0, 3, (2, 262144)).astype(np.float32)
    check(device, logits, [Sampling(), Sampling(0.8, 0.95, 0.02, 64, 5)])


def test_no_token_takes_long_without_barriers(device):
    target = targets(device)[1]
    logits = np.random.default_rng(7).normal(0, 2.5, (1, 49152)).astype(np.float32)
    draw(device, target, logits, [Sampling(1.0, 0.9)])  # compiles
    begin = time.perf_counter()
    draw(device, target, logits, [Sampling(1.0, 0.9)])
    assert time.perf_counter() - begin < 1.0  # 0.01 s on an idle machine
