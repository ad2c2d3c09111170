"""What the engine asks of a device: load weights once, compile a program per batch shape, step.

Two implementations: `webllm.cpu.backend` (C) and `webllm.ops.webgpu` (WGSL).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from webllm.artifacts.checkpoint import Checkpoint
from webllm.ops.program import BatchShape, Program
from webllm.ops.step import Step

OnBytes = Callable[[int, int], None]  # (loaded, total) bytes


class Executable(Protocol):
    """A program compiled for one batch shape. Steps run in the order they are submitted."""

    shape: BatchShape

    def submit(self, step: Step) -> None:
        """Enqueues one step; does not wait for the device."""

    async def tokens(self) -> Sequence[int]:
        """Sampled tokens of the oldest step not read yet, [num_outputs]."""

    async def logits(self) -> memoryview:
        """Logits of the step `tokens` last returned, f32, [num_outputs, vocab]; for tests."""


class Backend(Protocol):
    """One device. `steps_in_flight` is how many steps may be submitted and not yet read."""

    name: str
    steps_in_flight: int

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
        """`shape` lies within the limits; it decides how much work a step launches."""

    def close(self) -> None:
        """Frees everything the device holds."""
