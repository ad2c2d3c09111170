"""Graphs recorded by hand, and their ops. Those of whole models are in test_models_programs.py."""

from __future__ import annotations

from collections.abc import Callable

from webllm import ops
from webllm.ops import Graph, Heads, RopeTable, Tensor, Weight
from webllm.ops.fusion import fuse
from webllm.ops.program import Norm, Op
from webllm.ops.values import Encoding, Rows

COLS, VOCAB = 64, 50
HEADS = Heads(2, 2, 32)
ROPE = RopeTable.build([0.5] * 16, 128)
Layer = Callable[[Tensor], Tensor]  # [rows, COLS] -> [rows, COLS]


def vector(name: str) -> Weight:
    return Weight.of(name, COLS)


def linear(x: Tensor, name: str, rows: int = COLS) -> Tensor:
    return ops.linear(x, Weight.of(name, rows, COLS))


def fused(first: Layer, last: Layer) -> tuple[Op, ...]:
    """Returns the ops of a model of one attention block; each layer's result feeds products."""
    x = ops.embedding(Graph(), Weight.of("embed", VOCAB, COLS))
    normed = first(x)
    q, k = (ops.rope(linear(normed, name), ROPE) for name in "qk")
    out = ops.attention(q, k, linear(normed, "v"), heads=HEADS, layer=0, scale=1.0)
    x = ops.take_outputs(ops.add(x, linear(out, "o")))
    return fuse(ops.sample(linear(last(x), "head", VOCAB)).graph).ops


def rms_norm(x: Tensor) -> Tensor:
    return ops.rms_norm(x, vector("gamma"), 1e-5)


def test_rms_norm() -> None:
    first, last = (op for op in fused(rms_norm, rms_norm) if isinstance(op, Norm))
    assert first.gamma == vector("gamma")
    assert first.eps == 1e-5
    assert (first.x.rows, first.out.rows, last.out.rows) == (Rows.TOKENS, Rows.TOKENS, Rows.OUTPUTS)
    assert (first.out.cols, first.out.encoding) == (COLS, Encoding.ACTIVATION)


def test_a_tensor_that_not_only_products_read_is_f32() -> None:
    twice = fused(lambda x: rms_norm(rms_norm(x)), rms_norm)
    first, second, _ = (op for op in twice if isinstance(op, Norm))
    assert (first.out.encoding, second.out.encoding) == (Encoding.F32, Encoding.ACTIVATION)
    assert second.x == first.out
