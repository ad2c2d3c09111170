"""Shared by the tests of sampling: the rule for one row, and exact distributions."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

import reference
from webllm.ops.sampled import TokenLogprobs
from webllm.ops.sampling import IN_PROMPT, SamplingParams, edit
from webllm.ops.step import StepSequence

INF = float("inf")


def edits_of(*entries: tuple[int, float, int]) -> array[int]:
    """Entries are (token id, bias, count)."""
    packed = array("I")
    for entry in entries:
        packed.extend(edit(*entry))
    return packed


def entries_of(edits: array[int]) -> list[tuple[int, float, int]]:
    biases = np.frombuffer(edits, np.float32)[1::3]
    return list(zip(edits[0::3], biases.tolist(), edits[2::3], strict=True))


def expected(
    logits: np.ndarray, sequence: StepSequence, position: int, chained: int | None = None
) -> tuple[int, TokenLogprobs | None]:
    """Returns the token and logprobs that these logits give by the rule in numpy."""
    sampling = sequence.sampling
    edited = reference.edited(logits, sampling, entries_of(sequence.edits), chained)
    token_id = reference.sample(edited, sampling, position)
    if sampling.num_logprobs is None:
        return token_id, None
    return token_id, reference.token_logprobs(edited, token_id, sampling.num_logprobs)


def check_logprobs(got: TokenLogprobs | None, want: TokenLogprobs | None) -> None:
    assert (got is None) == (want is None)
    if got is None or want is None:
        return
    assert [token_id for token_id, _ in got.top] == [token_id for token_id, _ in want.top]
    ours, theirs = ([each.logprob, *(value for _, value in each.top)] for each in (got, want))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


PENALTIES = SamplingParams(
    0.0, repetition_penalty=1.4, frequency_penalty=0.3, presence_penalty=-0.6
)

# Cases of `distribution`; token i is the i-th likeliest.
FREQUENT = edits_of((0, 0.0, 3), (1, 0.0, IN_PROMPT), (2, 0.0, 1 | IN_PROMPT), (9, 0.0, 2))
DISTRIBUTIONS = {
    "plain": (SamplingParams(1.0), edits_of()),
    "cold": (SamplingParams(0.6), edits_of()),
    "hot": (SamplingParams(1.6), edits_of()),
    "top_p": (SamplingParams(1.3, top_p=0.8), edits_of()),
    "top_k": (SamplingParams(1.0, top_k=6), edits_of()),
    "min_p": (SamplingParams(1.2, min_p=0.1), edits_of()),
    "all three": (SamplingParams(1.5, top_p=0.9, min_p=0.03, top_k=9), edits_of()),
    "bias": (SamplingParams(1.0), edits_of((0, -1.0, 0), (3, 1.5, 0), (4, -INF, 0))),
    "repetition": (SamplingParams(1.0, repetition_penalty=1.5), FREQUENT),
    "frequency": (SamplingParams(1.0, frequency_penalty=0.5), FREQUENT),
    "presence": (SamplingParams(1.0, presence_penalty=1.2), FREQUENT),
}


def distribution(
    logits: np.ndarray, sampling: SamplingParams, entries: Sequence[tuple[int, float, int]]
) -> np.ndarray:
    """Returns the probability of each token, straight from the rule; logits have no ties."""
    logits = logits.astype(np.float64)
    for token_id, bias, count in entries:
        logits[token_id] += bias
        times = count & ~IN_PROMPT
        if count:
            up = logits[token_id] <= 0
            logits[token_id] *= sampling.repetition_penalty ** (1 if up else -1)
        logits[token_id] -= sampling.frequency_penalty * times
        logits[token_id] -= sampling.presence_penalty if times else 0
    p = np.exp((logits - logits.max()) / sampling.temperature)
    order = np.argsort(-p)
    if sampling.top_k:
        p[order[sampling.top_k :]] = 0
    if sampling.top_p < 1:
        mass = np.cumsum(p[order]) / p.sum()
        p[order[int(np.searchsorted(mass, sampling.top_p)) + 1 :]] = 0
    p[p < sampling.min_p * p.max()] = 0
    normalized: np.ndarray = p / p.sum()
    return normalized


def seeded(sampling: SamplingParams, seed: int) -> SamplingParams:
    return replace(sampling, seed=seed)


def check_counts(counts: np.ndarray, p: np.ndarray) -> None:
    """Pearson's chi-squared test of drawn tokens at p = 1e-4; rare tokens are pooled."""
    assert not counts[p == 0].any(), "drew a token that the rule excludes"
    expected = p * counts.sum()
    rare = expected < 5
    cells = [(counts[~rare], expected[~rare])]
    if expected[rare].sum() >= 5:
        cells.append((counts[rare].sum(keepdims=True), expected[rare].sum(keepdims=True)))
    chi_square = sum(float(((got - want) ** 2 / want).sum()) for got, want in cells)
    freedom = sum(len(got) for got, _ in cells) - 1
    assert freedom >= 3
    # Wilson and Hilferty (1931), "The Distribution of Chi-Square"; 3.719: one in ten thousand.
    spread = 2 / (9 * freedom)
    assert chi_square < freedom * (1 - spread + 3.719 * spread**0.5) ** 3
