"""The sampling rule of webllm.sampling, against a plain reading of it in float64."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from cpu_cases import HOSTS, FakeCheckpoint, ProgramBuilder, Runner

from webllm.ops.program import BatchShape
from webllm.ops.step import Sampling, Step, StepSequence

VOCAB = 512
MASK = 0xFFFFFFFF


@pytest.fixture(scope="module", params=[name for name in HOSTS if name != "baseline"])
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    """A program whose logits are the rows of `runner.table`."""
    checkpoint = FakeCheckpoint()
    build = ProgramBuilder(checkpoint, VOCAB)
    table = checkpoint.floats("tensor.0")
    table = np.vstack([table[:20] * 3, np.round(table[20:] * 2)])  # the second half has ties
    checkpoint.bytes_of["tensor.0"] = table.astype("<f4").tobytes()
    limits = BatchShape(max_tokens=256, max_seqs=1, max_outputs=256, max_blocks=64)
    program = build.program(build.x)
    with Runner(HOSTS[request.param](), program, checkpoint, limits, 64) as runner:
        runner.table = table
        yield runner


def step(
    tokens: list[int], sampling: Sampling, biases: list[tuple[int, float]] | None = None
) -> Step:
    count = len(tokens)
    sequence = StepSequence(
        tokens, count, range(-(-count // 16)), range(count), sampling, biases or []
    )
    return Step([sequence])


def pcg(value: int) -> int:
    state = (value * 747796405 + 2891336453) & MASK
    word = (((state >> ((state >> 28) + 4)) ^ state) * 277803737) & MASK
    return (word >> 22) ^ word


def gumbel(seed: int, position: int, token: int) -> float:
    u = (pcg((pcg(seed ^ pcg(position)) + token) & MASK) >> 8) * 2**-24 + 2**-25
    return -math.log(-math.log(u))


def kept(logits: np.ndarray, s: Sampling) -> np.ndarray:
    """Mask of the tokens that may be drawn."""
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


def expected_token(logits: np.ndarray, s: Sampling, position: int) -> int:
    if s.temperature == 0:
        return int(logits.argmax())
    scaled = (logits.astype(np.float32) / np.float32(s.temperature)).astype(np.float64)
    noise = [gumbel(s.seed, position, i) for i in range(len(scaled))]
    return int(np.where(kept(logits, s), scaled + noise, -np.inf).argmax())


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(1.0, seed=7),
        Sampling(0.3, seed=1 << 31),
        Sampling(1.5, top_k=1),
        Sampling(1.0, top_k=5, seed=3),
        Sampling(1.0, top_k=100000, seed=3),
        Sampling(0.8, top_p=0.9, seed=4),
        Sampling(2.0, top_p=0.1, seed=5),
        Sampling(1.0, min_p=0.05, seed=6),
        Sampling(1.3, top_p=0.95, min_p=0.02, top_k=40, seed=8),
    ],
    ids=str,
)
def test_follows_the_rule(runner: Runner, sampling: Sampling) -> None:
    tokens = list(range(40))
    expected = [expected_token(runner.table[t], sampling, i) for i, t in enumerate(tokens)]
    assert list(runner.tokens(step(tokens, sampling))) == expected


def test_biases(runner: Runner) -> None:
    biases = [(5, 100.0), (6, 120.0), (7, -100.0)]
    assert list(runner.tokens(step([1, 2], Sampling(), biases))) == [6, 6]


def test_greedy_takes_the_first_of_equals(runner: Runner) -> None:
    logits = runner.table[30]
    assert runner.tokens(step([30], Sampling()))[0] == np.flatnonzero(logits == logits.max())[0]


@pytest.mark.parametrize("sampling", [Sampling(1.5), Sampling(1.5, top_p=0.8)], ids=str)
def test_frequencies(runner: Runner, sampling: Sampling) -> None:
    """Chi-square of 10240 draws against the softmax of what is kept, at about one in a thousand."""
    logits, counts = runner.table[3], Counter[int]()
    for seed in range(40):
        counts.update(runner.tokens(step([3] * 256, replace(sampling, seed=seed))))
    p = np.where(kept(logits, sampling), np.exp(logits / np.float64(sampling.temperature)), 0)
    expected = p / p.sum() * counts.total()
    common = expected >= 5
    got = np.array([counts[i] for i in range(VOCAB)])
    assert not got[p == 0].any()
    parts = [((got - expected) ** 2 / np.maximum(expected, 1e-9))[common].sum()]
    rare = expected[~common].sum()
    if rare > 5:
        parts.append((got[~common].sum() - rare) ** 2 / rare)
    freedom = common.sum() - 1 + (rare > 5)
    assert sum(parts) < freedom + 3.3 * math.sqrt(2 * freedom) + 4


def test_the_draw_ignores_the_batch(runner: Runner) -> None:
    sampling = Sampling(1.0, seed=11)
    together = runner.tokens(step(list(range(20)), sampling))
    last = Step([StepSequence([19], 20, [0, 1], [0], sampling)])
    assert runner.tokens(last)[0] == together[19]


def test_chained_steps_take_the_tokens_sampled_before(runner: Runner) -> None:
    first = runner.tokens(step([4], Sampling()))[0]
    assert first < VOCAB
    chained = Step([StepSequence([0], 2, [0], [0], Sampling(), [(first, -1e9)])], chained=True)
    row = first if first < ProgramBuilder.VOCAB else 0
    logits = runner.table[row].copy()
    logits[first] -= 1e9
    assert runner.tokens(chained)[0] == logits.argmax()
