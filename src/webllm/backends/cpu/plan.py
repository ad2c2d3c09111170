"""Lowers a program to a plan: the array of ops that C executes, with every address filled in.

One plan, made for the largest batch, serves all batch shapes: C reads a step's sizes from the step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from webllm.backends.cpu.memory_plan import BumpAllocator, plan_arena
from webllm.backends.cpu.structs import (
    OP_BYTES,
    PROGRESS_BYTES,
    QUERY_TILE_BYTES,
    OpKind,
    PlanStruct,
    pack_op,
)
from webllm.backends.cpu.weights import LoadedWeights
from webllm.ops.program import (
    Activation,
    Attention,
    BatchShape,
    Embed,
    GatedLinear,
    Heads,
    Linear,
    Norm,
    Op,
    Program,
    RopeKV,
    Sample,
    TakeOutputs,
)
from webllm.ops.sampled import SampledLayout
from webllm.ops.step import StepLayout
from webllm.ops.values import Encoding, Rows, Value, Weight

MAX_HEAD_DIM = 512  # as in rope_kv.h

# As in attention.h.
_MAX_ROWS = 32
_MAX_SPLITS = 16
_SPLIT_TOKENS = 8

_ACTIVATIONS = {Activation.SILU: 0, Activation.GELU_TANH: 1}


class RowEncoding(IntEnum):
    """The encoding of a row in C (matmul.h).

    BOTH is INT8 followed by F32, for a value that weights of both kinds multiply.
    """

    F32 = 0
    INT8 = 1
    BOTH = 2

    def row_bytes(self, cols: int) -> int:
        int8_bytes = cols + cols // 2
        return {self.F32: 4 * cols, self.INT8: int8_bytes, self.BOTH: int8_bytes + 4 * cols}[self]


class Plan:
    """The offset of everything in the plan's memory: the plan itself first, values last."""

    def __init__(
        self,
        program: Program,
        limits: BatchShape,
        weights: LoadedWeights,
        num_blocks: int,
        num_threads: int,
    ) -> None:
        heads = [op.heads for op in program.ops if isinstance(op, Attention)]
        kv_cache, num_ids = program.kv_cache, program.num_token_ids
        self.layout = StepLayout(limits, kv_cache.block_size, num_blocks, num_ids)
        self.sampled = SampledLayout(limits.max_outputs)
        self._program, self._limits, self._weights = program, limits, weights
        self._encodings = _encodings(program, weights.float_weights)
        self._arena = plan_arena(program, self._value_bytes)
        groups = (min(h.num_q // h.num_kv, _MAX_ROWS) for h in heads)
        self._tile_queries = _MAX_ROWS // max(groups, default=1)

        memory = BumpAllocator()
        memory.allocate(PlanStruct.SIZE)
        self.step_offset = memory.allocate(4 * self.layout.num_words)
        self.sampled_offset = memory.allocate(self.sampled.num_bytes(limits.max_outputs))
        self._progress_offset = memory.allocate(PROGRESS_BYTES * len(program.ops))
        self._query_tiles_offset = memory.allocate(QUERY_TILE_BYTES * limits.max_tokens)
        self._ops_offset = memory.allocate(OP_BYTES * len(program.ops))
        self._scratch_offset = memory.allocate(
            max(_attention_bytes(heads, limits), 8 * num_threads * program.vocab_size)
        )
        self._values_offset = memory.allocate(self._arena.num_bytes)
        self.num_bytes = memory.num_bytes

    @property
    def logits_offset(self) -> int:
        """Offset of the logits that sampling reads, f32 [outputs, vocab]."""
        sample = self._program.ops[-1]
        assert isinstance(sample, Sample), "resampling runs the last op alone"
        return self._values_offset + self._arena.offsets[sample.logits.id]

    def contents(self, address: int, kv_address: int) -> list[tuple[int, bytes]]:
        """Returns what to write to the plan's memory at `address`, as (offset, bytes)."""
        kv_cache, ops = self._program.kv_cache, self._program.ops
        plan = PlanStruct(
            ops=address + self._ops_offset,
            step=address + self.step_offset,
            kv=kv_address,
            sampled=address + self.sampled_offset,
            logprobs=address + self.sampled_offset + 4 * self.sampled.logprobs,
            progress=address + self._progress_offset,
            query_tiles=address + self._query_tiles_offset,
            num_ops=len(ops),
            num_layers=kv_cache.num_layers,
            kv_heads=kv_cache.num_kv_heads,
            head_dim=kv_cache.head_dim,
            tile_queries=self._tile_queries,
        )
        first = address + self._values_offset
        values = {value_id: first + offset for value_id, offset in self._arena.offsets.items()}
        lowering = OpLowering(
            self._weights, values, self._encodings, scratch=address + self._scratch_offset
        )
        return [
            (0, plan.pack(self.layout)),
            (self._ops_offset, b"".join(lowering.lower(op) for op in ops)),
        ]

    def _value_bytes(self, value: Value) -> int:
        of_outputs = value.rows is Rows.OUTPUTS
        rows = self._limits.max_outputs if of_outputs else self._limits.max_tokens
        return rows * self._encodings[value.id].row_bytes(value.cols)


def _attention_bytes(heads: Sequence[Heads], limits: BatchShape) -> int:
    rows = max(limits.max_tokens, _SPLIT_TOKENS * _MAX_SPLITS)
    return max((4 * rows * h.num_q * (h.head_dim + 2) for h in heads), default=0)


@dataclass(frozen=True, slots=True)
class OpLowering:
    """Turns an op into its C struct."""

    weights: LoadedWeights
    values: Mapping[int, int]  # address by value id
    encodings: Mapping[int, RowEncoding]  # by value id
    scratch: int  # address of memory that attention and sampling use within a step

    def lower(self, op: Op) -> bytes:
        match op:
            case Embed():
                return pack_op(
                    OpKind.EMBED, False, self._matrix(op.table), self._value(op.out), op.scale
                )
            case Norm():
                return self._norm(op)
            case Linear():
                return self._linear(op)
            case GatedLinear():
                return self._gated(op)
            case RopeKV():
                return self._rope(op)
            case Attention():
                return self._attention(op)
            case TakeOutputs():
                row_bytes = self._encoding(op.out).row_bytes(op.out.cols)
                addresses = self._value(op.x), self._value(op.out)
                return pack_op(OpKind.TAKE, True, *addresses, row_bytes)
            case Sample():
                address = self._value(op.logits)
                return pack_op(OpKind.SAMPLE, True, address, self.scratch, op.logits.cols)

    def _value(self, value: Value | None) -> int:
        return 0 if value is None else self.values[value.id]

    def _matrix(self, weight: Weight) -> int:
        return self.weights.matrices[weight]

    def _vector(self, weight: Weight | None) -> int:
        return 0 if weight is None else self.weights.vectors[weight]

    def _encoding(self, value: Value) -> RowEncoding:
        return self.encodings[value.id]

    def _norm(self, op: Norm) -> bytes:
        return pack_op(
            OpKind.NORM,
            _of_outputs(op.out),
            self._value(op.x),
            self._vector(op.gamma),
            self._value(op.out),
            self._value(op.branch),
            self._vector(op.branch_gamma),
            op.x.cols,
            self._encoding(op.out),
            op.eps,
        )

    def _linear(self, op: Linear) -> bytes:
        return pack_op(
            OpKind.LINEAR,
            _of_outputs(op.out),
            self._value(op.x),
            self._matrix(op.weight),
            self._vector(op.bias),
            self._value(op.out),
            self._encoding(op.x),
            op.accumulate,
        )

    def _gated(self, op: GatedLinear) -> bytes:
        return pack_op(
            OpKind.GATED,
            _of_outputs(op.out),
            self._value(op.x),
            self._matrix(op.gate),
            self._matrix(op.up),
            self._value(op.out),
            self._encoding(op.x),
            self._encoding(op.out),
            _ACTIVATIONS[op.activation],
        )

    def _rope(self, op: RopeKV) -> bytes:
        fine, coarse = self.weights.ropes[op.rope]
        return pack_op(
            OpKind.ROPE_KV,
            False,
            self._value(op.qkv),
            fine,
            coarse,
            self._vector(op.q_gamma),
            self._vector(op.k_gamma),
            op.heads.num_q,
            op.heads.num_kv,
            op.heads.head_dim,
            op.rope.head_dim,
            op.layer,
            op.eps,
        )

    def _attention(self, op: Attention) -> bytes:
        return pack_op(
            OpKind.ATTENTION,
            False,
            self._value(op.qkv),
            self._value(op.out),
            self.scratch,
            op.heads.num_q,
            op.heads.num_kv,
            op.heads.head_dim,
            op.layer,
            op.window or 0,
            self._encoding(op.out),
            op.scale,
        )


def _of_outputs(value: Value) -> bool:
    return value.rows is Rows.OUTPUTS


def _encodings(program: Program, float_weights: frozenset[Weight]) -> dict[int, RowEncoding]:
    read_as_float = {
        op.x.id
        for op in program.ops
        if (isinstance(op, Linear) and op.weight in float_weights)
        or (isinstance(op, GatedLinear) and not float_weights.isdisjoint((op.gate, op.up)))
    }
    activation = {True: RowEncoding.BOTH, False: RowEncoding.INT8}
    return {
        value.id: activation[value.id in read_as_float]
        if value.encoding is Encoding.ACTIVATION
        else RowEncoding.F32
        for value in program.values()
    }
