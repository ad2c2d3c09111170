"""The program of a model: the fused ops that a backend executes, in order.

An op is plain data; a backend translates each into its own calls. All activations are row-major.
Rotary pairs are (2i, 2i + 1) everywhere: weights of files that pair (i, i + head_dim / 2) are
permuted when they are loaded (`RowOrder.HALVES_TO_PAIRS`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from webllm.ops.values import Encoding, RopeTable, Rows, Value, Weight


class Activation(Enum):
    SILU = "silu"
    GELU_TANH = "gelu_tanh"


@dataclass(frozen=True, slots=True)
class Heads:
    """Numbers of query and key/value heads; num_q / num_kv query heads share a KV head."""

    num_q: int
    num_kv: int
    head_dim: int

    @property
    def qkv_cols(self) -> int:
        return (self.num_q + 2 * self.num_kv) * self.head_dim


@dataclass(frozen=True, slots=True)
class Embed:
    """out[t] = scale * table[token_ids[t]]"""

    table: Weight  # [vocab, dim]
    scale: float
    out: Value  # [tokens, dim], f32: the residual stream


@dataclass(frozen=True, slots=True)
class Norm:
    """RMS norm (arXiv:1910.07467), after adding a normed branch to the residual if there is one.

    if branch:  x += rms_norm(branch) * branch_gamma   (in place)
    out = rms_norm(x) * gamma
    """

    x: Value  # [rows, dim], f32
    gamma: Weight  # [dim]
    eps: float
    out: Value  # [rows, dim]
    branch: Value | None = None  # [rows, dim], f32
    branch_gamma: Weight | None = None


@dataclass(frozen=True, slots=True)
class Linear:
    """out = x @ weight.T + bias, or with `accumulate` out += the same (out is the residual)."""

    x: Value  # [rows, in], Encoding.ACTIVATION
    weight: Weight  # [out, in]
    out: Value  # [rows, out], f32
    bias: Weight | None = None  # [out]
    accumulate: bool = False


@dataclass(frozen=True, slots=True)
class GatedLinear:
    """out = activation(x @ gate.T) * (x @ up.T)"""

    x: Value  # [rows, in], Encoding.ACTIVATION
    gate: Weight  # [out, in]
    up: Weight  # [out, in]
    activation: Activation
    out: Value  # [rows, out]


@dataclass(frozen=True, slots=True)
class RopeKV:
    """For each head: norms q and k if gammas are given, rotates them, writes k, v to the KV cache.

    The rotated q replaces the q columns of `qkv`.
    """

    qkv: Value  # [tokens, q heads | k heads | v heads], f32
    heads: Heads
    rope: RopeTable
    layer: int
    q_gamma: Weight | None = None  # [head_dim]
    k_gamma: Weight | None = None
    eps: float = 0.0


@dataclass(frozen=True, slots=True)
class Attention:
    """Causal attention of q, the first columns of `qkv`, over the KV cache of one layer.

    A token at position p attends to positions max(0, p - window + 1) .. p of its own sequence.
    """

    qkv: Value  # [tokens, q heads | k heads | v heads], f32
    heads: Heads
    layer: int
    scale: float
    out: Value  # [tokens, num_q * head_dim]
    window: int | None = None


@dataclass(frozen=True, slots=True)
class TakeOutputs:
    """out[o] = x[output_rows[o]]"""

    x: Value  # [tokens, cols]
    out: Value  # [outputs, cols]


@dataclass(frozen=True, slots=True)
class Sample:
    """Draws one token for each row of logits by the rule of docs/sampling.md."""

    logits: Value  # [outputs, vocab]


Op = Embed | Norm | Linear | GatedLinear | RopeKV | Attention | TakeOutputs | Sample


@dataclass(frozen=True, slots=True)
class KVCacheShape:
    """A paged KV cache (arXiv:2309.06180): blocks of `block_size` positions of all layers."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    block_size: int = 16


@dataclass(frozen=True, slots=True)
class BatchShape:
    """The largest batch that an executable runs."""

    max_tokens: int
    max_seqs: int
    max_outputs: int
    max_blocks: int  # KV blocks of one sequence

    @property
    def decodes(self) -> bool:
        """Whether every sequence has one token, so that attention uses its decode kernel."""
        return self.max_tokens <= self.max_seqs

    def holds(self, other: BatchShape) -> bool:
        """Returns whether every step that fits `other` fits this shape."""
        return (
            self.max_tokens >= other.max_tokens
            and self.max_seqs >= other.max_seqs
            and self.max_outputs >= other.max_outputs
            and self.max_blocks >= other.max_blocks
        )


@dataclass(frozen=True, slots=True)
class Program:
    """A model as a backend loads it: the ops of one step, and the KV cache they use."""

    ops: tuple[Op, ...]
    kv_cache: KVCacheShape
    vocab_size: int

    def matrices(self) -> list[Weight]:
        """Weights that ops multiply by or look rows up in, in order of first use."""
        return list(dict.fromkeys(weight for op in self.ops for weight in matrices_of(op)))

    def vectors(self) -> list[Weight]:
        """Weights that ops read element by element, in order of first use."""
        return list(dict.fromkeys(weight for op in self.ops for weight in vectors_of(op)))

    @property
    def num_token_ids(self) -> int:
        """Rows of the embedding table; every token id is below it."""
        return min(op.table.rows for op in self.ops if isinstance(op, Embed))

    def values(self) -> list[Value]:
        """Every value that ops read or write, in order of first use."""
        found = {value.id: value for op in self.ops for value in values_of(op)}
        return list(found.values())


def matrices_of(op: Op) -> list[Weight]:
    """Returns the weights that an op uses as matrices, whatever shape the file gives them."""
    match op:
        case Embed():
            return [op.table]
        case Linear():
            return [op.weight]
        case GatedLinear():
            return [op.gate, op.up]
        case Norm() | RopeKV() | Attention() | TakeOutputs() | Sample():
            return []


def vectors_of(op: Op) -> list[Weight]:
    """Returns the weights that an op uses as vectors: gammas and biases."""
    match op:
        case Norm():
            used: list[Weight | None] = [op.branch_gamma, op.gamma]
        case Linear():
            used = [op.bias]
        case RopeKV():
            used = [op.q_gamma, op.k_gamma]
        case Embed() | GatedLinear() | Attention() | TakeOutputs() | Sample():
            used = []
    return [weight for weight in used if weight is not None]


def values_of(op: Op) -> list[Value]:
    """Returns the values that an op reads or writes, inputs first."""
    match op:
        case Embed():
            used: list[Value | None] = [op.out]
        case Norm():
            used = [op.x, op.branch, op.out]
        case RopeKV():
            used = [op.qkv]
        case Attention():
            used = [op.qkv, op.out]
        case Sample():
            used = [op.logits]
        case Linear() | GatedLinear() | TakeOutputs():
            used = [op.x, op.out]
    return [value for value in used if value is not None]


__all__ = [
    "Activation",
    "Attention",
    "BatchShape",
    "Embed",
    "Encoding",
    "GatedLinear",
    "Heads",
    "KVCacheShape",
    "Linear",
    "Norm",
    "Op",
    "Program",
    "RopeKV",
    "Rows",
    "Sample",
    "TakeOutputs",
    "matrices_of",
    "values_of",
    "vectors_of",
]
