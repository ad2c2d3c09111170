"""Runs a whole program in numpy, slowly, from the definitions of its ops.

With `int8` it rounds the activations that quantized weights multiply, as the kernels do. Then only
the rounding of floats differs between the two.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from storage_cases import planes_in, values_of
from webllm.artifacts.checkpoint import Checkpoint
from webllm.ops.program import (
    Activation,
    Attention,
    Embed,
    GatedLinear,
    Linear,
    Norm,
    Program,
    RopeKV,
    Sample,
    TakeOutputs,
)
from webllm.ops.step import Step, StepSequence
from webllm.ops.values import Part, RopeTable, RowOrder, Weight

Array = np.ndarray


class Reference:
    """Executes steps; the KV cache is one array for each sequence, under its first block."""

    def __init__(self, program: Program, checkpoint: Checkpoint, int8: bool = False) -> None:
        self.program, self.checkpoint, self.int8 = program, checkpoint, int8
        self.weights = {w: self._weight(w) for w in [*program.matrices(), *program.vectors()]}
        self.kv: dict[tuple[int, int], tuple[Array, Array]] = {}

    def _weight(self, weight: Weight) -> Array:
        rows = []
        for part in weight.parts:
            info = self.checkpoint.tensors[part.tensor]
            floats = values_of(info.dtype, planes_in(info, self.checkpoint.data(part.tensor)))
            floats = floats.reshape(part.rows, weight.cols)
            if part.order is RowOrder.HALVES_TO_PAIRS:
                heads = floats.reshape(-1, 2, part.head_dim // 2, weight.cols)
                floats = heads.swapaxes(1, 2).reshape(part.rows, weight.cols)
            rows.append(floats)
        return np.concatenate(rows).astype(np.float32)

    def _product(self, x: Array, weight: Weight) -> Array:
        return np.concatenate(
            [
                (_int8(x) if self.int8 and self._is_quantized(part) else x) @ rows.T
                for part, rows in self._parts(weight)
            ],
            axis=1,
        )

    def _parts(self, weight: Weight) -> list[tuple[Part, Array]]:
        ends = np.cumsum([part.rows for part in weight.parts])[:-1]
        return list(zip(weight.parts, np.split(self.weights[weight], ends), strict=True))

    def _is_quantized(self, part: Part) -> bool:
        return self.checkpoint.tensors[part.tensor].dtype.block_elements > 1

    def logits(self, step: Step) -> Array:  # [outputs, vocab]
        values: dict[int, Array] = {}
        for op in self.program.ops:
            match op:
                case Embed():
                    ids = [t for s in step.sequences for t in s.token_ids]
                    values[op.out.id] = op.scale * self.weights[op.table][ids]
                case Norm():
                    self._norm(op, values)
                case Linear():
                    y = self._product(values[op.x.id], op.weight)
                    if op.bias:
                        y = y + self.weights[op.bias][:, 0]
                    values[op.out.id] = values[op.out.id] + y if op.accumulate else y
                case GatedLinear():
                    x = values[op.x.id]
                    gate, up = self._product(x, op.gate), self._product(x, op.up)
                    values[op.out.id] = _ACTIVATIONS[op.activation](gate) * up
                case RopeKV():
                    self._rope_kv(op, values, step)
                case Attention():
                    values[op.out.id] = self._attention(op, values[op.qkv.id], step)
                case TakeOutputs():
                    values[op.out.id] = values[op.x.id][_output_rows(step)]
                case Sample():
                    return values[op.logits.id]
        raise AssertionError("the program does not sample")

    def _norm(self, op: Norm, values: dict[int, Array]) -> None:
        if op.branch is not None and op.branch_gamma is not None:
            branch = _rms_norm(values[op.branch.id], op.eps) * self.weights[op.branch_gamma][:, 0]
            values[op.x.id] = values[op.x.id] + branch
        values[op.out.id] = _rms_norm(values[op.x.id], op.eps) * self.weights[op.gamma][:, 0]

    def _rope_kv(self, op: RopeKV, values: dict[int, Array], step: Step) -> None:
        heads = op.heads
        qkv = values[op.qkv.id].reshape(-1, heads.num_q + 2 * heads.num_kv, heads.head_dim)
        q, k, v = np.split(qkv, [heads.num_q, heads.num_q + heads.num_kv], axis=1)
        if op.q_gamma:
            q = _rms_norm(q, op.eps) * self.weights[op.q_gamma][:, 0]
        if op.k_gamma:
            k = _rms_norm(k, op.eps) * self.weights[op.k_gamma][:, 0]
        positions = np.concatenate([_positions(s) for s in step.sequences])
        q, k = _rotate(q, op.rope, positions), _rotate(k, op.rope, positions)
        values[op.qkv.id] = np.concatenate([q, k, v], axis=1).reshape(len(qkv), -1)
        row = 0
        for sequence in step.sequences:
            new = slice(row, row + len(sequence.token_ids))
            key = op.layer, sequence.block_table[0]
            first = sequence.context_len - len(sequence.token_ids)
            old_k, old_v = self.kv.get(key, (k[:0], v[:0]))
            self.kv[key] = (
                np.concatenate([old_k[:first], k[new]]),
                np.concatenate([old_v[:first], v[new]]),
            )
            row = new.stop

    def _attention(self, op: Attention, qkv: Array, step: Step) -> Array:
        heads, out, row = op.heads, [], 0
        group = heads.num_q // heads.num_kv
        q = qkv.reshape(len(qkv), -1, heads.head_dim)[:, : heads.num_q]
        for sequence in step.sequences:
            k, v = (np.repeat(a, group, 1) for a in self.kv[op.layer, sequence.block_table[0]])
            positions = _positions(sequence)[:, None]
            seen = np.arange(len(k))[None]
            mask = (seen <= positions) & (seen > positions - (op.window or 1 << 30))
            mine = q[row : row + len(sequence.token_ids)]
            scores = np.einsum("thd,shd->hts", mine, k) * op.scale
            scores = np.where(mask[None], scores, -np.inf)
            p = np.exp(scores - scores.max(-1, keepdims=True))
            p /= p.sum(-1, keepdims=True)
            out.append(np.einsum("hts,shd->thd", p, v).reshape(len(mine), -1))
            row += len(mine)
        return np.concatenate(out)


def _positions(sequence: StepSequence) -> Array:
    return np.arange(sequence.context_len - len(sequence.token_ids), sequence.context_len)


def _output_rows(step: Step) -> list[int]:
    rows, first = [], 0
    for sequence in step.sequences:
        rows += [first + o for o in sequence.outputs]
        first += len(sequence.token_ids)
    return rows


def _int8(x: Array) -> Array:
    groups = x.reshape(len(x), -1, 32)
    scale = np.abs(groups).max(-1, keepdims=True) / 127
    rounded: Array = np.rint(groups / np.where(scale > 0, scale, 1)) * scale
    return rounded.reshape(x.shape)


def _rms_norm(x: Array, eps: float) -> Array:
    normed: Array = x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)
    return normed


def _rotate(x: Array, rope: RopeTable, positions: Array) -> Array:
    fine = np.frombuffer(rope.fine, np.float32).reshape(rope.FINE, -1, 2)
    coarse = np.frombuffer(rope.coarse, np.float32).reshape(-1, rope.head_dim // 2, 2)
    a, b = fine[positions % rope.FINE], coarse[positions // rope.FINE]
    turn = (a[..., 0] + 1j * a[..., 1]) * (b[..., 0] + 1j * b[..., 1])  # [tokens, dim / 2]
    pairs = x[..., : rope.head_dim].reshape(*x.shape[:-1], -1, 2)
    turned = (pairs[..., 0] + 1j * pairs[..., 1]) * turn[:, None]
    rotated = np.stack([turned.real, turned.imag], -1).reshape(*x.shape[:-1], -1)
    return np.concatenate([rotated, x[..., rope.head_dim :]], -1).astype(np.float32)


def _silu(x: Array) -> Array:
    activated: Array = x / (1 + np.exp(-x))
    return activated


def _gelu_tanh(x: Array) -> Array:
    activated: Array = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return activated


_ACTIVATIONS: dict[Activation, Callable[[Array], Array]] = {
    Activation.SILU: _silu,
    Activation.GELU_TANH: _gelu_tanh,
}


def mean_kl(expected: Array, got: Array) -> float:
    """Returns the mean over rows of KL(softmax(expected) || softmax(got))."""
    p, q = (a - a.max(-1, keepdims=True) for a in (expected.astype(np.float64), got))
    p -= np.log(np.exp(p).sum(-1, keepdims=True))
    q -= np.log(np.exp(q).sum(-1, keepdims=True))
    return float((np.exp(p) * (p - q)).sum(-1).mean())
