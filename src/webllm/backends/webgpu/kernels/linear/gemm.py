"""Products of many rows of x: tiles of 64 by 64, in int8 where x and the weight are integers."""

from __future__ import annotations

from webllm.backends.webgpu.device.protocol import Device, Dispatch
from webllm.backends.webgpu.kernels.activation import GROUP
from webllm.backends.webgpu.kernels.linear.job import Gated, Job, Residual, Store
from webllm.backends.webgpu.kernels.matrix import Shard, reader
from webllm.backends.webgpu.kernels.template import part, source

_TILE = 64


def product(device: Device, job: Job) -> list[Dispatch]:
    return [_gemm(device, job, shard) for shard in job.weight.shards]


def _gemm(device: Device, job: Job, shard: Shard) -> Dispatch:
    inputs = (*job.inputs(shard), job.step.words)
    code = _source(job, shard, len(inputs))
    constants = job.constants(shard) | {"COUNT": job.rows.word}
    label = job.label("linear/gemm_i8" if job.is_integer else "linear/gemm_f32")
    return Dispatch(
        device.pipeline(code, constants, label, proven=True),
        (*inputs, *job.outputs()),
        (-(-shard.rows // _TILE), -(-job.rows.maximum // _TILE), 1),
        label,
    )


def _source(job: Job, shard: Shard, num_inputs: int) -> str:
    format = job.weight.format
    common = {
        "out": str(num_inputs),
        "reader": reader(format),
        "input": job.x.read,
        "ending": _ending(job, shard),
    }
    if not job.is_integer:
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


def _ending(job: Job, shard: Shard) -> str:
    ending = job.ending
    match ending:
        case Store():
            if job.weight.rows % 4 == 0 and shard.rows % 4 == 0:
                return ending.add_bias + part("linear/parts/endings#gemm_store4")
            return ending.store + part("linear/parts/endings#gemm_store")
        case Gated():
            return source(
                "linear/parts/endings#gemm_gated",
                activation=ending.activate,
                write=ending.out.write,
            )
        case Residual():
            raise AssertionError("only gemv fuses the norm")
