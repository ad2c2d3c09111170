"""Turns a program's ops into dispatches, for one batch shape."""

from __future__ import annotations

from dataclasses import dataclass, field

from webllm.backends.webgpu.device.protocol import Buffer, Device, Dispatch, Slice, aligned
from webllm.backends.webgpu.kernels.activation import ActivationFormat, Encoded, row_bytes
from webllm.backends.webgpu.kernels.attention import AttentionShape, Partial, partial_bytes
from webllm.backends.webgpu.kernels.attention.decode import attention_decode, decode_splits
from webllm.backends.webgpu.kernels.attention.prefill import attention_prefill, prefill_splits
from webllm.backends.webgpu.kernels.embed import embed
from webllm.backends.webgpu.kernels.kv_cache import KVSlices
from webllm.backends.webgpu.kernels.linear import gated, linear
from webllm.backends.webgpu.kernels.linear.gemv import can_fuse_norm, linear_residual
from webllm.backends.webgpu.kernels.matrix import Matrix
from webllm.backends.webgpu.kernels.norm import Branch, norm
from webllm.backends.webgpu.kernels.rope_kv import Rope, rope_kv
from webllm.backends.webgpu.kernels.sample import SampleScratch, sample, sample_scratch_bytes
from webllm.backends.webgpu.kernels.step_buffer import RowCount, StepBuffer
from webllm.backends.webgpu.kernels.take_outputs import take_outputs
from webllm.backends.webgpu.kernels.variant import KernelVariant
from webllm.backends.webgpu.memory import Pool, last_uses
from webllm.backends.webgpu.weights import Weights
from webllm.ops.program import (
    Attention,
    BatchShape,
    Embed,
    GatedLinear,
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
from webllm.ops.values import Encoding, RopeTable, Rows, Value, Weight


@dataclass(frozen=True, slots=True)
class Memory:
    """The device memory that the executables of one model share."""

    weights: Weights
    kv: list[KVSlices]  # by layer
    ropes: dict[RopeTable, Rope]
    step: Slice
    layout: StepLayout
    sampled: Slice
    sampled_layout: SampledLayout
    pool: Pool


@dataclass(frozen=True, slots=True)
class SampleStage:
    """The end of every step."""

    logits: Slice
    plain: list[Dispatch]
    full: list[Dispatch]  # with edits, penalties and logprobs


@dataclass(slots=True)
class Lowering:
    """Lowers a program, op by op, into `dispatches` and the `sample_stage` that ends a step."""

    device: Device
    variant: KernelVariant
    memory: Memory
    shape: BatchShape
    dispatches: list[Dispatch] = field(default_factory=list)
    sample_stage: SampleStage | None = None
    step: StepBuffer = field(init=False)
    _buffers: dict[int, Buffer] = field(default_factory=dict)  # by value id
    # By value id: eps of the norm that a value's consumer still applies.
    _norm_eps: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape, memory = self.shape, self.memory
        self.step = StepBuffer(
            memory.step,
            memory.layout,
            shape.max_tokens,
            shape.max_seqs,
            shape.max_outputs,
            memory.layout.shape.max_blocks,
        )

    def lower(self, program: Program) -> None:
        self.memory.pool.release_all()
        done_with = last_uses(program)
        skip = False
        for i, op in enumerate(program.ops):
            following = program.ops[i + 1] if i + 1 < len(program.ops) else None
            if not skip:
                skip = self._fuse(op, following)
                if not skip:
                    self._lower(op)
            else:
                skip = False
            for value in done_with.get(i, []):
                self._release(value)

    def _fuse(self, op: Op, following: Op | None) -> bool:
        """Lowers a product into the residual and the norm after it as one, where that can be."""
        match op, following:
            case Linear(accumulate=True, bias=None), Norm(branch=None) if op.out == following.x:
                pass
            case _:
                return False
        rows = self._rows(op.out)
        if following.out.encoding is Encoding.F32 or not can_fuse_norm(self.variant, rows):
            return False
        self._norm_eps[following.out.id] = following.eps
        self.dispatches += linear_residual(
            self.device,
            self.variant,
            step=self.step,
            rows=rows,
            x=self._encoded(op.x),
            weight=self._matrix(op.weight),
            residual=self._floats(op.out),
            gamma=self._vector(following.gamma),
            out=self._encoded(following.out),
        )
        return True

    def _lower(self, op: Op) -> None:
        match op:
            case Embed():
                self._embed(op)
            case Norm():
                self._norm(op)
            case Linear():
                self._linear(op)
            case GatedLinear():
                self._gated(op)
            case RopeKV():
                self._rope_kv(op)
            case Attention():
                self._attention(op)
            case TakeOutputs():
                self._take_outputs(op)
            case Sample():
                self._sample(op)

    def _embed(self, op: Embed) -> None:
        self.dispatches += embed(
            self.device,
            step=self.step,
            sampled=self.memory.sampled,
            table=self._matrix(op.table),
            scale=op.scale,
            out=self._floats(op.out),
        )

    def _norm(self, op: Norm) -> None:
        branch = None
        if op.branch is not None:
            assert op.branch_gamma is not None
            branch = Branch(self._floats(op.branch), self._vector(op.branch_gamma))
        launched = norm(
            self.device,
            self.variant,
            step=self.step,
            rows=self._rows(op.x),
            x=self._floats(op.x),
            gamma=self._vector(op.gamma),
            cols=op.x.cols,
            eps=op.eps,
            out=self._encoded(op.out),
            branch=branch,
        )
        self.dispatches.append(launched)

    def _linear(self, op: Linear) -> None:
        self.dispatches += linear(
            self.device,
            self.variant,
            step=self.step,
            rows=self._rows(op.x),
            x=self._encoded(op.x),
            weight=self._matrix(op.weight),
            out=self._floats(op.out),
            bias=None if op.bias is None else self._vector(op.bias),
            accumulate=op.accumulate,
            norm_eps=self._norm_eps.get(op.x.id),
        )

    def _gated(self, op: GatedLinear) -> None:
        self.dispatches += gated(
            self.device,
            self.variant,
            step=self.step,
            rows=self._rows(op.x),
            x=self._encoded(op.x),
            weight=self._matrix(op.gate, op.up),
            activation=op.activation.value,
            out=self._encoded(op.out),
            norm_eps=self._norm_eps.get(op.x.id),
        )

    def _rope_kv(self, op: RopeKV) -> None:
        launched = rope_kv(
            self.device,
            self.variant,
            step=self.step,
            qkv=self._floats(op.qkv),
            num_q=op.heads.num_q,
            num_kv=op.heads.num_kv,
            head_dim=op.heads.head_dim,
            rope=self.memory.ropes[op.rope],
            kv=self.memory.kv[op.layer],
            q_gamma=None if op.q_gamma is None else self._vector(op.q_gamma),
            k_gamma=None if op.k_gamma is None else self._vector(op.k_gamma),
            eps=op.eps,
        )
        self.dispatches.append(launched)

    def _attention(self, op: Attention) -> None:
        heads = op.heads
        shape = AttentionShape(heads.num_q, heads.num_kv, heads.head_dim, op.scale, op.window)
        decodes = self.shape.decodes
        splits = (decode_splits if decodes else prefill_splits)(self.variant, shape, self.step)
        out, softmax = (self._temporary(n) for n in partial_bytes(shape, self.step, splits))
        attention = attention_decode if decodes else attention_prefill
        self.dispatches += attention(
            self.device,
            self.variant,
            step=self.step,
            shape=shape,
            qkv=self._floats(op.qkv),
            kv=self.memory.kv[op.layer],
            partial=Partial(out, softmax),
            out=self._encoded(op.out),
        )
        self._release_scratch(out, softmax)

    def _take_outputs(self, op: TakeOutputs) -> None:
        launched = take_outputs(
            self.device,
            step=self.step,
            row_words=op.x.cols,
            x=self._floats(op.x),
            out=self._floats(op.out),
        )
        self.dispatches.append(launched)

    def _sample(self, op: Sample) -> None:
        logits, vocab = self._floats(op.logits), op.logits.cols
        sizes = sample_scratch_bytes(self.variant, vocab, self.shape.max_outputs)
        scratch = [self._temporary(n) for n in sizes]
        plain, full = (
            sample(
                self.device,
                self.variant,
                step=self.step,
                logits=logits,
                vocab=vocab,
                scratch=SampleScratch(*scratch),
                sampled=self.memory.sampled,
                first_logprobs=self.memory.sampled_layout.logprobs,
                is_plain=is_plain,
            )
            for is_plain in (True, False)
        )
        self.sample_stage = SampleStage(logits, plain, full)
        self._release_scratch(*scratch)

    def _matrix(self, *weights: Weight) -> Matrix:
        return self.memory.weights.matrices[weights]

    def _vector(self, weight: Weight) -> Slice:
        return self.memory.weights.vectors[weight]

    def _rows(self, value: Value) -> RowCount:
        return self.step.tokens if value.rows is Rows.TOKENS else self.step.outputs

    def _floats(self, value: Value) -> Slice:
        assert value.encoding is Encoding.F32, value
        size = 4 * self._rows(value).maximum * value.cols
        return Slice(self._buffer(value, size), 0, size)

    def _encoded(self, value: Value) -> Encoded:
        if value.encoding is Encoding.F32:
            return Encoded(ActivationFormat.F32, self._floats(value))
        rows, format = self._rows(value).maximum, self.variant.activation
        sizes = [rows * size for size in row_bytes(format, value.cols)]
        if value.id in self._norm_eps:
            sizes[1] *= 2  # the sums of squares follow the scales
        first = aligned(sizes[0])
        buffer = self._buffer(value, first + sum(sizes[1:]))
        values = Slice(buffer, 0, sizes[0])
        return Encoded(format, values, *(Slice(buffer, first, size) for size in sizes[1:]))

    def _buffer(self, value: Value, num_bytes: int) -> Buffer:
        if value.id not in self._buffers:
            self._buffers[value.id] = self.memory.pool.acquire(num_bytes)
        return self._buffers[value.id]

    def _release(self, value: Value) -> None:
        self.memory.pool.release(self._buffers.pop(value.id))

    def _temporary(self, num_bytes: int) -> Slice:
        return Slice(self.memory.pool.acquire(num_bytes), 0, num_bytes)

    def _release_scratch(self, *temporaries: Slice) -> None:
        for temporary in temporaries:
            self.memory.pool.release(temporary.buffer)
