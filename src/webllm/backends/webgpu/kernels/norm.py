"""RMS norm of each row, with a residual branch added first if there is one."""

from __future__ import annotations

from dataclasses import dataclass

from webllm.backends.webgpu.device.protocol import Device, Dispatch, Slice
from webllm.backends.webgpu.kernels.activation import GROUP, Encoded
from webllm.backends.webgpu.kernels.step_buffer import RowCount, StepBuffer
from webllm.backends.webgpu.kernels.target import Target
from webllm.backends.webgpu.kernels.team import team
from webllm.backends.webgpu.kernels.template import snippet, source


@dataclass(frozen=True, slots=True)
class Branch:
    """What is normed and added to x first: f32 [rows, cols] and its gamma, f32 [cols]."""

    x: Slice
    gamma: Slice


def norm(
    device: Device,
    target: Target,
    *,
    step: StepBuffer,
    rows: RowCount,
    x: Slice,
    gamma: Slice,
    cols: int,
    eps: float,
    out: Encoded,
    branch: Branch | None = None,
) -> Dispatch:
    """out = rms_norm(x) * gamma, after x += rms_norm(branch.x) * branch.gamma if given.

    x: f32 [rows, cols], written only with a branch; gamma: f32 [cols]; out: [rows, cols] in any
    activation format. cols is a multiple of 32.
    """
    assert cols % GROUP == 0, cols
    reduce, constants = team(target, 256 if cols > 128 else 64)
    first = 3 if branch is None else 5
    code = source(
        "norm",
        team=reduce,
        out=str(first),
        store=out.store,
        branch=snippet("norm_alone" if branch is None else "norm_branch"),
    )
    constants |= {"COUNT": rows.word, "COLS": cols, "EPS": eps}
    inputs = (step.words, x, gamma) + (() if branch is None else (branch.x, branch.gamma))
    return Dispatch(
        device.pipeline(code, constants, "norm", proven=True),
        (*inputs, *out.slices),
        (rows.maximum, 1, 1),
        "norm",
    )
