"""The ops a backend executes, in order: what remains of a recorded graph after fusion.

Every op is a plain record; a backend is a function from these records to its own calls. All
activations are row-major. Rotary pairs are (2i, 2i + 1) everywhere: weights whose files use
halves are permuted at load (`RowOrder.HALVES_TO_PAIRS`).
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
    num_q: int
    num_kv: int
    head_dim: int

    @property
    def qkv_cols(self) -> int:
        return (self.num_q + 2 * self.num_kv) * self.head_dim


@dataclass(frozen=True, slots=True)
class Embed:
    """out[t] = scale * table[token_id[t]]; `out` is the residual stream, f32."""

    table: Weight  # [vocab, dim]
    scale: float
    out: Value


@dataclass(frozen=True, slots=True)
class Norm:
    """RMS norm (arXiv:1910.07467), with a residual branch added first if there is one.

    if branch:  x += rms_norm(branch) * branch_gamma   (x is updated in place)
    out = rms_norm(x) * gamma
    """

    x: Value
    gamma: Weight
    eps: float
    out: Value
    branch: Value | None = None
    branch_gamma: Weight | None = None


@dataclass(frozen=True, slots=True)
class Linear:
    """out (+)= x @ weight.T + bias; `accumulate` adds to what `out` holds (the residual)."""

    x: Value  # Encoding.ACTIVATION
    weight: Weight
    out: Value
    bias: Weight | None = None
    accumulate: bool = False


@dataclass(frozen=True, slots=True)
class GatedLinear:
    """out = activation(x @ gate.T) * (x @ up.T)"""

    x: Value
    gate: Weight
    up: Weight
    activation: Activation
    out: Value


@dataclass(frozen=True, slots=True)
class RopeKV:
    """Per head: q/k norm if given, rotate q and k, write k and v to the KV cache.

    qkv: [tokens, q heads | k heads | v heads], q is left rotated in place.
    """

    qkv: Value
    heads: Heads
    rope: RopeTable
    layer: int
    q_gamma: Weight | None = None  # [head_dim]
    k_gamma: Weight | None = None
    eps: float = 0.0


@dataclass(frozen=True, slots=True)
class Attention:
    """Causal attention of q (the first columns of `qkv`) over the KV cache of one layer.

    A token at position p sees positions max(0, p - window + 1) .. p of its own sequence.
    """

    qkv: Value
    heads: Heads
    layer: int
    scale: float
    out: Value  # [tokens, num_q * head_dim]
    window: int | None = None


@dataclass(frozen=True, slots=True)
class TakeOutputs:
    """out[o] = x[output_rows[o]]"""

    x: Value
    out: Value


@dataclass(frozen=True, slots=True)
class Sample:
    """Draws one token per output row; see docs/sampling.md for the rule."""

    logits: Value  # [outputs, vocab]


Op = Embed | Norm | Linear | GatedLinear | RopeKV | Attention | TakeOutputs | Sample


@dataclass(frozen=True, slots=True)
class KVCacheShape:
    """Keys and values of `num_layers`, in blocks of `block_size` positions."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    block_size: int = 16


@dataclass(frozen=True, slots=True)
class BatchShape:
    """What one executable can hold at most in a step."""

    max_tokens: int
    max_seqs: int
    max_outputs: int
    max_blocks: int  # per sequence

    @property
    def decodes(self) -> bool:
        """Whether it is for one token of each sequence, in decode's form of attention."""
        return self.max_tokens <= self.max_seqs

    def holds(self, other: BatchShape) -> bool:
        """Whether the other's steps fit into this one."""
        return (
            self.max_tokens >= other.max_tokens
            and self.max_seqs >= other.max_seqs
            and self.max_outputs >= other.max_outputs
            and self.max_blocks >= other.max_blocks
        )


@dataclass(frozen=True, slots=True)
class Program:
    """A model, ready for a backend: the ops of one step and what they need."""

    ops: tuple[Op, ...]
    kv_cache: KVCacheShape
    vocab_size: int

    def matrices(self) -> list[Weight]:
        """Weights that some op multiplies by or looks rows up in, in order of first use."""
        return list(dict.fromkeys(weight for op in self.ops for weight in matrices_of(op)))

    def vectors(self) -> list[Weight]:
        """Weights that some op reads element by element, in order of first use."""
        return list(dict.fromkeys(weight for op in self.ops for weight in vectors_of(op)))

    @property
    def num_token_ids(self) -> int:
        """Rows of the embedding table: a token id lies below."""
        return min(op.table.rows for op in self.ops if isinstance(op, Embed))

    def values(self) -> list[Value]:
        found = {value.id: value for op in self.ops for value in values_of(op)}
        return list(found.values())


def matrices_of(op: Op) -> list[Weight]:
    """An op's matrices: its own need decides that, not what shape a file gave them."""
    match op:
        case Embed():
            return [op.table]
        case Linear():
            return [op.weight]
        case GatedLinear():
            return [op.gate, op.up]
        case _:
            return []


def vectors_of(op: Op) -> list[Weight]:
    match op:
        case Norm():
            used = [op.branch_gamma, op.gamma]
        case Linear():
            used = [op.bias]
        case RopeKV():
            used = [op.q_gamma, op.k_gamma]
        case _:
            used = []
    return [weight for weight in used if weight is not None]


def values_of(op: Op) -> list[Value]:
    """Values an op reads or writes, inputs first."""
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
