"""Products without barriers, for software adapters."""

from __future__ import annotations

from webllm.gpu.device import Device, Dispatch
from webllm.kernels.linear_form import Gated, Job, Store, grid
from webllm.kernels.repack import Shard
from webllm.kernels.template import snippet, source

_THREADS = 16
_ROWS = 8  # of the weight that a thread takes
_MAX_TOKENS = 8  # rows of x a thread takes


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
