"""Matrix products x W^T in three forms, each with several endings.

    few      at most 64 rows of x, bound by reading the weight (`linear_few.py`)
    many     tiles of 64 rows of x (`linear_many.py`)
    simple   one thread for eight rows of W, no barriers: software adapters (`linear_simple.py`)

A weight in several shards takes one dispatch a shard.
"""

from __future__ import annotations

from webllm.backends.webgpu.device.protocol import Device, Dispatch, Slice
from webllm.backends.webgpu.kernels.activation import Encoded
from webllm.backends.webgpu.kernels.linear_few import few, is_few
from webllm.backends.webgpu.kernels.linear_form import Gated, Job, Store
from webllm.backends.webgpu.kernels.linear_many import many
from webllm.backends.webgpu.kernels.linear_simple import simple
from webllm.backends.webgpu.kernels.repack import Matrix
from webllm.backends.webgpu.kernels.step_buffer import RowCount, StepBuffer
from webllm.backends.webgpu.kernels.target import Target


def linear(
    device: Device,
    target: Target,
    *,
    step: StepBuffer,
    rows: RowCount,
    x: Encoded,
    weight: Matrix,
    out: Slice,
    bias: Slice | None = None,
    accumulate: bool = False,
    norm_eps: float | None = None,
) -> list[Dispatch]:
    """out (+)= x W^T + bias. x: [rows, cols]; out: f32 [rows, weight.rows]; bias: [weight.rows].

    norm_eps: x is what `linear_residual` left: see there.
    """
    job = Job(step, rows, x, weight, Store(out, bias, accumulate))
    return _product(device, target, job, norm_eps)


def gated(
    device: Device,
    target: Target,
    *,
    step: StepBuffer,
    rows: RowCount,
    x: Encoded,
    weight: Matrix,
    activation: str,
    out: Encoded,
    norm_eps: float | None = None,
) -> list[Dispatch]:
    """out = activation(x G^T) * (x U^T); rows 2i and 2i + 1 of `weight` are row i of G and of U.

    activation: "silu" or "gelu_tanh"; out: [rows, weight.rows / 2], a multiple of 32 columns.
    """
    assert weight.rows % 64 == 0, weight.rows
    return _product(device, target, Job(step, rows, x, weight, Gated(activation, out)), norm_eps)


def _product(device: Device, target: Target, job: Job, norm_eps: float | None) -> list[Dispatch]:
    if not target.barriers:
        return simple(device, job)
    if is_few(job.rows):
        return few(device, target, job, norm_eps)
    assert norm_eps is None
    return many(device, job)
