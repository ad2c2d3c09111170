"""Products without barriers, for software adapters; loops over words and rows are unrolled."""

from __future__ import annotations

from functools import cache

from webllm.backends.webgpu.device.protocol import Device, Dispatch
from webllm.backends.webgpu.kernels.linear.product import Gated, Product, Residual, Store, grid
from webllm.backends.webgpu.kernels.matrix import Shard, reader
from webllm.backends.webgpu.kernels.template import part, source

_THREADS = 16
_ROWS = 8  # of the weight that a thread takes
_MAX_TOKENS = 4  # rows of x that a thread takes


def dispatches(device: Device, product: Product) -> list[Dispatch]:
    """Returns a dispatch for each shard."""
    return [_scalar(device, product, shard) for shard in product.weight.shards]


def _scalar(device: Device, product: Product, shard: Shard) -> Dispatch:
    inputs = (*product.inputs(shard), product.step.words)
    tokens = min(_MAX_TOKENS, product.rows.maximum)
    is_float = product.weight.format.is_float
    code = source(
        "linear/scalar",
        tokens=str(tokens),
        out=str(len(inputs)),
        step=str(len(inputs) - 1),
        reader=reader(product.weight.format),
        input=product.x.read,
        epilogue=_epilogue(product),
        begin=_each_token("linear/scalar#begin", tokens),
        products=_float_products(tokens) if is_float else _integer_products(tokens),
        end=_each_token("linear/scalar#end", tokens),
    )
    constants = product.constants(shard) | {"COUNT": product.rows.word}
    label = product.label("linear/scalar")
    width, height = grid(-(-shard.rows // (_ROWS * _THREADS)), device.limits.max_workgroups)
    return Dispatch(
        device.pipeline(code, constants, label, proven=True),
        (*inputs, *product.outputs()),
        (width, height, -(-product.rows.maximum // tokens)),
        label,
    )


def _epilogue(product: Product) -> str:
    epilogue = product.epilogue
    match epilogue:
        case Store():
            return epilogue.store + part("linear/scalar#epilogue_store")
        case Gated():
            return source("linear/scalar#epilogue_gated", activation=epilogue.activate)
        case Residual():
            raise AssertionError("only gemv fuses the norm")


@cache
def _integer_products(tokens: int) -> str:
    """A group of integers: 16 columns of one scale, then 16 more."""
    return "".join(
        source(
            "linear/scalar#half",
            scale="xz"[half],
            min="yw"[half],
            begin=_each_token("linear/scalar#half_begin", tokens),
            words="".join(_half_word(half, word, tokens) for word in range(4)),
            end=_each_token("linear/scalar#half_end", tokens),
        )
        for half in range(2)
    )


def _half_word(half: int, word: int, tokens: int) -> str:
    """Four columns of a half."""
    return source(
        "linear/scalar#half_word",
        half=("low", "high")[half],
        component="xyzw"[word],
        tokens=_each_token("linear/scalar#half_word_token", tokens, word=str(4 * half + word)),
    )


@cache
def _float_products(tokens: int) -> str:
    """A group of floats, four columns at a time."""
    return "".join(
        source(
            "linear/scalar#float_word",
            word=str(word),
            tokens=_each_token("linear/scalar#float_word_token", tokens, word=str(word)),
        )
        for word in range(8)
    )


def _each_token(name: str, tokens: int, **values: str) -> str:
    return "".join(source(name, token=str(token), **values) for token in range(tokens))
