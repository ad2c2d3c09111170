"""Checks, before a program is loaded, everything that kernels rely on without checking it.

The C kernels, and the WGSL kernels that run without the driver's bounds checks, access memory
wherever a program's sizes lead them. docs/kernel-contract.md lists what each of them relies on.
"""

from __future__ import annotations

from webllm.artifacts.checkpoint import GROUP_COLS, Checkpoint, StorageType
from webllm.errors import CheckpointError, UnsupportedModelError
from webllm.ops.padding import HEAD_DIM_STEP
from webllm.ops.program import (
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
    matrices_of,
    vectors_of,
)
from webllm.ops.values import Encoding, Part, RowOrder, Rows, Value, Weight

_VECTOR_TYPES = (StorageType.F32, StorageType.F16, StorageType.BF16)


def check_program(
    program: Program, checkpoint: Checkpoint, limits: BatchShape, *, max_head_dim: int
) -> None:
    """Checks a program and its checkpoint for batches up to `limits`.

    Raises UnsupportedModelError for sizes that no kernel supports, CheckpointError for a tensor
    whose bytes do not match its shape.
    """
    for op in program.ops:
        _check_values(op)
        _check_op(op, program)
        if isinstance(op, RopeKV | Attention):
            _check_heads(op.heads, op.layer, program, max_head_dim)
        if isinstance(op, RopeKV):
            _check_rope(op, program.kv_cache.block_size * limits.max_blocks)
        for weight in matrices_of(op):
            _check_matrix(weight, checkpoint)
        for weight in vectors_of(op):
            _check_vector(weight, checkpoint)
    is_sample = [isinstance(op, Sample) for op in program.ops]
    _require(is_sample.count(True) == 1 and is_sample[-1], "sampling is not the last op")


def _require(holds: bool, subject: object) -> None:
    if not holds:
        named = _name(subject) if isinstance(subject, Op) else subject
        raise UnsupportedModelError(f"the model's sizes do not fit together: {named}")


def _name(op: Op) -> str:
    """Names an op in a message: its kind and the tensors it reads."""
    weights = [*matrices_of(op), *vectors_of(op)]
    tensors = ", ".join(part.tensor for weight in weights for part in weight.parts)
    return f"{type(op).__name__} of {tensors}" if tensors else type(op).__name__


def _check_values(op: Op) -> None:
    """Matrix products read Encoding.ACTIVATION; every other op reads f32."""
    match op:
        case Linear():
            kinds = [(op.x, Encoding.ACTIVATION), (op.out, Encoding.F32)]
        case GatedLinear():
            kinds = [(op.x, Encoding.ACTIVATION)]
        case Norm():
            kinds = [(value, Encoding.F32) for value in (op.x, op.branch) if value is not None]
        case RopeKV() | Attention():
            kinds = [(op.qkv, Encoding.F32)]
        case TakeOutputs():
            kinds = [(op.x, Encoding.F32), (op.out, Encoding.F32)]
        case Embed():
            kinds = [(op.out, Encoding.F32)]
        case Sample():
            kinds = [(op.logits, Encoding.F32)]
    _require(all(value.encoding is encoding for value, encoding in kinds), op)


def _check_op(op: Op, program: Program) -> None:
    match op:
        case Embed(table, _, out):
            _require(_shape(out) == (Rows.TOKENS, table.cols), op)
        case Norm(x, gamma, _, out, branch, branch_gamma):
            _require(_shape(x) == _shape(out) and x.cols == gamma.rows, op)
            _require((branch is None) == (branch_gamma is None), op)
            if branch is not None and branch_gamma is not None:
                _require(_shape(x) == _shape(branch) and x.cols == branch_gamma.rows, op)
            _check_group(x.cols, "the hidden size")
        case Linear(x, weight, out, bias):
            _require(x.cols == weight.cols and _shape(out) == (x.rows, weight.rows), op)
            _require(bias is None or bias.rows == weight.rows, op)
        case GatedLinear(x, gate, up, _, out):
            _require(x.cols == gate.cols == up.cols and gate.rows == up.rows, op)
            _require(_shape(out) == (x.rows, gate.rows), op)
            _check_group(gate.rows, "the feed-forward size")
        case RopeKV(qkv, heads):
            _require(_shape(qkv) == (Rows.TOKENS, heads.qkv_cols), op)
        case Attention(qkv, heads, _, _, out):
            _require(_shape(qkv) == (Rows.TOKENS, heads.qkv_cols), op)
            _require(_shape(out) == (Rows.TOKENS, heads.num_q * heads.head_dim), op)
            _check_group(out.cols, "the size of all heads together")
        case TakeOutputs(x, out):
            _require(x.rows is Rows.TOKENS and _shape(out) == (Rows.OUTPUTS, x.cols), op)
        case Sample(logits):
            _require(_shape(logits) == (Rows.OUTPUTS, program.vocab_size), op)


