"""The WebGPU backend: programs become recordings of kernels, replayed step by step."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, partial
from threading import Lock
from typing import cast

from webllm.artifacts.checkpoint import Checkpoint, OnBytes
from webllm.backends.webgpu.device.protocol import AdapterKind, Device, Dispatch, Recording, Slice
from webllm.backends.webgpu.kernels.attention import MAX_HEAD_DIM
from webllm.backends.webgpu.kernels.kv_cache import BLOCK_SIZE, KVSlices, kv_bytes
from webllm.backends.webgpu.kernels.linear.gemv import MAX_GEMV_ROWS
from webllm.backends.webgpu.kernels.rope_kv import Rope
from webllm.backends.webgpu.kernels.variant import KernelVariant
from webllm.backends.webgpu.lowering import Lowering, Memory, SampleStage
from webllm.backends.webgpu.memory import Pool
from webllm.backends.webgpu.weights import load_weights, weight_bytes
from webllm.errors import DeviceError, DeviceMemoryError
from webllm.ops.checks import check_program
from webllm.ops.program import BatchShape, Program, RopeKV
from webllm.ops.sampled import Logits, Sampled, SampledLayout, joined_logits
from webllm.ops.step import Step, StepLayout
from webllm.ops.values import RopeTable

# Raise it with every change of kernels, lowering or recorded programs that changes the bits of
# logits on any device; in doubt, raise it.
FORMS_VERSION = 1


class WebGPUBackend:
    """See `webllm.backends.protocol.Backend`. Closes `device` with itself.

    variant: the kernels that run; None: the fastest, without a self-test (see `working_variant`).
    """

    # GEMV and GEMM round differently, enough to change tokens, and so do both kinds of attention.
    # So prefill always runs one form and decode the other: results do not depend on the batch.
    max_prefill_tokens_with_decode = 0
    prefill_equals_decode = False
    min_prefill_tokens = 2 * MAX_GEMV_ROWS

    def __init__(self, device: Device, variant: KernelVariant | None = None) -> None:
        self.device = device
        self.variant = variant or KernelVariant.for_device(device)
        self.name = f"{device.info.name} ({device.info.api})"
        self.forms = _forms(device, self.variant)
        # A software adapter runs one step on all threads: a second in flight gains nothing.
        is_software = device.info.kind is AdapterKind.SOFTWARE
        self.max_steps_in_flight = 1 if is_software else 2
        self.max_step_tokens = 512
        self._memory: Memory | None = None
        self._lowering = Lock()  # one lowering at a time: they share the scratch memory

    def check_fits(self, program: Program, checkpoint: Checkpoint, num_blocks: int) -> int:
        layer = self._layer_bytes(program, num_blocks)
        weights = weight_bytes(program, checkpoint)
        kv_cache = 2 * layer * program.kv_cache.num_layers
        numbers = f"weights {weights:,} bytes, KV cache {kv_cache:,} bytes on {self.name}"
        memory = self.device.memory_bytes()
        if memory is not None and weights + kv_cache > memory:
            raise DeviceMemoryError(
                f"{numbers}, which has {memory:,}: choose a smaller model or a smaller context"
            )
        largest = min(self.device.limits.max_binding_bytes, self.device.limits.max_buffer_bytes)
        if layer > largest:
            raise DeviceMemoryError(
                f"{numbers}, which binds at most {largest:,} of the {layer:,} that a layer's keys "
                f"take: choose a smaller context"
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
        assert self._memory is None, "loaded already"
        check_program(program, checkpoint, limits, max_head_dim=MAX_HEAD_DIM)
        weights = await load_weights(self.device, program, checkpoint, on_bytes)
        layout = StepLayout(limits, program.kv_cache.block_size, num_blocks, program.num_token_ids)
        sampled = SampledLayout(limits.max_outputs)
        self._memory = Memory(
            weights,
            self._kv_cache(program, num_blocks),
            self._ropes(program),
            self._slice(4 * layout.num_words, "step"),
            layout,
            self._slice(sampled.num_bytes(limits.max_outputs), "sampled"),
            sampled,
            Pool(self.device),
        )

    def compile(self, program: Program, shape: BatchShape) -> WebGPUExecutable:
        assert self._memory is not None, "load first"
        lower = partial(self._lower, program, self._memory, shape)
        return WebGPUExecutable(self.device, self._memory, shape, lower)

    def _lower(self, program: Program, memory: Memory, shape: BatchShape) -> Lowered:
        with self._lowering:
            lowering = Lowering(self.device, self.variant, memory, shape)
            lowering.lower(program)
        assert lowering.sample_stage is not None
        return Lowered(lowering.dispatches, lowering.sample_stage)

    def close(self) -> None:
        self._memory = None
        self.device.close()

    def _layer_bytes(self, program: Program, num_blocks: int) -> int:
        shape = program.kv_cache
        assert shape.block_size == BLOCK_SIZE, shape
        return kv_bytes(self.variant, num_blocks, shape.num_kv_heads, shape.head_dim)

    def _kv_cache(self, program: Program, num_blocks: int) -> list[KVSlices]:
        size = self._layer_bytes(program, num_blocks)
        return [
            KVSlices(self._slice(size, "keys"), self._slice(size, "values"))
            for _ in range(program.kv_cache.num_layers)
        ]

    def _ropes(self, program: Program) -> dict[RopeTable, Rope]:
        tables = dict.fromkeys(op.rope for op in program.ops if isinstance(op, RopeKV))
        return {table: self._rope(table) for table in tables}

    def _rope(self, table: RopeTable) -> Rope:
        return Rope(self._uploaded(table.fine), self._uploaded(table.coarse), table.head_dim)

    def _uploaded(self, data: bytes) -> Slice:
        uploaded = self._slice(len(data), "rope")
        self.device.write(uploaded, data)
        return uploaded

    def _slice(self, num_bytes: int, label: str) -> Slice:
        return Slice(self.device.buffer(num_bytes, label), 0, num_bytes)


def _forms(device: Device, variant: KernelVariant) -> str:
    """Returns `Backend.forms`: the kernels, and all that decides how they are compiled."""
    info, kernels = device.info, "scalar"
    if variant.barriers:
        kv_type = "f16" if variant.kv_f16 else "f32"
        threads = device.limits.max_workgroup_threads
        kernels = f"{variant.activation.value}-{kv_type}-{variant.subgroup}-{threads}"
    names = dict.fromkeys((info.name, info.vendor, info.driver, info.api, info.compiler))
    return f"webgpu-{FORMS_VERSION}-{kernels} ({', '.join(filter(None, names))})"


class Stage(Enum):
    """The work of a recording."""

    PLAIN = "the model, then sampling"
    FULL = "the model, then sampling with edits, penalties and logprobs"
    RESAMPLE = "full sampling alone, from logits that were written"

    @classmethod
    def of(cls, is_plain: bool) -> Stage:
        return cls.PLAIN if is_plain else cls.FULL


@dataclass(frozen=True, slots=True)
class Lowered:
    """A program for one batch shape."""

    model: Sequence[Dispatch]
    sample_stage: SampleStage

    def dispatches(self, stage: Stage) -> list[Dispatch]:
        match stage:
            case Stage.PLAIN:
                return [*self.model, *self.sample_stage.plain]
            case Stage.FULL:
                return [*self.model, *self.sample_stage.full]
            case Stage.RESAMPLE:
                return self.sample_stage.full


class WebGPUExecutable:
    """An `Executable`; lowered and recorded by `ready`, or at its first use."""

    def __init__(
        self, device: Device, memory: Memory, shape: BatchShape, lower: Callable[[], Lowered]
    ) -> None:
        self.device = device
        self.shape = shape
        self._memory = memory
        self._lower = lower
        self._lowering = Lock()
        self._recordings: dict[Stage, Recording] = {}
        buffer, layout = memory.sampled.buffer, memory.sampled_layout
        self._token_ids = Slice(buffer, 0, 4 * shape.max_outputs)
        self._with_logprobs = Slice(buffer, 0, layout.num_bytes(shape.max_outputs))
        self._running: deque[tuple[Step, Awaitable[bytes]]] = deque()
        self._num_outputs = 0  # of the step read last

    @cached_property
    def _lowered(self) -> Lowered:
        return self._lower()

    def dispatches(self, stage: Stage = Stage.PLAIN) -> list[Dispatch]:
        with self._lowering:  # once, though two threads may ask
            return self._lowered.dispatches(stage)

    async def ready(self, is_plain: bool = True) -> None:
        stage = Stage.of(is_plain)
        if stage not in self._recordings:
            self._recordings[stage] = await self.device.prepare(partial(self.dispatches, stage))

    def submit(self, step: Step) -> None:
        readback = self._token_ids if step.is_plain else self._with_logprobs
        self._replay(step, Stage.of(step.is_plain), readback)

    def _replay(self, step: Step, stage: Stage, readback: Slice) -> None:
        if stage not in self._recordings:
            self._recordings[stage] = self.device.record(self.dispatches(stage))
        words = self._memory.layout.pack(step)
        num_tokens, num_seqs, num_outputs = words[:3]
        shape = self.shape
        if (
            num_tokens > shape.max_tokens
            or num_seqs > shape.max_seqs
            or num_outputs > shape.max_outputs
        ):
            raise DeviceError(
                f"a step of {num_tokens} tokens, {num_seqs} sequences and {num_outputs} outputs; "
                f"its kernels take {shape}"
            )
        self.device.write(self._memory.step, memoryview(words))
        self._running.append((step, self.device.replay(self._recordings[stage], readback)))

    async def sampled(self) -> Sampled:
        step, data = self._running.popleft()
        self._num_outputs = step.num_outputs
        return self._memory.sampled_layout.read(await data, step)

    async def logits(self) -> memoryview:
        logits = self._lowered.sample_stage.logits
        row_bytes = logits.size // self.shape.max_outputs
        part = Slice(logits.buffer, 0, row_bytes * self._num_outputs)
        return cast(memoryview, memoryview(await self.device.read(part)).cast("f"))

    def resample(self, step: Step, logits: Sequence[Logits]) -> None:
        assert not self._running, "the last step has not been read"
        assert step.num_outputs == self._num_outputs, step.num_outputs
        stage = self._lowered.sample_stage
        vocab_size = stage.logits.size // (4 * self.shape.max_outputs)
        self.device.write(stage.logits, joined_logits(logits, step.num_outputs, vocab_size))
        self._replay(step, Stage.RESAMPLE, self._with_logprobs)
