"""Measures tokens per second on WebGPU, for a model's shape with made-up 4-bit weights.

    python benchmarks/gpu_decode.py llama-3.1-8b [--profile] [--device webgpu] [--save]

Loads as for a real model (upload, repack, record); only the numbers in the weights are made up.
Prints the time to load, prefill of 512 tokens, decode at context 512 with two steps in flight, and
with --profile the GPU time of each kernel of a step.
"""

from __future__ import annotations

import argparse
import asyncio
import struct
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any, cast

from results import Figures, add_save_option, save

from webllm.artifacts.checkpoint import Checkpoint, Files, Plane, StorageType, TensorInfo
from webllm.artifacts.gguf.reader import translated
from webllm.backends.webgpu.backend import WebGPUBackend, WebGPUExecutable
from webllm.backends.webgpu.device.native import NativeDevice
from webllm.backends.webgpu.device.native_adapters import find_adapter
from webllm.backends.webgpu.device.protocol import Dispatch
from webllm.models import registry
from webllm.ops.program import BatchShape, Program
from webllm.ops.step import Step, StepSequence, sampled_by

CONTEXT = 512
PROMPT = [(7 * i + 1) % 1000 for i in range(CONTEXT)]
BLOCKS = 64  # of 16 positions
WARM_UP_SECONDS = 0.05
TIMESTAMPS = "timestamp-query"  # the feature that `gpu_seconds` needs
LIMITS = BatchShape(max_tokens=512, max_seqs=8, max_outputs=8, max_blocks=BLOCKS)


@dataclass(frozen=True, slots=True)
class Shape:
    layers: int
    hidden: int
    wide: int
    num_q: int
    num_kv: int
    head_dim: int
    vocab: int
    tied: bool


SHAPES = {
    "smollm2-135m": Shape(30, 576, 1536, 9, 3, 64, 49152, True),
    "llama-3.2-1b": Shape(16, 2048, 8192, 32, 8, 64, 128256, True),
    "llama-3.2-3b": Shape(28, 3072, 8192, 24, 8, 128, 128256, True),
    "llama-3.1-8b": Shape(32, 4096, 14336, 32, 8, 128, 128256, False),
}


class MadeUpCheckpoint(Checkpoint):
    """A llama checkpoint of Q4_0 tensors that all hold the same random blocks."""

    def __init__(self, shape: Shape) -> None:
        self.metadata = {
            "general.architecture": "llama",
            "llama.embedding_length": shape.hidden,
            "llama.block_count": shape.layers,
            "llama.feed_forward_length": shape.wide,
            "llama.attention.head_count": shape.num_q,
            "llama.attention.head_count_kv": shape.num_kv,
            "llama.attention.key_length": shape.head_dim,
            "llama.attention.layer_norm_rms_epsilon": 1e-5,
            "llama.rope.freq_base": 500000.0,
            "llama.context_length": 8192,
        }
        self.gguf_tensors = _tensors(shape)
        described = translated(self.metadata, self.gguf_tensors, "0badcafe")
        super().__init__(described, cast(Files, None))
        largest = max(info.nbytes for info in self.tensors.values())
        self._blocks = memoryview(_random_blocks(largest))
        self._ones = memoryview(struct.pack("<f", 1.0) * shape.hidden)

    def data(self, name: str) -> memoryview:
        return self.bytes_of(self.tensors[name])

    async def read(self, name: str, first_row: int, num_rows: int) -> tuple[memoryview, ...]:
        [size] = self.tensors[name].row_bytes
        return (self.data(name)[first_row * size : (first_row + num_rows) * size],)

    def bytes_of(self, info: TensorInfo) -> memoryview:
        source = self._ones if info.dtype is StorageType.F32 else self._blocks
        return source[: info.nbytes]


