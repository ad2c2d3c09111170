"""Matrix products x W^T by three kinds of kernels, each with several epilogues.

    gemv    at most 64 rows of x (decode): bound by reading the weight (`gemv.py`)
    gemm    many rows of x (prefill): tiles of 64 rows of x by 64 rows of the weight (`gemm.py`)
    scalar  one thread for eight rows of the weight, without barriers: software adapters
            (`scalar.py`)

A weight in several shards takes one dispatch for each shard.
"""

from __future__ import annotations

from webllm.backends.webgpu.device.protocol import Device, Dispatch, Slice
from webllm.backends.webgpu.kernels.activation import Encoded
from webllm.backends.webgpu.kernels.linear import gemm, gemv, scalar
from webllm.backends.webgpu.kernels.linear.product import Gated, Product, Store
from webllm.backends.webgpu.kernels.matrix import Matrix
from webllm.backends.webgpu.kernels.step_buffer import RowCount, StepBuffer
from webllm.backends.webgpu.kernels.variant import KernelVariant


def linear(
    device: Device,
    variant: KernelVariant,
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

    norm_eps: x is an output of `linear_residual`, which leaves its norm to this product.
    """
    product = Product(step, rows, x, weight, Store(out, bias, accumulate))
    return _product(device, variant, product, norm_eps)


def gated(
    device: Device,
    variant: KernelVariant,
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
    norm_eps: see `linear`.
    """
    assert weight.rows % 64 == 0, weight.rows
    return _product(
        device, variant, Product(step, rows, x, weight, Gated(activation, out)), norm_eps
    )


def _product(
    device: Device, variant: KernelVariant, product: Product, norm_eps: float | None
) -> list[Dispatch]:
    if not variant.barriers:
        return scalar.dispatches(device, product)
    if gemv.takes(product.rows):
        return gemv.dispatches(device, variant, product, norm_eps)
    assert norm_eps is None
    return gemm.dispatches(device, product)
