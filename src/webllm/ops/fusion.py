"""Fusion: the recorded graph becomes the few ops a backend executes.

    linear(x, q), linear(x, k), linear(x, v)        -> one Linear over the rows of all three
    q/k norm, rope, KV write                        -> RopeKV
    activation(linear) * linear                     -> GatedLinear
    x + linear                                      -> Linear that accumulates into x
    x + rms_norm(branch), then rms_norm             -> Norm with a branch

Nodes are visited in recorded order. A node that its only consumer absorbs emits no op of its own.
The residual stream is one value, updated in place.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import count

from webllm.ops.graph import (
    AddNode,
    AttentionNode,
    EmbeddingNode,
    GatedNode,
    Graph,
    LinearNode,
    RmsNormNode,
    RopeNode,
    SampleNode,
    TakeOutputsNode,
    Tensor,
)
from webllm.ops.program import (
    Attention,
    Embed,
    GatedLinear,
    KVCacheShape,
    Linear,
    Norm,
    Op,
    Program,
    RopeKV,
    Sample,
    TakeOutputs,
)
from webllm.ops.values import Encoding, RopeTable, Rows, Value, Weight


def fuse(graph: Graph) -> Program:
    """Turns a recorded graph into a program.

    Raises AssertionError for a graph that does not have the forms above: a mistake in a model file.
    """
    fusion = _Fusion(graph)
    for tensor in graph.nodes:
        fusion.emit(tensor)
    return Program(tuple(fusion.ops), _kv_cache_shape(fusion.ops), fusion.vocab_size)


def _kv_cache_shape(ops: list[Op]) -> KVCacheShape:
    attentions = [op for op in ops if isinstance(op, Attention)]
    heads = {(op.heads.num_kv, op.heads.head_dim) for op in attentions}
    assert len(heads) == 1, heads
    num_kv_heads, head_dim = heads.pop()
    return KVCacheShape(len(attentions), num_kv_heads, head_dim)


@dataclass(frozen=True, slots=True)
class _Branch:
    """x + rms_norm(branch), not computed yet: the next Norm adds it to x."""

    x: Value
    branch: Value
    gamma: Weight


class _Fusion:
    def __init__(self, graph: Graph) -> None:
        self.ops: list[Op] = []
        self.vocab_size = 0
        self.ids = count()
        self.values: dict[Tensor, Value] = {}
        self.branches: dict[Tensor, _Branch] = {}
        self.absorbed = {absorbed for tensor in graph.nodes for absorbed in _absorbed_by(tensor)}
        self.consumers: dict[Tensor, list[Tensor]] = {}
        for tensor in graph.nodes:
            for source in _inputs(tensor):
                self.consumers.setdefault(source, []).append(tensor)

    def emit(self, tensor: Tensor) -> None:
        if tensor in self.absorbed:
            return
        match tensor.node:
            case EmbeddingNode(table, scale):
                self.ops.append(Embed(table, scale, self._new(tensor)))
            case RmsNormNode() as node:
                self._norm(tensor, node)
            case LinearNode() as node:
                self._linear(node, self._new(tensor))
            case AttentionNode() as node:
                self._attention(tensor, node)
            case GatedNode() as node:
                self._gated(tensor, node)
            case AddNode() as node:
                self._add(tensor, node)
            case TakeOutputsNode(x):
                self._take_outputs(tensor, x)
            case SampleNode(logits):
                self.vocab_size = logits.cols
                self.ops.append(Sample(self.values[logits]))
            case RopeNode():
                raise AssertionError("rope outside attention")

    def _anonymous(self, rows: Rows, cols: int, encoding: Encoding = Encoding.F32) -> Value:
        return Value(next(self.ids), rows, cols, encoding)

    def _new(self, tensor: Tensor, encoding: Encoding = Encoding.F32) -> Value:
        """Returns the value that a tensor will have."""
        value = self._anonymous(tensor.rows, tensor.cols, encoding)
        self.values[tensor] = value
        return value

    def _encoding(self, tensor: Tensor) -> Encoding:
        """Returns ACTIVATION for a tensor that only matrix products read, else F32."""
        users = [user.node for user in self.consumers[tensor]]
        read_by_linears = all(isinstance(user, LinearNode) for user in users)
        return Encoding.ACTIVATION if read_by_linears else Encoding.F32

    def _norm(self, tensor: Tensor, node: RmsNormNode) -> None:
        out = self._new(tensor, self._encoding(tensor))
        if branch := self.branches.get(node.x):
            self.ops.append(Norm(branch.x, node.gamma, node.eps, out, branch.branch, branch.gamma))
        else:
            self.ops.append(Norm(self.values[node.x], node.gamma, node.eps, out))

    def _linear(self, node: LinearNode, out: Value, accumulate: bool = False) -> None:
        self.ops.append(Linear(self.values[node.x], node.weight, out, node.bias, accumulate))

    def _attention(self, tensor: Tensor, node: AttentionNode) -> None:
        q, k, v = (_projection(t) for t in (node.q, node.k, node.v))
        assert q.x is k.x is v.x, node
        assert q.table is not None, node
        assert q.table is k.table, node
        biases = [p.bias for p in (q, k, v) if p.bias is not None]
        assert len(biases) in (0, 3), node
        qkv = self._anonymous(tensor.rows, node.heads.qkv_cols)
        weight = Weight.concat([q.weight, k.weight, v.weight])
        bias = Weight.concat(biases) if biases else None
        self.ops.append(Linear(self.values[q.x], weight, qkv, bias))
        self.ops.append(
            RopeKV(qkv, node.heads, q.table, node.layer, q.gamma, k.gamma, q.eps or k.eps)
        )
        out = self._new(tensor, Encoding.ACTIVATION)
        self.ops.append(Attention(qkv, node.heads, node.layer, node.scale, out, node.window))

    def _gated(self, tensor: Tensor, node: GatedNode) -> None:
        gate, up = node.gate.node, node.up.node
        assert isinstance(gate, LinearNode), gate
        assert isinstance(up, LinearNode), up
        assert gate.x is up.x, node
        assert gate.bias is None, node
        assert up.bias is None, node
        out = self._new(tensor, Encoding.ACTIVATION)
        x = self.values[gate.x]
        self.ops.append(GatedLinear(x, gate.weight, up.weight, node.activation, out))

    def _add(self, tensor: Tensor, node: AddNode) -> None:
        """Accumulates into the residual, or leaves a normed branch to the next norm."""
        x = self.values[node.x]
        self.values[tensor] = x
        match node.branch.node:
            case LinearNode() as linear:
                self._linear(linear, x, accumulate=True)
            case RmsNormNode(branch, gamma, _):
                assert isinstance(branch.node, LinearNode), branch
                self._linear(branch.node, self._new(branch))
                self.branches[tensor] = _Branch(x, self.values[branch], gamma)
            case other:
                raise AssertionError(other)

    def _take_outputs(self, tensor: Tensor, x: Tensor) -> None:
        out = self._take(self.values[x])
        self.values[tensor] = out
        if branch := self.branches.get(x):
            self.branches[tensor] = _Branch(out, self._take(branch.branch), branch.gamma)

    def _take(self, x: Value) -> Value:
        out = self._anonymous(Rows.OUTPUTS, x.cols)
        self.ops.append(TakeOutputs(x, out))
        return out


@dataclass(frozen=True, slots=True)
class _Projection:
    """The path from a block's input `x` to q, k or v: linear, then norm and rope if present."""

    x: Tensor
    weight: Weight
    bias: Weight | None
    table: RopeTable | None
    gamma: Weight | None
    eps: float


