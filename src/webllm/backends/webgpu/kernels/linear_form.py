"""What the forms of `linear` share: a job, its snippets and its bindings."""

from __future__ import annotations

from dataclasses import dataclass

from webllm.backends.webgpu.device.protocol import Slice
from webllm.backends.webgpu.kernels.activation import Encoded
from webllm.backends.webgpu.kernels.quant.planar import reader
from webllm.backends.webgpu.kernels.repack import Matrix, Shard
from webllm.backends.webgpu.kernels.step_buffer import RowCount, StepBuffer
from webllm.backends.webgpu.kernels.target import ActivationFormat
from webllm.backends.webgpu.kernels.template import snippet


@dataclass(frozen=True, slots=True)
class Store:
    """out (+)= product + bias, f32 [rows, weight.rows]."""

    out: Slice
    bias: Slice | None = None
    accumulate: bool = False

    def slices(self) -> tuple[Slice, ...]:
        return (self.out,) if self.bias is None else (self.out, self.bias)

    def snippets(self) -> str:
        return snippet("linear_bias_none" if self.bias is None else "linear_bias") + snippet(
            "linear_store"
        )


@dataclass(frozen=True, slots=True)
class Gated:
    """out = activation(even rows) * odd rows, encoded."""

    activation: str  # gated_<activation>.wgsl
    out: Encoded


@dataclass(frozen=True, slots=True)
class Residual:
    """residual += product; out = encoded residual * gamma, its norm left to the consumer."""

    residual: Slice  # f32 [rows, weight.rows]
    gamma: Slice  # f32 [weight.rows]
    out: Encoded  # I8; scales hold twice as many rows: behind them the sums of squares


@dataclass(frozen=True, slots=True)
class Job:
    step: StepBuffer
    rows: RowCount
    x: Encoded
    weight: Matrix
    ending: Store | Gated | Residual

    def reading(self) -> dict[str, str]:
        """Snippets that read weights and x, and multiply a group of both."""
        form = self.weight.form
        integers = self.x.format is ActivationFormat.I8 and not form.is_float
        product = f"i8_{form.scale_group}" if integers else "float"
        return {
            "reader": reader(form),
            "input": snippet(f"linear_input_{self.x.format.value}"),
            "dot": snippet(f"linear_dot_{product}"),
        }

    def inputs(self, shard: Shard) -> tuple[Slice, ...]:
        return (shard.quants, shard.side, *self.x.slices)

    def outputs(self) -> tuple[Slice, ...]:
        match self.ending:
            case Store():
                return self.ending.slices()
            case Gated():
                return self.ending.out.slices
            case Residual():
                return (*self.ending.out.slices, self.ending.residual, self.ending.gamma)

    def constants(self, shard: Shard) -> dict[str, float]:
        out_cols = self.weight.rows // (2 if isinstance(self.ending, Gated) else 1)
        constants: dict[str, float] = {
            "GROUPS": self.weight.groups,
            "ROWS": shard.rows,
            "FIRST_ROW": shard.first_row,
            "OUT_COLS": out_cols,
        }
        if isinstance(self.ending, Store):
            constants["ACCUMULATE"] = self.ending.accumulate
        return constants


def grid(workgroups: int, limit: int) -> tuple[int, int]:
    """At least `workgroups` in two dimensions of at most `limit`."""
    height = -(-workgroups // limit)
    return -(-workgroups // height), height
