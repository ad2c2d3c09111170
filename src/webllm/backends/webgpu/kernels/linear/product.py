"""A matrix product and its epilogue: operands, WGSL and bindings that all kernels share.

An epilogue says what becomes of the product: it is stored, gated or added to the residual stream.
"""

from __future__ import annotations

from dataclasses import dataclass

from webllm.backends.webgpu.device.protocol import Slice
from webllm.backends.webgpu.kernels.activation import ActivationFormat, Encoded
from webllm.backends.webgpu.kernels.matrix import Matrix, Shard
from webllm.backends.webgpu.kernels.step_buffer import RowCount, StepBuffer
from webllm.backends.webgpu.kernels.template import part

_ACTIVATIONS = {
    "silu": "linear/parts/epilogues#silu",
    "gelu_tanh": "linear/parts/epilogues#gelu_tanh",
}


@dataclass(frozen=True, slots=True)
class Store:
    """out (+)= product + bias, f32 [rows, weight.rows]."""

    out: Slice
    bias: Slice | None = None
    accumulate: bool = False

    @property
    def slices(self) -> tuple[Slice, ...]:
        return (self.out,) if self.bias is None else (self.out, self.bias)

    @property
    def add_bias(self) -> str:
        """Returns WGSL that defines `bias_of`."""
        return part(
            "linear/parts/epilogues#no_bias" if self.bias is None else "linear/parts/epilogues#bias"
        )

    @property
    def store(self) -> str:
        """Returns WGSL that defines `store`, for one element, and `bias_of`."""
        return self.add_bias + part("linear/parts/epilogues#store")


@dataclass(frozen=True, slots=True)
class Gated:
    """out = activation(even rows) * odd rows, encoded."""

    activation: str  # "silu" or "gelu_tanh"
    out: Encoded

    @property
    def activate(self) -> str:
        """Returns WGSL that defines `activated`."""
        return part(_ACTIVATIONS[self.activation])


@dataclass(frozen=True, slots=True)
class Residual:
    """residual += product; out = encoded residual * gamma, its norm left to the consumer."""

    residual: Slice  # f32 [rows, weight.rows]
    gamma: Slice  # f32 [weight.rows]
    out: Encoded  # I8; scales hold twice as many rows: the sums of squares follow the scales


@dataclass(frozen=True, slots=True)
class Product:
    """A product and its epilogue."""

    step: StepBuffer
    rows: RowCount
    x: Encoded
    weight: Matrix
    epilogue: Store | Gated | Residual

    @property
    def is_integer(self) -> bool:
        """Whether x and the weight are both integers."""
        return self.x.format is ActivationFormat.I8 and not self.weight.format.is_float

    def inputs(self, shard: Shard) -> tuple[Slice, ...]:
        return (shard.quants, shard.scales, *self.x.slices)

    def outputs(self) -> tuple[Slice, ...]:
        match self.epilogue:
            case Store():
                return self.epilogue.slices
            case Gated():
                return self.epilogue.out.slices
            case Residual():
                return (*self.epilogue.out.slices, self.epilogue.residual, self.epilogue.gamma)

    def constants(self, shard: Shard) -> dict[str, float]:
        out_cols = self.weight.rows // (2 if isinstance(self.epilogue, Gated) else 1)
        constants: dict[str, float] = {
            "GROUPS": self.weight.groups,
            "ROWS": shard.rows,
            "FIRST_ROW": shard.first_row,
            "OUT_COLS": out_cols,
        }
        if isinstance(self.epilogue, Store):
            constants["ACCUMULATE"] = self.epilogue.accumulate
        return constants

    def label(self, kernel: str) -> str:
        return f"{kernel} {type(self.epilogue).__name__.lower()}"


def grid(workgroups: int, limit: int) -> tuple[int, int]:
    """Returns two dimensions of at most `limit` with at least `workgroups` in all."""
    height = -(-workgroups // limit)
    return -(-workgroups // height), height
