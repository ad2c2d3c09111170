"""Products without barriers, for software adapters."""

from __future__ import annotations

from functools import cache

from webllm.backends.webgpu.device.protocol import Device, Dispatch
from webllm.backends.webgpu.kernels.linear_form import Gated, Job, Store, grid
from webllm.backends.webgpu.kernels.repack import Shard
from webllm.backends.webgpu.kernels.template import snippet, source

_THREADS = 16
_ROWS = 8  # of the weight that a thread takes
_MAX_TOKENS = 4  # rows of x a thread takes


def simple(device: Device, job: Job) -> list[Dispatch]:
    return [_simple(device, job, shard) for shard in job.weight.shards]


def _simple(device: Device, job: Job, shard: Shard) -> Dispatch:
    inputs = (*job.inputs(shard), job.step.words)
    tokens = min(_MAX_TOKENS, job.rows.maximum)
    match job.ending:
        case Store():
            epilogue = job.ending.snippets() + snippet("linear_simple_store")
        case Gated():
            activation = snippet(f"gated_{job.ending.activation}")
            epilogue = source("linear_simple_gated", activation=activation)
        case _:
            raise AssertionError("the fused norm needs subgroups")
    reading = job.reading()
    code = source(
        "linear_simple",
        tokens=str(tokens),
        out=str(len(inputs)),
        step=str(len(inputs) - 1),
        epilogue=epilogue,
        reader=reading["reader"],
        input=reading["input"],
        begin=_each_token("linear_simple_begin", tokens),
        halves=_floats(tokens) if job.weight.form.is_float else _halves(tokens),
        end=_each_token("linear_simple_end", tokens),
    )
    constants = job.constants(shard) | {"COUNT": job.rows.word}
    label = f"linear_simple {type(job.ending).__name__.lower()}"
    width, height = grid(-(-shard.rows // (_ROWS * _THREADS)), device.limits.max_workgroups)
    return Dispatch(
        device.pipeline(code, constants, label, proven=True),
        (*inputs, *job.outputs()),
        (width, height, -(-job.rows.maximum // tokens)),
        label,
    )


@cache
def _halves(tokens: int) -> str:
    """A group of integers: 16 columns of one scale, then 16 more."""
    return "".join(
        source(
            "linear_simple_half",
            scale="xz"[half],
            min="yw"[half],
            begin=_each_token("linear_simple_half_begin", tokens),
            words="".join(_word(half, word, tokens) for word in range(4)),
            end=_each_token("linear_simple_half_end", tokens),
        )
        for half in range(2)
    )


def _word(half: int, word: int, tokens: int) -> str:
    products = _each_token("linear_simple_token", tokens, word=str(4 * half + word))
    place = {"half": ("low", "high")[half], "component": "xyzw"[word]}
    return source("linear_simple_word", tokens=products, **place)


@cache
def _floats(tokens: int) -> str:
    """A group of floats."""
    return "".join(
        source(
            "linear_simple_word_float",
            word=str(word),
            tokens=_each_token("linear_simple_token_float", tokens, word=str(word)),
        )
        for word in range(8)
    )


def _each_token(name: str, tokens: int, **snippets: str) -> str:
    return "".join(source(name, token=str(token), **snippets) for token in range(tokens))
