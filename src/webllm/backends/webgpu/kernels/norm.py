"""RMS norm of each row, after adding a normalized residual branch if there is one."""

from __future__ import annotations

from dataclasses import dataclass

from webllm.backends.webgpu.device.protocol import Device, Dispatch, Slice
from webllm.backends.webgpu.kernels.activation import GROUP, Encoded
from webllm.backends.webgpu.kernels.reduction import reduction
from webllm.backends.webgpu.kernels.step_buffer import RowCount, StepBuffer
from webllm.backends.webgpu.kernels.template import part, source
from webllm.backends.webgpu.kernels.variant import KernelVariant


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch to normalize and add to x first: f32 [rows, cols], with its gamma, f32 [cols]."""

    x: Slice
    gamma: Slice


def norm(
    device: Device,
    variant: KernelVariant,
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
    reduce, constants = reduction(variant, 256 if cols > 128 else 64)
    first = 3 if branch is None else 5
    code = source(
        "norm",
        reduction=reduce,
        out=str(first),
        write=out.write,
        branch=part("norm#no_branch" if branch is None else "norm#branch"),
    )
    constants |= {"COUNT": rows.word, "COLS": cols, "EPS": eps}
    inputs = (step.words, x, gamma) + (() if branch is None else (branch.x, branch.gamma))
    return Dispatch(
        device.pipeline(code, constants, "norm", proven=True),
        (*inputs, *out.slices),
        (rows.maximum, 1, 1),
        "norm",
    )
