"""GEMV: products of at most 64 rows of x (decode), eight at a time.

A row of the weight is made of groups of 32 columns. Some threads, the lanes, share a pair of rows
and take its groups in turns. A workgroup has several pairs, and a dispatch all pairs of a shard.
"""

from __future__ import annotations

from dataclasses import dataclass

from webllm.backends.webgpu.device.protocol import Device, Dispatch, Slice
from webllm.backends.webgpu.kernels.activation import GROUP, ActivationFormat, Encoded
from webllm.backends.webgpu.kernels.linear.product import Gated, Product, Residual, Store, grid
from webllm.backends.webgpu.kernels.matrix import Matrix, Shard, reader
from webllm.backends.webgpu.kernels.step_buffer import RowCount, StepBuffer
from webllm.backends.webgpu.kernels.template import part, source
from webllm.backends.webgpu.kernels.variant import KernelVariant

MAX_GEMV_ROWS = 64  # of x: the most that decode at once
_ROWS_AT_ONCE = 8
_MAX_LANES = 128

_DOT_I8 = {  # by the columns of the weight that share a scale
    32: "linear/gemv#dot_i8_scale32",
    16: "linear/gemv#dot_i8_scale16",
}


@dataclass(frozen=True, slots=True)
class GemvTiling:
    """`lanes` threads share two rows of the weight, a pair.

    A workgroup takes `pairs_at_once` pairs at a time, `loops` times.
    """

    lanes: int
    pairs_at_once: int
    loops: int

    @property
    def pairs(self) -> int:
        return self.pairs_at_once * self.loops

    @property
    def threads(self) -> int:
        return self.lanes * self.pairs_at_once


def gemv_tiling(groups: int, pairs: int | None, subgroup: int, max_threads: int) -> GemvTiling:
    """Returns the tiling for rows of `groups` groups; measured on an H200.

    - A pair of rows takes about 128 threads, a multiple of the subgroup, with equal work each.
    - `pairs` is the number of pairs a workgroup must take; None: any, for about 256 threads.
    - With 16 pairs there are few workgroups, so each gets all the threads there may be; with 32
      there are enough to fill the GPU, and 512 threads a workgroup are faster.
    """
    if subgroup:
        turns = -(-groups // _MAX_LANES)
        lanes = -(-groups // (turns * subgroup)) * subgroup
    else:
        lanes = 1 << (min(groups, 64) - 1).bit_length()
    if pairs is None:
        return GemvTiling(lanes, max(1, min(256, max_threads) // lanes), 1)
    limit = max_threads if pairs < 32 else min(512, max_threads)
    at_once = 1
    while at_once * 2 * lanes <= limit and pairs % (at_once * 2) == 0:
        at_once *= 2
    return GemvTiling(lanes, at_once, pairs // at_once)


def can_fuse_norm(variant: KernelVariant, rows: RowCount) -> bool:
    """Returns whether `linear_residual` and `norm_eps` may be used."""
    integers = variant.activation is ActivationFormat.I8
    return integers and variant.subgroup > 0 and variant.barriers and takes(rows)


def takes(rows: RowCount) -> bool:
    """Returns whether GEMV takes `rows`: at most 64, in whole tiles of eight."""
    at_once = min(rows.maximum, _ROWS_AT_ONCE)
    return rows.maximum <= MAX_GEMV_ROWS and rows.maximum % at_once == 0


def dispatches(
    device: Device, variant: KernelVariant, product: Product, norm_eps: float | None = None
) -> list[Dispatch]:
    """Returns a dispatch for each shard; norm_eps: x is an output of `linear_residual`."""
    return [_gemv(device, variant, product, norm_eps, shard) for shard in product.weight.shards]


def linear_residual(
    device: Device,
    variant: KernelVariant,
    *,
    step: StepBuffer,
    rows: RowCount,
    x: Encoded,
    weight: Matrix,
    residual: Slice,
    gamma: Slice,
    out: Encoded,
) -> list[Dispatch]:
    """residual += x W^T; out = encoded residual * gamma, for consumers with `norm_eps`.

    Those divide by the root mean square, whose sums follow out's scales: that slice is
    f32 [2, rows, weight.rows / 32, 2]. Only where `can_fuse_norm`; weight.rows % 32 == 0.
    """
    assert weight.rows % GROUP == 0, weight.rows
    return dispatches(
        device, variant, Product(step, rows, x, weight, Residual(residual, gamma, out))
    )


def _gemv(
    device: Device, variant: KernelVariant, product: Product, norm_eps: float | None, shard: Shard
) -> Dispatch:
    # A workgroup encodes whole groups of 32 outputs: a pair has one if gated, else two.
    pairs = {Store: None, Gated: 32, Residual: 16}[type(product.epilogue)]
    limit = device.limits.max_workgroup_threads
    tiling = gemv_tiling(product.weight.groups, pairs, variant.subgroup, limit)
    constants = product.constants(shard) | {
        "LANES": tiling.lanes,
        "PAIRS_AT_ONCE": tiling.pairs_at_once,
        "LOOPS": tiling.loops,
        "MAX_TOKENS": product.rows.maximum,
    }
    if variant.subgroup:
        constants["SUBGROUP"] = variant.subgroup
    if norm_eps is not None:
        constants["EPS"] = norm_eps
    inputs = product.inputs(shard)
    rows_at_once = min(product.rows.maximum, _ROWS_AT_ONCE)
    format = product.weight.format
    dot = _DOT_I8[format.scale_group] if product.is_integer else "linear/gemv#dot_f32"
    lanes = "linear/gemv#lanes_subgroup" if variant.subgroup else "linear/gemv#lanes_workgroup"
    scale = "linear/gemv#input_scale_one" if norm_eps is None else "linear/gemv#input_scale_rms"
    code = source(
        "linear/gemv",
        tokens=str(rows_at_once),
        pairs=str(tiling.pairs),
        parts=str(tiling.lanes // variant.subgroup if variant.subgroup else 1),
        threads=str(tiling.threads),
        out=str(len(inputs)),
        reader=reader(format),
        input=product.x.read,
        dot=part(dot),
        lanes=part(lanes),
        input_scale=part(scale),
        epilogue=_epilogue(variant, product),
    )
    label = product.label("linear/gemv")
    return Dispatch(
        device.pipeline(code, constants, label, proven=True),
        (*inputs, *product.outputs()),
        (
            *grid(-(-shard.rows // (2 * tiling.pairs)), device.limits.max_workgroups),
            product.rows.maximum // rows_at_once,
        ),
        label,
    )


def _epilogue(variant: KernelVariant, product: Product) -> str:
    epilogue = product.epilogue
    match epilogue:
        case Store():
            return epilogue.store + part("linear/gemv#epilogue_store")
        case Gated():
            return source(
                "linear/gemv#epilogue_gated", activation=epilogue.activate, write=epilogue.out.write
            )
        case Residual():
            if variant.subgroup == GROUP:  # a subgroup encodes a group, without workgroup memory
                return part("linear/gemv#epilogue_residual_subgroup32")
            return source("linear/gemv#epilogue_residual", write=epilogue.out.write)
