"""What the engine asks of a device: load weights once, compile a program per batch shape, step.

Two implementations: `webllm.backends.cpu.backend` (C) and `webllm.backends.webgpu.backend` (WGSL).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from webllm.artifacts.checkpoint import Checkpoint, OnBytes
from webllm.ops.program import BatchShape, Program
from webllm.ops.sampled import Logits, Sampled
from webllm.ops.step import Step


class Executable(Protocol):
    """A program compiled for one batch shape. Steps run in the order they are submitted."""

    shape: BatchShape

    async def ready(self, is_plain: bool = True) -> None:
        """Waits, without blocking the event loop, until steps are not kept waiting by kernels:
        those that are plain (see `Step`), or those that are not. DeviceError if one does not
        compile.
        """

    def submit(self, step: Step) -> None:
        """Enqueues one step; waits for kernels that are not `ready`, but not for the device."""

    async def sampled(self) -> Sampled:
        """What the oldest step not read yet sampled."""

    async def logits(self) -> memoryview:
        """Logits of the step `sampled` last returned, after its edits, f32 [num_outputs, vocab]."""

    def resample(self, step: Step, logits: Sequence[Logits]) -> None:
        """Enqueues the sampling alone of the last step, which has been read, on these logits.

        logits: of each output row. `step` is that step with the edits and samplings that hold
        now; none of its tokens is FROM_SAMPLED, for all are known. `sampled` reads the result.
        """


class Backend(Protocol):
    """One device."""

    name: str
    max_steps_in_flight: int  # submitted and not read yet
    max_step_tokens: int  # larger steps are no faster
    # In a step that also decodes; 0: prefill and decode steps take turns.
    max_prefill_tokens_with_decode: int
    # A step with prefill is padded to these, so that it always runs the GEMM kernels.
    min_prefill_tokens: int

    def check_fits(self, program: Program, checkpoint: Checkpoint, num_blocks: int) -> None:
        """Raises DeviceMemoryError, with the numbers, if weights and KV cache do not fit."""

    async def load(
        self,
        program: Program,
        checkpoint: Checkpoint,
        num_blocks: int,
        limits: BatchShape,
        on_bytes: OnBytes,
    ) -> None:
        """Repacks the program's weights onto the device and allocates `num_blocks` KV blocks.

        `limits` is the largest batch there will be. It fixes the step's layout for good, so that
        executables of all shapes share their kernels.
        """

    def compile(self, program: Program, shape: BatchShape) -> Executable:
        """`shape` lies within the limits; it decides how much work a step launches. Returns at
        once: what takes time is done when the executable is made `ready` or first used.
        """

    def close(self) -> None:
        """Frees everything the device holds."""
