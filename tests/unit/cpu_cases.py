"""Small programs and checkpoints for the CPU backend's tests, and a runner for them."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate, count
from math import prod
from types import MappingProxyType
from typing import Protocol, Self, cast, get_args

import numpy as np
from cpu_server_kernels import ServerKernels
from cpu_wasm_kernels import WasmKernels
from made_up_models import halves_of

from storage_cases import PLANE_TYPES, planes_in, quantized_rows, random_planes, values_of
from webllm.artifacts.checkpoint import (
    Checkpoint,
    Description,
    Files,
    GGUFTokenizer,
    Plane,
    StorageType,
    TensorInfo,
)
from webllm.backends.cpu.backend import CPUBackend
from webllm.backends.cpu.kernels import Kernels
from webllm.backends.cpu.native import NativeKernels
from webllm.backends.cpu.native_library import FOLDER, variants
from webllm.ops.program import (
    Activation,
    Attention,
    BatchShape,
    Embed,
    GatedLinear,
    Heads,
    KVCacheShape,
    Linear,
    Norm,
    Op,
    Program,
    RopeKV,
    Sample,
    TakeOutputs,
)
from webllm.ops.sampled import Sampled
from webllm.ops.step import Step
from webllm.ops.values import Encoding, Part, RopeTable, RowOrder, Rows, Value, Weight

_LIMITS = BatchShape(max_tokens=64, max_seqs=4, max_outputs=64, max_blocks=8)
# Built by `make test`; a test of one that is missing fails.
WASM = {name: FOLDER / f"webllm_cpu_{name}.wasm" for name in ("relaxed", "simd128")}
_SERVERS = shlex.split(os.environ.get("WEBLLM_CPU_SERVERS", ""))  # see cpu_server.c


class DequantizingKernels(NativeKernels):
    """The native kernels with `dequantize` of kernels.c, which only tests use."""

    def dequantize(self, packing: int, out: int) -> None:
        """Writes the source of a `Packing` as f32."""
        self._library.dequantize(ctypes.c_void_p(packing), ctypes.c_void_p(out))


class KernelsUnderTest(Kernels, Protocol):
    """Kernels with the function that only tests use."""

    def dequantize(self, packing: int, out: int) -> None: ...


KERNELS: dict[str, Callable[[], KernelsUnderTest]] = {
    **{name: partial(DequantizingKernels, 1, name) for name in variants()},
    **{name: partial(WasmKernels, path) for name, path in WASM.items()},
    **{command: partial(ServerKernels, command) for command in _SERVERS},
}


def random_tensor(rng: np.random.Generator, dtype: StorageType, rows: int, cols: int) -> bytes:
    """Returns random blocks, one plane after the other; scales are finite and of a usual size."""
    if dtype is StorageType.F32:
        return rng.normal(size=(rows, cols)).astype("<f4").tobytes()
    if dtype is StorageType.F16:
        return rng.normal(size=(rows, cols)).astype("<f2").tobytes()
    if dtype is StorageType.BF16:
        return (
            (rng.normal(size=(rows, cols)).astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
        )
    if dtype in PLANE_TYPES:
        return b"".join(plane.tobytes() for plane in random_planes(rng, dtype, rows, cols))
    blocks = rng.integers(
        0, 256, (rows * cols // dtype.block_elements, dtype.block_bytes), dtype=np.uint8
    )
    for at in halves_of(dtype):
        scale = rng.normal(scale=0.02, size=len(blocks)).astype("<f2")
        blocks[:, at : at + 2] = scale.view(np.uint8).reshape(-1, 2)
    if dtype is StorageType.Q8_0:  # no writer emits -128, and relaxed SIMD may not hold it
        blocks[:, 2:][blocks[:, 2:] == 128] = 129
    return blocks.tobytes()


class FakeCheckpoint(Checkpoint):
    """A checkpoint whose tensors are random and made on demand."""

    def __init__(self, config: Mapping[str, object] = MappingProxyType({})) -> None:
        self.rng = np.random.default_rng(0)
        self.bytes_of: dict[str, bytes] = {}
        self.tensors: dict[str, TensorInfo] = {}
        described = Description(config, self.tensors, GGUFTokenizer({}), "0badcafe")
        super().__init__(described, cast(Files, None))

    def add(self, dtype: StorageType, rows: int, cols: int = 1) -> str:
        name = f"tensor.{len(self.tensors)}"
        data = random_tensor(self.rng, dtype, rows, cols)
        return self.put(name, dtype, (rows, cols) if cols > 1 else (rows,), data)

    def put(self, name: str, dtype: StorageType, shape: tuple[int, ...], data: bytes) -> str:
        """Adds a tensor whose planes follow each other in `data`."""
        tensor = TensorInfo(name, shape, dtype, ())
        rows = prod(shape[:-1])
        starts = list(accumulate((rows * size for size in tensor.row_bytes), initial=0))
        assert starts[-1] == len(data)
        planes = tuple(Plane("", start) for start in starts[:-1])
        self.tensors[name] = replace(tensor, planes=planes)
        self.bytes_of[name] = data
        return name

    def rows(self, tensor: str, name: str, first: int, count: int) -> str:
        """Adds some rows of a tensor as a tensor of their own."""
        self.tensors[name] = self.tensors[tensor].rows(name, first, count)
        self.bytes_of[name] = self.bytes_of[tensor]
        return name

    def weight(self, dtype: StorageType, rows: int, cols: int = 1) -> Weight:
        return Weight.of(self.add(dtype, rows, cols), rows, cols)

    def data(self, name: str) -> memoryview:
        return memoryview(self.bytes_of[name])

    async def read(self, name: str, first_row: int, num_rows: int) -> tuple[memoryview, ...]:
        tensor, data, found = self.tensors[name], self.data(name), []
        for plane, size in zip(tensor.planes, tensor.row_bytes, strict=True):
            start = plane.offset + first_row * size
            found.append(data[start : start + num_rows * size])
        return tuple(found)

    async def load(self, name: str, first_row: int, num_rows: int) -> tuple[memoryview, ...]:
        return await self.read(name, first_row, num_rows)

    def as_quantized_file(self, dtype: StorageType) -> FakeCheckpoint:
        """Returns a checkpoint whose matrices the package `gguf` has quantized."""
        file = FakeCheckpoint()
        file.tensors.update(self.tensors)
        file.bytes_of.update(self.bytes_of)
        for name, tensor in self.tensors.items():
            if len(tensor.shape) > 1:
                values = np.ascontiguousarray(self.floats(name)).view(np.uint8)
                rows = quantized_rows(StorageType.F32, values, dtype)
                file.put(name, dtype, tensor.shape, rows.tobytes())
        return file

    def floats(self, name: str) -> np.ndarray:
        info = self.tensors[name]
        floats = values_of(info.dtype, planes_in(info, self.bytes_of[name]))
        return floats.reshape(info.shape[0], -1)


class ProgramBuilder:
    """Builds a program from an embedding to sampling, which reads the last value as its logits."""

    VOCAB = 40

    def __init__(
        self, checkpoint: FakeCheckpoint, cols: int, kv: KVCacheShape | None = None
    ) -> None:
        self.checkpoint = checkpoint
        self.kv = kv or KVCacheShape(1, 1, 16)
        self.ids = count()
        self.ops: list[Op] = []
        self.x = self.value(cols)
        self.ops.append(Embed(checkpoint.weight(StorageType.F32, self.VOCAB, cols), 1.0, self.x))

    def value(self, cols: int, encoding: Encoding = Encoding.F32) -> Value:
        return Value(next(self.ids), Rows.TOKENS, cols, encoding)

    def activation(self, cols: int) -> Value:
        return self.value(cols, Encoding.ACTIVATION)

    def program(self, out: Value) -> Program:
        logits = Value(next(self.ids), Rows.OUTPUTS, out.cols)
        ops = (*self.ops, TakeOutputs(out, logits), Sample(logits))
        return Program(ops, self.kv, out.cols)


def program_of_every_op(checkpoint: FakeCheckpoint, dtype: StorageType) -> Program:
    """Returns a program with every kind of op and matrices of `dtype`."""
    weight, heads = checkpoint.weight, Heads(16, 8, 16)
    build = ProgramBuilder(checkpoint, 256, KVCacheShape(1, 8, 16))
    x, y, z = (build.activation(256) for _ in range(3))
    qkv, out = build.value(heads.qkv_cols), build.value(40)
    rope = RopeTable.build([0.5**i for i in range(8)], 256)
    build.ops += [
        Norm(build.x, weight(StorageType.F32, 256), 1e-5, x),
        Linear(x, weight(dtype, heads.qkv_cols, 256), qkv),
        RopeKV(qkv, heads, rope, 0),
        Attention(qkv, heads, 0, 0.25, y),
        Linear(y, weight(dtype, 256, 256), build.x, accumulate=True),
        GatedLinear(x, weight(dtype, 256, 256), weight(dtype, 256, 256), Activation.SILU, z),
        Linear(z, weight(dtype, 40, 256), out),
    ]
    program = build.program(out)
    missing = set(get_args(Op)) - {type(op) for op in program.ops}
    assert not missing, f"add {missing} to the ops of program_of_every_op, in {__file__}"
    return program


def program_of_fused_rows(checkpoint: FakeCheckpoint, dtype: StorageType) -> Program:
    """Returns a product by rows of one tensor: two of them rotary projections, one of odd rows."""
    fused = checkpoint.add(dtype, 131, 256)
    halves = RowOrder.HALVES_TO_PAIRS
    parts = (
        Part(checkpoint.rows(fused, "k", 48, 24), 24, halves, head_dim=24),
        Part(checkpoint.rows(fused, "v", 72, 59), 59),
        Part(checkpoint.rows(fused, "q", 0, 48), 48, halves, head_dim=24),
    )
    build = ProgramBuilder(checkpoint, 256)
    x, out = build.activation(256), build.value(131)
    build.ops += [
        Norm(build.x, checkpoint.weight(StorageType.F32, 256), 1e-5, x),
        Linear(x, Weight(parts, 256), out),
    ]
    return build.program(out)


def program_of_odd_sizes(
    checkpoint: FakeCheckpoint, dtype: StorageType, wide: StorageType, order: RowOrder
) -> Program:
    """Returns a layer as tiny models have it: heads of 8, a feed-forward size of 172, biases.

    wide: the storage type of the matrices that have padded columns.
    """
    heads, rows, weight = Heads(8, 4, 8), (64, 32, 32), checkpoint.weight
    orders = order, order, RowOrder.AS_STORED
    qkv_weights, biases = (
        Weight.concat(
            [
                replace_order(weight(kind, r, cols), each)
                for r, each in zip(rows, orders, strict=True)
            ]
        )
        for kind, cols in ((dtype, 64), (StorageType.F32, 1))
    )
    build = ProgramBuilder(checkpoint, 64, KVCacheShape(1, 4, 8))
    x, y, z, w = (build.activation(size) for size in (64, 64, 64, 172))
    qkv, out = build.value(heads.qkv_cols), build.value(40)
    rope = RopeTable.build([0.5**i for i in range(4)], 256)
    build.ops += [
        Norm(build.x, weight(StorageType.F32, 64), 1e-5, x),
        Linear(x, qkv_weights, qkv, biases),
        RopeKV(qkv, heads, rope, 0),
        Attention(qkv, heads, 0, 8**-0.5, y),
        Linear(y, weight(wide, 64, 64), build.x, accumulate=True),
        Norm(build.x, weight(StorageType.F32, 64), 1e-5, z),
        GatedLinear(z, weight(dtype, 172, 64), weight(dtype, 172, 64), Activation.SILU, w),
        Linear(w, weight(wide, 40, 172), out),
    ]
    return build.program(out)


def replace_order(weight: Weight, order: RowOrder) -> Weight:
    head_dim = 8 if order is RowOrder.HALVES_TO_PAIRS else 0
    return Weight(
        tuple(replace(p, order=order, head_dim=head_dim) for p in weight.parts), weight.cols
    )


class Runner:
    """Runs steps of one program on one kind of kernels."""

    def __init__(
        self,
        kernels: Kernels,
        program: Program,
        checkpoint: Checkpoint,
        limits: BatchShape = _LIMITS,
        num_blocks: int = 32,
    ) -> None:
        self.backend = CPUBackend(kernels)
        loading = self.backend.load(program, checkpoint, num_blocks, limits, lambda *_: None)
        self.loop = asyncio.new_event_loop()
        try:
            self.loop.run_until_complete(loading)
        except BaseException:
            self.__exit__()
            raise
        self.executable = self.backend.compile(program, limits)

    def sampled(self, step: Step) -> Sampled:
        self.executable.submit(step)
        return self.loop.run_until_complete(self.executable.sampled())

    def tokens(self, step: Step) -> Sequence[int]:
        return self.sampled(step).token_ids

    def resampled(self, step: Step, logits: np.ndarray) -> Sampled:
        """Samples the last step again, from other logits: f32 [outputs, vocab]."""
        self.executable.resample(step, [row.tobytes() for row in logits])
        return self.loop.run_until_complete(self.executable.sampled())

    def logits(self, step: Step) -> np.ndarray:  # [outputs, vocab]
        self.tokens(step)
        return np.array(self.loop.run_until_complete(self.executable.logits()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.backend.close()
        self.loop.close()


def relative_error(expected: np.ndarray, got: np.ndarray) -> float:
    return float(np.linalg.norm(expected - got) / np.linalg.norm(expected))