def _random_blocks(num_bytes: int) -> bytes:
    """Returns Q4_0 blocks with scales near 1/256, so that activations stay near 1."""
    import random

    noise = random.Random(0)
    some = b"".join(
        struct.pack("<e", noise.uniform(0.002, 0.005)) + noise.randbytes(16) for _ in range(65521)
    )
    return some * (num_bytes // len(some) + 1)


def _tensors(shape: Shape) -> list[TensorInfo]:
    q, kv = shape.num_q * shape.head_dim, shape.num_kv * shape.head_dim
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (shape.vocab, shape.hidden)}
    if not shape.tied:
        shapes["output.weight"] = (shape.vocab, shape.hidden)
    shapes["output_norm.weight"] = (shape.hidden,)
    for layer in range(shape.layers):
        for name, size in {
            "attn_norm": (shape.hidden,),
            "attn_q": (q, shape.hidden),
            "attn_k": (kv, shape.hidden),
            "attn_v": (kv, shape.hidden),
            "attn_output": (shape.hidden, q),
            "ffn_norm": (shape.hidden,),
            "ffn_gate": (shape.wide, shape.hidden),
            "ffn_up": (shape.wide, shape.hidden),
            "ffn_down": (shape.hidden, shape.wide),
        }.items():
            shapes[f"blk.{layer}.{name}.weight"] = size
    return [_tensor(name, size) for name, size in shapes.items()]


def _tensor(name: str, shape: tuple[int, ...]) -> TensorInfo:
    dtype = StorageType.Q4_0 if len(shape) == 2 else StorageType.F32
    return TensorInfo(name, shape, dtype, (Plane("", 0),))


def a_step(token_ids: Sequence[int], context: int) -> Step:
    return Step((StepSequence(token_ids, context, range(BLOCKS), [len(token_ids) - 1]),))


