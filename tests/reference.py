"""The ops of `webllm.ops.program` and the sampling rule of docs/sampling.md in numpy.

Tests compare every backend with these functions. Arrays are [rows, cols] as in the ops; arithmetic
is float64. The KV cache is two arrays of [slots, num_kv, head_dim], slot = block * block_size +
offset.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from webllm.ops.program import Activation, Heads
from webllm.ops.sampled import TokenLogprobs
from webllm.ops.sampling import IN_PROMPT, SamplingParams
from webllm.ops.values import RopeTable

Array = NDArray[Any]


def embed(table: Array, token_ids: Array, scale: float) -> Array:
    rows: Array = scale * _f64(table)[token_ids]
    return rows


def norm(x: Array, gamma: Array, eps: float) -> Array:
    x = _f64(x)
    normed: Array = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * gamma
    return normed


def add_branch(x: Array, branch: Array, branch_gamma: Array, eps: float) -> Array:
    """Returns the new residual of a Norm with a branch."""
    return _f64(x) + norm(branch, branch_gamma, eps)


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    out: Array = _f64(x) @ _f64(weight).T
    return out if bias is None else out + bias


def gated_linear(x: Array, gate: Array, up: Array, activation: Activation) -> Array:
    return _activated(linear(x, gate), activation) * linear(x, up)


def rope_kv(
    qkv: Array,
    heads: Heads,
    rope: RopeTable,
    positions: Array,
    q_gamma: Array | None = None,
    k_gamma: Array | None = None,
    eps: float = 0.0,
) -> tuple[Array, Array, Array]:
    """Returns q, k and v, each [tokens, heads, head_dim]; k and v go to the step's slots."""
    q, k, v = split_heads(qkv, heads)
    if q_gamma is not None:
        q = norm(q, q_gamma, eps)
    if k_gamma is not None:
        k = norm(k, k_gamma, eps)
    turn = rotations(rope, positions)
    return _rotated(q, turn), _rotated(k, turn), v


def split_heads(qkv: Array, heads: Heads) -> tuple[Array, Array, Array]:
    """Returns q, k and v, each [tokens, heads, head_dim]."""
    by_head = _f64(qkv).reshape(len(qkv), -1, heads.head_dim)
    ends = (heads.num_q, heads.num_q + heads.num_kv)
    return by_head[:, : ends[0]], by_head[:, ends[0] : ends[1]], by_head[:, ends[1] :]


