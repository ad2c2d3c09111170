"""Copies the output rows, the rows whose logits are wanted."""

from __future__ import annotations

from webllm.backends.webgpu.device.protocol import Device, Dispatch, Slice
from webllm.backends.webgpu.kernels.step_buffer import StepBuffer
from webllm.backends.webgpu.kernels.template import source

_THREADS = 64


def take_outputs(
    device: Device, *, step: StepBuffer, row_words: int, x: Slice, out: Slice
) -> Dispatch:
    """out[o] = x[output_rows[o]], for rows of `row_words` 32-bit words of any type.

    A value in several slices (int8 groups) takes one dispatch for each.
    """
    constants = {
        "NUM_OUTPUTS": step.outputs.word,
        "OUTPUT_ROWS": step.layout.output_rows,
        "ROW_WORDS": row_words,
    }
    return Dispatch(
        device.pipeline(source("take_outputs"), constants, "take_outputs", proven=True),
        (step.words, x, out),
        (-(-row_words // _THREADS), step.max_outputs, 1),
        "take_outputs",
    )