def _projection(tensor: Tensor) -> _Projection:
    table, gamma, eps = None, None, 0.0
    if isinstance(tensor.node, RopeNode):
        table = tensor.node.table
        tensor = tensor.node.x
    if isinstance(tensor.node, RmsNormNode):
        gamma, eps = tensor.node.gamma, tensor.node.eps
        tensor = tensor.node.x
    node = tensor.node
    assert isinstance(node, LinearNode), node
    return _Projection(node.x, node.weight, node.bias, table, gamma, eps)


def _absorbed_by(tensor: Tensor) -> list[Tensor]:
    """Returns the tensors that this node's op computes on the way, so that they need no value."""
    match tensor.node:
        case AttentionNode(q, k, v):
            return [t for head in (q, k, v) for t in _chain_to_linear(head)]
        case GatedNode(gate, up):
            return [gate, up]
        case AddNode(_, branch):
            return _chain_to_linear(branch)
        case _:
            return []


def _chain_to_linear(tensor: Tensor) -> list[Tensor]:
    chain = [tensor]
    while isinstance(chain[-1].node, RopeNode | RmsNormNode):
        chain.append(chain[-1].node.x)
    return chain


def _inputs(tensor: Tensor) -> list[Tensor]:
    node = tensor.node
    values = (getattr(node, field.name) for field in fields(node))
    return [value for value in values if isinstance(value, Tensor)]
