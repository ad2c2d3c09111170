"""The interface of a device: load weights once, compile a program per batch shape, run steps.

Implemented by `webllm.backends.cpu.backend` (C) and `webllm.backends.webgpu.backend` (WGSL).
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
        """Compiles the kernels of plain steps (see `Step`), or of all others, in the background.

        Raises DeviceError if one does not compile.
        """

    def submit(self, step: Step) -> None:
        """Enqueues one step; waits for kernels that are not `ready` yet, never for the device."""

    async def sampled(self) -> Sampled:
        """Waits for the oldest unread step and returns its tokens."""

    async def logits(self) -> memoryview:
        """Returns the logits of the step read last, after its edits; f32 [num_outputs, vocab]."""

    def resample(self, step: Step, logits: Sequence[Logits]) -> None:
        """Enqueues the sampling of the step read last once more, from these logits.

        logits: one row for each output. `step` has that step's sequences with their sampling
        parameters and edits; none of its tokens is FROM_SAMPLED. `sampled` reads the result.
        """


class Backend(Protocol):
    """One device."""

    name: str
    # Names everything here that the bits of logits depend on. A sequence that is replayed under the
    # same forms and weights goes on exactly.
    forms: str
    max_steps_in_flight: int  # submitted and not read yet
    max_step_tokens: int  # larger steps are no faster
    # In a step that also decodes; 0: prefill and decode steps take turns.
    max_prefill_tokens_with_decode: int
    # Whether a token has the same bits if it is decoded as if it is prefilled with others. If not,
    # prefill and decode steps have to take turns.
    prefill_equals_decode: bool
    # A step with prefill is padded to at least these, so that it always runs the GEMM kernels.
    min_prefill_tokens: int

    def check_fits(self, program: Program, checkpoint: Checkpoint, num_blocks: int) -> int:
        """Returns the bytes that weights and KV cache take.

        Raises DeviceMemoryError, with the numbers, if they do not fit.
        """

    async def load(
        self,
        program: Program,
        checkpoint: Checkpoint,
        num_blocks: int,
        limits: BatchShape,
        on_bytes: OnBytes,
    ) -> None:
        """Repacks the program's weights onto the device and allocates `num_blocks` KV blocks.

        `limits` is the largest batch there will be. It fixes the step's layout, so that
        executables of all shapes share their kernels.
        """

    def compile(self, program: Program, shape: BatchShape) -> Executable:
        """Returns an executable for batches of up to `shape`, which lies within the limits.

        Returns at once: kernels are compiled when the executable is made `ready` or first used.
        """

    def close(self) -> None:
        """Frees everything the device holds."""
