"""The CPU backend: packs weights, lowers the program once, then makes one C call a step."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import cast

from webllm.artifacts.checkpoint import Checkpoint, OnBytes
from webllm.backends.cpu.formats import packed_bytes
from webllm.backends.cpu.kernels import Kernels
from webllm.backends.cpu.plan import MAX_HEAD_DIM, Plan
from webllm.backends.cpu.weights import LoadedWeights, WeightLoader
from webllm.errors import DeviceMemoryError
from webllm.ops.checks import check_program
from webllm.ops.program import BatchShape, KVCacheShape, Program
from webllm.ops.sampled import Logits, Sampled, joined_logits
from webllm.ops.step import Step

# Raise it with every change of kernels, packing or recorded programs that changes the bits of
# logits. tests/unit/test_cpu_forms.py finds such changes of kernels and packing.
FORMS_VERSION = 1

_SPARE_BYTES = 64 << 20  # activations, logits, Python


class CPUBackend:
    """See `webllm.backends.protocol.Backend`. Holds one model."""

    max_steps_in_flight = 1
    min_prefill_tokens = 1
    prefill_equals_decode = True

    def __init__(self, kernels: Kernels) -> None:
        self.kernels = kernels
        threads = "thread" if kernels.num_threads == 1 else "threads"
        self.name = f"CPU ({kernels.isa}, {kernels.num_threads} {threads})"
        # Bits depend on the instruction set alone, not on the machine or the number of threads.
        self.forms = f"cpu-{FORMS_VERSION}-{kernels.forms}"
        # A step that blocks the event loop has to be short.
        self.max_step_tokens = 32 if kernels.is_blocking else 256
        self.max_prefill_tokens_with_decode = 32 if kernels.is_blocking else 128
        self._loaded: _LoadedProgram | None = None

    def check_fits(self, program: Program, checkpoint: Checkpoint, num_blocks: int) -> int:
        available = self.kernels.available_bytes()
        weights = packed_bytes(program, checkpoint)
        kv_cache = self._kv_bytes(program.kv_cache, num_blocks)
        needed = weights + kv_cache + _SPARE_BYTES
        if available is not None and needed > available:
            raise DeviceMemoryError(
                f"the model needs {needed >> 20} MiB ({weights >> 20} for weights, "
                f"{kv_cache >> 20} for a KV cache of {num_blocks} blocks) and {available >> 20} "
                "MiB are available; take a smaller model or a shorter context window"
            )
        return weights + kv_cache

    async def load(
        self,
        program: Program,
        checkpoint: Checkpoint,
        num_blocks: int,
        limits: BatchShape,
        on_bytes: OnBytes,
    ) -> None:
        assert self._loaded is None, "one model at a time"
        check_program(program, checkpoint, limits, max_head_dim=MAX_HEAD_DIM)
        weights = await self._load_weights(program, checkpoint, on_bytes)
        try:
            plan = Plan(program, limits, weights, num_blocks, self.kernels.num_threads)
            kv_bytes = self._kv_bytes(program.kv_cache, num_blocks)
            self._loaded = _LoadedProgram(self.kernels, program, plan, weights, kv_bytes)
        except BaseException:
            weights.memory.close()
            raise

    async def _load_weights(
        self, program: Program, checkpoint: Checkpoint, on_bytes: OnBytes
    ) -> LoadedWeights:
        loader = WeightLoader(self.kernels, program, checkpoint)
        try:
            loaded = 0
            for piece in loader.pieces:
                planes = await checkpoint.read(piece.tensor, piece.first_row, piece.num_rows)
                await asyncio.wrap_future(self.kernels.submit(partial(loader.pack, piece, planes)))
                loaded += piece.num_bytes
                on_bytes(loaded, loader.total_bytes)
        except BaseException:
            self.kernels.submit(loader.memory.close)  # runs after the piece that is being packed
            raise
        return loader.loaded()

    def _kv_bytes(self, shape: KVCacheShape, num_blocks: int) -> int:
        positions = num_blocks * shape.block_size
        elements = 2 * positions * shape.num_layers * shape.num_kv_heads * shape.head_dim
        return elements * self.kernels.kv_element_bytes

    def compile(self, program: Program, shape: BatchShape) -> CPUExecutable:
        """Compiles nothing: all shapes share one plan, and C reads the sizes from the step."""
        assert self._loaded is not None
        assert program is self._loaded.program
        return CPUExecutable(self._loaded, shape)

    def close(self) -> None:
        self.kernels.close()  # waits for the step in flight
        if self._loaded is not None:
            self._loaded.close()
        self._loaded = None


class CPUExecutable:
    """See `webllm.backends.protocol.Executable`."""

    def __init__(self, program: _LoadedProgram, shape: BatchShape) -> None:
        self.shape = shape
        self._program = program
        self._running: Future[None] | None = None
        self._step = Step(())

    async def ready(self, is_plain: bool = True) -> None:
        """Returns at once: the kernels are compiled when the package is built."""

    def submit(self, step: Step) -> None:
        assert self._running is None, "the last step's tokens have not been read"
        self._step = step
        self._running = self._program.submit(step)

    async def sampled(self) -> Sampled:
        assert self._running is not None, "no step was submitted"
        running, self._running = self._running, None
        await asyncio.wrap_future(running)
        return self._program.sampled(self._step)

    async def logits(self) -> memoryview:
        return self._program.logits(self._step.num_outputs)

    def resample(self, step: Step, logits: Sequence[Logits]) -> None:
        assert self._running is None, "the last step's tokens have not been read"
        assert step.num_outputs == self._step.num_outputs, step.num_outputs
        self._step = step
        self._running = self._program.resample(step, logits)


class _LoadedProgram:
    """A program with its memory: weights, KV cache and plan."""

    def __init__(
        self,
        kernels: Kernels,
        program: Program,
        plan: Plan,
        weights: LoadedWeights,
        kv_bytes: int,
    ) -> None:
        self.kernels, self.program, self.plan, self.weights = kernels, program, plan, weights
        self.kv_cache = kernels.allocate(kv_bytes)
        self.memory = kernels.allocate(self.plan.num_bytes)
        for offset, data in self.plan.contents(self.memory.address, self.kv_cache.address):
            self.memory.write(offset, data)

    def submit(self, step: Step) -> Future[None]:
        return self._run(self.plan.layout.pack(step))

    def resample(self, step: Step, logits: Sequence[Logits]) -> Future[None]:
        words = self.plan.layout.pack(step)
        words[self.plan.layout.resample] = 1
        data = joined_logits(logits, step.num_outputs, self.program.vocab_size)
        self.memory.write(self.plan.logits_offset, data)
        return self._run(words)

    def _run(self, words: array[int]) -> Future[None]:
        def run() -> None:
            self.memory.write(self.plan.step_offset, memoryview(words))
            self.kernels.run(self.memory.address)

        return self.kernels.submit(run)

    def sampled(self, step: Step) -> Sampled:
        layout = self.plan.sampled
        data = self.memory.read(self.plan.sampled_offset, layout.num_bytes(step.num_outputs))
        return layout.read(data, step)

    def logits(self, num_outputs: int) -> memoryview:  # [num_outputs, vocab]
        shape = num_outputs, self.program.vocab_size
        data = self.memory.read(self.plan.logits_offset, 4 * shape[0] * shape[1])
        return cast("memoryview", memoryview(bytes(data)).cast("f", shape))

    def close(self) -> None:
        for memory in (self.memory, self.kv_cache, self.weights.memory):
            memory.close()