def _shape(value: Value) -> tuple[Rows, int]:
    return value.rows, value.cols


def _check_group(size: int, name: str) -> None:
    if size < GROUP_COLS or size % GROUP_COLS:
        raise UnsupportedModelError(
            f"{name} is {size}; only multiples of {GROUP_COLS} run: choose another model"
        )


def _check_heads(heads: Heads, layer: int, program: Program, max_head_dim: int) -> None:
    dim = heads.head_dim
    if dim % HEAD_DIM_STEP or not 0 < dim <= max_head_dim or heads.num_q % heads.num_kv:
        raise UnsupportedModelError(
            f"heads of {dim} dimensions, {heads.num_q} over {heads.num_kv}: this device needs "
            f"multiples of {HEAD_DIM_STEP} up to {max_head_dim}, and whole groups: choose another "
            "model"
        )
    kv = program.kv_cache
    _require((heads.num_kv, dim) == (kv.num_kv_heads, kv.head_dim) and layer < kv.num_layers, kv)


def _check_rope(op: RopeKV, num_positions: int) -> None:
    dim, rotated = op.heads.head_dim, op.rope.head_dim
    _require(rotated <= dim and rotated % 4 == 0, f"{rotated} of {dim} dimensions rotate")
    covered = op.rope.num_coarse * op.rope.FINE
    _require(num_positions <= covered, f"{covered} positions rotate, {num_positions} may come")
    for gamma in vectors_of(op):
        _require(gamma.rows == dim, f"a norm of {gamma.rows} over heads of {dim}")


def _check_matrix(weight: Weight, checkpoint: Checkpoint) -> None:
    name, cols = weight.parts[0].tensor, weight.cols
    if cols < GROUP_COLS or cols % GROUP_COLS:
        raise UnsupportedModelError(
            f"{name} has {cols} columns; only multiples of {GROUP_COLS} run: choose another model"
        )
    for part in weight.parts:
        dtype = checkpoint.tensors[part.tensor].dtype
        if cols % checkpoint.tensors[part.tensor].storage.block_elements:
            raise UnsupportedModelError(
                f"{part.tensor} has {cols} columns of {dtype.name}, which are stored in blocks of "
                f"{dtype.block_elements}: choose another quantization"
            )
        _check_part(part, checkpoint, (part.rows, cols))


def _check_vector(weight: Weight, checkpoint: Checkpoint) -> None:
    _require(weight.cols == 1, f"{weight.parts[0].tensor} is a vector of {weight.cols} columns")
    for part in weight.parts:
        dtype = checkpoint.tensors[part.tensor].dtype
        if dtype not in _VECTOR_TYPES:
            raise UnsupportedModelError(f"the vector {part.tensor} is stored as {dtype.name}")
        _check_part(part, checkpoint, (part.rows,))


def _check_part(part: Part, checkpoint: Checkpoint, shape: tuple[int, ...]) -> None:
    found = checkpoint.tensors[part.tensor].shape
    if part.rows < 1 or found != shape:
        raise CheckpointError(f"{part.tensor} has the shape {found} instead of {shape}")
    if part.order is RowOrder.HALVES_TO_PAIRS:
        whole = part.head_dim > 0 and part.head_dim % 2 == 0 and part.rows % part.head_dim == 0
        _require(whole, f"{part.tensor} has {part.rows} rows in heads of {part.head_dim}")


def out_of_range(tensor: str) -> CheckpointError:
    """The error of kernels that find a scale or a minimum which f16 cannot hold."""
    return CheckpointError(
        f"{tensor} has scales beyond 65504, the largest f16, or not finite; the file is damaged"
    )