def rotations(rope: RopeTable, positions: Array) -> Array:
    """Returns unit complex numbers times the table's scale, [tokens, head_dim / 2]."""
    fine, coarse = (
        np.frombuffer(table, np.complex64).reshape(-1, rope.head_dim // 2).astype(np.complex128)
        for table in (rope.fine, rope.coarse)
    )
    turn: Array = coarse[positions // rope.FINE] * fine[positions % rope.FINE]
    return turn


def attention(
    q: Array,
    keys: Array,
    values: Array,
    positions: Array,
    seq_ids: Array,
    block_tables: Sequence[Sequence[int]],
    scale: float,
    window: int | None = None,
    block_size: int = 16,
) -> Array:
    """q: [tokens, num_q, head_dim]; keys, values: the KV cache. Returns [tokens, num_q * dim]."""
    group = q.shape[1] // keys.shape[1]
    rows = []
    for token, position in enumerate(positions):
        seen = np.arange(0 if window is None else max(0, position - window + 1), position + 1)
        blocks = np.asarray(block_tables[seq_ids[token]])
        slots = blocks[seen // block_size] * block_size + seen % block_size
        k = np.repeat(_f64(keys[slots]), group, axis=1)  # [positions, num_q, head_dim]
        v = np.repeat(_f64(values[slots]), group, axis=1)
        scores = np.einsum("hd,phd->hp", _f64(q[token]), k) * scale
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        rows.append(np.einsum("hp,phd->hd", weights, v).reshape(-1))
    return np.stack(rows)


def take_outputs(x: Array, output_rows: Array) -> Array:
    return x[output_rows]


def sample(
    logits: Array,  # [vocab]
    sampling: SamplingParams,
    position: int,
) -> int:
    """Draws a token from edited logits; `position` is that of the row's token."""
    if sampling.temperature == 0:
        return int(np.argmax(logits))
    scaled = _f64(logits) / np.float32(sampling.temperature)
    noisy = scaled + gumbel(sampling.seed, position, len(logits))
    return int(np.argmax(np.where(logits >= threshold(logits, sampling), noisy, -np.inf)))


def edited(
    logits: Array,
    sampling: SamplingParams,
    edits: Sequence[tuple[int, float, int]] = (),  # (token id, bias, count)
    chained: int | None = None,  # the row's input token, if it is FROM_SAMPLED
) -> Array:
    """Applies edits and penalties; returns f32 [vocab]."""
    logits = logits.astype(np.float32)
    if chained is not None and all(token_id != chained for token_id, _, _ in edits):
        edits = [*edits, (chained, 0.0, 0)]
    for token_id, bias, count in edits:
        n = np.float32((count & ~IN_PROMPT) + (token_id == chained))
        logit = logits[token_id] + np.float32(bias)
        if n > 0 or count & IN_PROMPT:
            penalty = np.float32(sampling.repetition_penalty)
            logit = logit / penalty if logit > 0 else logit * penalty
        presence = np.float32(sampling.presence_penalty if n > 0 else 0)
        logits[token_id] = logit - (np.float32(sampling.frequency_penalty) * n + presence)
    return logits


def token_logprobs(logits: Array, token_id: int, num_top: int) -> TokenLogprobs:
    """Returns the logprobs of a drawn token and of the likeliest, from edited logits [vocab]."""
    exact = _f64(logits)
    logprobs = exact - exact.max() - np.log(np.sum(np.exp(exact - exact.max())))
    likeliest = np.argsort(-exact, kind="stable")[:num_top]
    top = tuple((int(i), float(logprobs[i])) for i in likeliest if logprobs[i] > -np.inf)
    return TokenLogprobs(float(logprobs[token_id]), top)


def threshold(logits: Array, sampling: SamplingParams) -> float:
    """Returns the smallest logit that top_k, top_p and min_p keep."""
    descending = np.sort(_f64(logits))[::-1]
    probable = np.exp((descending - descending[0]) / np.float32(sampling.temperature))
    if 0 < sampling.top_k < len(logits):
        probable[descending < descending[sampling.top_k - 1]] = 0
    count = int(np.count_nonzero(probable))
    if sampling.top_p < 1:
        mass = np.cumsum(probable)
        count = int(np.searchsorted(mass, np.float32(sampling.top_p) * mass[-1])) + 1
    smallest = float(descending[min(count, len(descending)) - 1])
    if sampling.min_p > 0:
        bound = descending[0] + sampling.temperature * np.log(np.float32(sampling.min_p))
        smallest = max(smallest, float(bound))
    return smallest


def gumbel(seed: int, position: int, vocab: int) -> Array:
    """Returns the noise of each token, [vocab]."""
    key = _pcg(np.uint32(seed) ^ _pcg(np.array([position], np.uint32)))
    bits = _pcg(key + np.arange(vocab, dtype=np.uint32)) >> 8
    u = bits * 2.0**-24 + 2.0**-25
    noise: Array = -np.log(-np.log(u))
    return noise


def _pcg(value: Array) -> Array:
    state = value * np.uint32(747796405) + np.uint32(2891336453)
    word = ((state >> ((state >> np.uint32(28)) + np.uint32(4))) ^ state) * np.uint32(277803737)
    hashed: Array = (word >> np.uint32(22)) ^ word
    return hashed


def _rotated(heads: Array, turn: Array) -> Array:
    rotary = 2 * turn.shape[1]
    pairs = heads[..., 0:rotary:2] + 1j * heads[..., 1:rotary:2]
    pairs = pairs * turn[:, None, :]
    rotated = heads.copy()
    rotated[..., 0:rotary:2] = pairs.real
    rotated[..., 1:rotary:2] = pairs.imag
    return rotated


def _activated(x: Array, activation: Activation) -> Array:
    match activation:
        case Activation.SILU:
            result: Array = x / (1 + np.exp(-x))
        case Activation.GELU_TANH:
            result = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return result


def _f64(x: Array) -> Array:
    return x.astype(np.float64)
