"""Products of many rows of x: tiles of 64 by 64, in int8 where x and the weight are integers."""

from __future__ import annotations

from webllm.backends.webgpu.device.protocol import Device, Dispatch
from webllm.backends.webgpu.kernels.activation import GROUP
from webllm.backends.webgpu.kernels.linear.product import Gated, Product, Residual, Store
from webllm.backends.webgpu.kernels.matrix import Shard, reader
from webllm.backends.webgpu.kernels.template import part, source

_TILE = 64


def dispatches(device: Device, product: Product) -> list[Dispatch]:
    """Returns a dispatch for each shard."""
    return [_gemm(device, product, shard) for shard in product.weight.shards]


def _gemm(device: Device, product: Product, shard: Shard) -> Dispatch:
    inputs = (*product.inputs(shard), product.step.words)
    code = _source(product, shard, len(inputs))
    constants = product.constants(shard) | {"COUNT": product.rows.word}
    label = product.label("linear/gemm_i8" if product.is_integer else "linear/gemm_f32")
    return Dispatch(
        device.pipeline(code, constants, label, proven=True),
        (*inputs, *product.outputs()),
        (-(-shard.rows // _TILE), -(-product.rows.maximum // _TILE), 1),
        label,
    )


def _source(product: Product, shard: Shard, num_inputs: int) -> str:
    format = product.weight.format
    common = {
        "out": str(num_inputs),
        "reader": reader(format),
        "input": product.x.read,
        "epilogue": _epilogue(product, shard),
    }
    if not product.is_integer:
        return source("linear/gemm_f32", step=str(num_inputs - 1), **common)
    halves = GROUP // format.scale_group
    words = (source("linear/gemm_i8#word", word=str(i)) for i in range(8 // halves))
    return source(
        "linear/gemm_i8",
        halves=str(halves),
        mins=str(format.mins).lower(),
        words="".join(words),
        **common,
    )


def _epilogue(product: Product, shard: Shard) -> str:
    epilogue = product.epilogue
    match epilogue:
        case Store():
            if product.weight.rows % 4 == 0 and shard.rows % 4 == 0:
                return epilogue.add_bias + part("linear/parts/epilogues#gemm_store4")
            return epilogue.store + part("linear/parts/epilogues#gemm_store")
        case Gated():
            return source(
                "linear/parts/epilogues#gemm_gated",
                activation=epilogue.activate,
                write=epilogue.out.write,
            )
        case Residual():
            raise AssertionError("only gemv fuses the norm")
