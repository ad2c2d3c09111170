"""Products of many rows of x: tiles of 64 by 64, in int8 where x and weight are integers."""

from __future__ import annotations

from webllm.backends.webgpu.device.protocol import Device, Dispatch
from webllm.backends.webgpu.kernels.linear_form import Gated, Job, Residual, Store
from webllm.backends.webgpu.kernels.repack import Shard
from webllm.backends.webgpu.kernels.target import ActivationFormat
from webllm.backends.webgpu.kernels.template import snippet, source

_TILE = 64


def many(device: Device, job: Job) -> list[Dispatch]:
    return [_many(device, job, shard) for shard in job.weight.shards]


def _many(device: Device, job: Job, shard: Shard) -> Dispatch:
    form = job.weight.form
    inputs = (*job.inputs(shard), job.step.words)
    reading = job.reading()
    common = {"out": str(len(inputs)), "epilogue": _epilogue(job, shard)}
    common |= {"reader": reading["reader"], "input": reading["input"]}
    if job.x.format is ActivationFormat.I8 and not form.is_float:
        halves = 32 // form.scale_group
        words = (source("linear_many_i8_word", word=str(i)) for i in range(8 // halves))
        code = source(
            "linear_many_i8",
            halves=str(halves),
            mins=str(form.mins).lower(),
            words="".join(words),
            **common,
        )
    else:
        code = source("linear_many_float", step=str(len(inputs) - 1), **common)
    constants = job.constants(shard) | {"COUNT": job.rows.word}
    label = f"linear_many {type(job.ending).__name__.lower()}"
    return Dispatch(
        device.pipeline(code, constants, label, proven=True),
        (*inputs, *job.outputs()),
        (-(-shard.rows // _TILE), -(-job.rows.maximum // _TILE), 1),
        label,
    )


def _epilogue(job: Job, shard: Shard) -> str:
    match job.ending:
        case Store():
            if job.weight.rows % 4 == 0 and shard.rows % 4 == 0:
                bias = "linear_bias_none" if job.ending.bias is None else "linear_bias"
                return snippet(bias) + snippet("linear_many_store")
            return job.ending.snippets() + snippet("linear_many_store_scalar")
        case Gated():
            return source(
                "linear_many_gated",
                activation=snippet(f"gated_{job.ending.activation}"),
                store=job.ending.out.store,
            )
        case Residual():
            raise AssertionError("the fused norm is for few rows")
