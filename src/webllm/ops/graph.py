"""The functions that model files are written in. They compute nothing: they record a graph.

A model is recorded once, for all batch sizes: a tensor's number of rows is symbolic (`Rows`). Each
call appends a node to the graph of its first argument and returns the new tensor.
`webllm.ops.fusion` turns the finished graph into a `Program`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from webllm.ops.program import Activation, Heads
from webllm.ops.values import RopeTable, Rows, Weight


@dataclass(eq=False, slots=True)
class Graph:
    """The recorded nodes, each after its inputs."""

    nodes: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """The result of `node`, [rows, cols]; it holds no numbers."""

    graph: Graph = field(repr=False)
    node: Node
    rows: Rows
    cols: int


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingNode:
    table: Weight
    scale: float


@dataclass(frozen=True, slots=True, eq=False)
class RmsNormNode:
    x: Tensor
    gamma: Weight
    eps: float


@dataclass(frozen=True, slots=True, eq=False)
class LinearNode:
    x: Tensor
    weight: Weight
    bias: Weight | None


@dataclass(frozen=True, slots=True, eq=False)
class RopeNode:
    x: Tensor
    table: RopeTable


@dataclass(frozen=True, slots=True, eq=False)
class AttentionNode:
    q: Tensor
    k: Tensor
    v: Tensor
    heads: Heads
    layer: int
    scale: float
    window: int | None


@dataclass(frozen=True, slots=True, eq=False)
class GatedNode:
    gate: Tensor
    up: Tensor
    activation: Activation


@dataclass(frozen=True, slots=True, eq=False)
class AddNode:
    x: Tensor
    branch: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class TakeOutputsNode:
    x: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class SampleNode:
    logits: Tensor


Node = (
    EmbeddingNode
    | RmsNormNode
    | LinearNode
    | RopeNode
    | AttentionNode
    | GatedNode
    | AddNode
    | TakeOutputsNode
    | SampleNode
)


def _record(graph: Graph, node: Node, rows: Rows, cols: int) -> Tensor:
    tensor = Tensor(graph, node, rows, cols)
    graph.nodes.append(tensor)
    return tensor


def embedding(graph: Graph, table: Weight, scale: float = 1.0) -> Tensor:
    """Looks the step's tokens up in `table` [vocab, dim]: scale * row, [tokens, dim]."""
    return _record(graph, EmbeddingNode(table, scale), Rows.TOKENS, table.cols)


def rms_norm(x: Tensor, gamma: Weight, eps: float) -> Tensor:
    """RMS norm (arXiv:1910.07467) of each group of `gamma.rows` columns: a row, or each head."""
    assert x.cols % gamma.rows == 0, (x.cols, gamma)
    return _record(x.graph, RmsNormNode(x, gamma, eps), x.rows, x.cols)


def linear(x: Tensor, weight: Weight, bias: Weight | None = None) -> Tensor:
    """x @ weight.T + bias, [rows, weight.rows]."""
    assert x.cols == weight.cols, (x.cols, weight)
    return _record(x.graph, LinearNode(x, weight, bias), x.rows, weight.rows)


def rope(x: Tensor, table: RopeTable) -> Tensor:
    """Rotates the pairs (2i, 2i + 1) of each head by the token's position (arXiv:2104.09864)."""
    return _record(x.graph, RopeNode(x, table), x.rows, x.cols)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    heads: Heads,
    layer: int,
    scale: float,
    window: int | None = None,
) -> Tensor:
    """Writes k and v to the layer's KV cache, then attends causally.

    q: [tokens, num_q * head_dim]; k, v: [tokens, num_kv * head_dim]; the result is shaped like q.
    `scale` multiplies the scores. With a `window`, a token attends to its last `window` positions,
    its own included.
    """
    return _record(q.graph, AttentionNode(q, k, v, heads, layer, scale, window), q.rows, q.cols)


def gated(gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
    """activation(gate) * up, the gated linear unit (arXiv:2002.05202)."""
    return _record(gate.graph, GatedNode(gate, up, activation), gate.rows, gate.cols)


def add(x: Tensor, branch: Tensor) -> Tensor:
    """Adds a branch to the residual stream `x` in place: `x` may not be used afterwards."""
    return _record(x.graph, AddNode(x, branch), x.rows, x.cols)


def take_outputs(x: Tensor) -> Tensor:
    """Selects the rows whose logits are wanted, [outputs, cols]."""
    return _record(x.graph, TakeOutputsNode(x), Rows.OUTPUTS, x.cols)


def sample(logits: Tensor) -> Tensor:
    """Draws one token for each row of logits by the rule of docs/sampling.md, [outputs, 1]."""
    return _record(logits.graph, SampleNode(logits), logits.rows, 1)