async def prefill_seconds(executable: WebGPUExecutable, repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        start = perf_counter()
        executable.submit(a_step(PROMPT, CONTEXT))
        await executable.sampled()
        times.append(perf_counter() - start)
    return median(times[1:])


async def decode_seconds(executable: WebGPUExecutable, in_flight: int, num_tokens: int) -> float:
    """Returns the seconds per token; each is sampled on the device and read back."""
    for _ in range(in_flight - 1):
        executable.submit(a_step([sampled_by(0)], CONTEXT + 1))
    start = perf_counter()
    for _ in range(num_tokens):
        executable.submit(a_step([sampled_by(0)], CONTEXT + 1))
        await executable.sampled()
    seconds = (perf_counter() - start) / num_tokens
    for _ in range(in_flight - 1):
        await executable.sampled()
    return seconds


def gpu_seconds(device: NativeDevice, dispatches: list[Dispatch], repeats: int = 5) -> float:
    """Returns the GPU time of one pass of dispatches, from timestamps."""
    import wgpu
    from wgpu.backends.wgpu_native._ffi import lib

    gpu: Any = device.handle
    queries = gpu.create_query_set(type="timestamp", count=2)
    usage = wgpu.BufferUsage
    result = gpu.create_buffer(size=256, usage=usage.QUERY_RESOLVE | usage.COPY_SRC)
    recording = device.record(dispatches)
    times = []
    start = perf_counter()
    while perf_counter() < start + WARM_UP_SECONDS:  # an idle GPU lowers its clocks
        for _ in range(20):
            device.replay(recording)
        gpu.queue.read_buffer(result, 0, 16)
    for _ in range(repeats):
        encoder = gpu.create_command_encoder()
        compute = encoder.begin_compute_pass(
            timestamp_writes={
                "query_set": queries,
                "beginning_of_pass_write_index": 0,
                "end_of_pass_write_index": 1,
            }
        )
        for dispatch, bind_group in zip(dispatches, recording.bind_groups, strict=True):
            compute.set_pipeline(dispatch.pipeline.handle)  # type: ignore[attr-defined]
            compute.set_bind_group(0, bind_group)
            compute.dispatch_workgroups(*dispatch.workgroups)
        compute.end()
        encoder.resolve_query_set(queries, 0, 2, result, 0)
        gpu.queue.submit([encoder.finish()])
        first, last = struct.unpack("=2Q", bytes(gpu.queue.read_buffer(result, 0, 16)))
        times.append((last - first) * lib.wgpuQueueGetTimestampPeriod(gpu.queue._internal) * 1e-9)
    return min(times)


def print_profile(device: NativeDevice, executable: WebGPUExecutable) -> None:
    """Prints the GPU time by kernel and grid; each pass runs all dispatches of one kind."""
    kinds: dict[tuple[str, tuple[int, int, int]], list[Dispatch]] = defaultdict(list)
    for dispatch in executable.dispatches():
        kinds[dispatch.label, dispatch.workgroups].append(dispatch)
    whole = gpu_seconds(device, [d for same in kinds.values() for d in same])
    ordered = gpu_seconds(device, executable.dispatches())
    print(f"  GPU time of a step {ordered * 1e6:.0f} us (by kind {whole * 1e6:.0f} us)")
    for (label, grid), same in kinds.items():
        seconds = gpu_seconds(device, same)
        each = seconds * 1e6 / len(same)
        print(f"  {label:28} {grid!s:18} {len(same):4} x {each:8.2f} us = {seconds * 1e6:8.0f} us")


async def run(name: str, device: NativeDevice, profile: bool, num_tokens: int) -> Figures:
    """Prints the figures of a shape, and returns its speeds."""
    backend = WebGPUBackend(device)
    checkpoint = MadeUpCheckpoint(SHAPES[name])
    program: Program = registry.record(checkpoint, 16 * BLOCKS)
    start = perf_counter()
    await backend.load(program, checkpoint, BLOCKS, LIMITS, lambda *_: None)
    print(f"{name} on {backend.name}, Q4_0, {backend.variant}")
    print(f"  loaded {checkpoint.nbytes / 1e9:.2f} GB in {perf_counter() - start:.2f} s")
    start = perf_counter()
    decode = backend.compile(program, BatchShape(1, 1, 1, BLOCKS))
    prefill = backend.compile(program, BatchShape(CONTEXT, 1, 1, BLOCKS))
    await asyncio.gather(decode.ready(), prefill.ready())
    print(f"  compiled in {perf_counter() - start:.2f} s")
    layers = SHAPES[name].layers
    for kind, executable in (("decode", decode), ("prefill", prefill)):
        count = len(executable.dispatches())
        print(f"  {kind}: {count} dispatches, {count / layers:.1f} a layer")
    seconds = await prefill_seconds(prefill, 3)
    speeds = {f"{name}, prefill of {CONTEXT} (tokens/s)": CONTEXT / seconds}
    print(f"  prefill of {CONTEXT}: {seconds * 1e3:.1f} ms, {CONTEXT / seconds:.0f} tokens/s")
    for in_flight in (1, 2):
        await decode_seconds(decode, in_flight, num_tokens // 4)
        seconds = await decode_seconds(decode, in_flight, num_tokens)
        speeds[f"{name}, decode, {in_flight} in flight (tokens/s)"] = 1 / seconds
        print(f"  decode, {in_flight} in flight: {1 / seconds:.1f} tokens/s")
    if profile:
        for executable, token_ids in ((decode, PROMPT[:1]), (prefill, PROMPT)):
            executable.submit(a_step(token_ids, CONTEXT))  # leaves its words for the profile
            await executable.sampled()
            print_profile(device, executable)
    return speeds


def keep_checks(device: NativeDevice) -> None:
    module = device._submitter.module
    device._submitter.module = lambda code, label, proven: module(code, label, False)  # type: ignore[method-assign]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=SHAPES, nargs="+")
    parser.add_argument("--device", default="webgpu")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--checked", action="store_true", help="keep the driver's index checks")
    add_save_option(parser)
    arguments = parser.parse_args()
    figures: Figures = {}
    for name in arguments.shape:
        more = [TIMESTAMPS] if arguments.profile else []
        device = NativeDevice(find_adapter(arguments.device), more_features=more)
        if arguments.checked:
            keep_checks(device)
        figures |= asyncio.run(run(name, device, arguments.profile, arguments.tokens))
        device.close()
    if arguments.save:
        save("gpu_decode", arguments.save, figures)


if __name__ == "__main__":
    main()
