"""Collects every kernel that some models' programs run, rendered for every variant.

`python tests/browser/kernel_sources.py` prints them as JSON, for validate_kernels.mjs.
"""

from __future__ import annotations

import json
from asyncio import Future, get_running_loop
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations_with_replacement
from typing import Any, Self, cast

from webllm.artifacts.checkpoint import Checkpoint, Files, Plane, StorageType, TensorInfo
from webllm.artifacts.gguf.reader import translated
from webllm.backends.webgpu.backend import WebGPUBackend
from webllm.backends.webgpu.device.protocol import AdapterInfo, AdapterKind, Features, Limits, Slice
from webllm.backends.webgpu.kernels.activation import ActivationFormat
from webllm.backends.webgpu.kernels.matrix import allocate, common_format
from webllm.backends.webgpu.kernels.repack import PARAMS, repack
from webllm.backends.webgpu.kernels.variant import SCALAR, KernelVariant
from webllm.errors import UnsupportedModelError
from webllm.models import registry
from webllm.ops.program import BatchShape

_TYPES = [dtype for dtype in StorageType if dtype.supported]
I8, F32 = ActivationFormat
VARIANTS = {
    "scalar": SCALAR,
    "workgroup": KernelVariant(I8, kv_f16=True, subgroup=0, barriers=True),
    "workgroup_f32": KernelVariant(F32, kv_f16=True, subgroup=0, barriers=True),
    "subgroup16": KernelVariant(I8, kv_f16=True, subgroup=16, barriers=True),
    "subgroup32": KernelVariant(I8, kv_f16=True, subgroup=32, barriers=True),
}
SHAPES = [(1, 1), (4, 4), (64, 2), (512, 1)]  # tokens, sequences
LIMITS = {
    "small": Limits(1 << 28, 1 << 27, 8, 16384, 256, 65535),
    "large": Limits(1 << 32, 1 << 32, 16, 32768, 1024, 65535),
}


@dataclass(frozen=True, slots=True)
class Kernel:
    label: str
    variant: str
    limits: str  # "small": what every browser has, or "large"
    source: str
    constants: dict[str, float]


@dataclass
class FakeBuffer:
    size: int

    def destroy(self) -> None:
        """Does nothing."""


class CollectingDevice:
    """A `Device` that collects the sources it is asked to compile."""

    info = AdapterInfo("collector", "", "", "none", AdapterKind.DISCRETE)

    def __init__(self, variant: str, limits: str) -> None:
        self.limits = LIMITS[limits]
        self.features = Features(True, 4, 128)
        self.kernels: dict[tuple[Any, ...], Kernel] = {}
        self._names = variant, limits

    def buffer(self, num_bytes: int, label: str = "") -> FakeBuffer:
        return FakeBuffer(-(-num_bytes // 256) * 256)

    def pipeline(
        self,
        source: str,
        constants: Mapping[str, float] | None = None,
        label: str = "",
        proven: bool = False,
    ) -> None:
        values = {name: float(value) for name, value in (constants or {}).items()}
        kernel = Kernel(label, *self._names, source, values)
        self.kernels.setdefault((source, *sorted(values.items())), kernel)

    def write(self, variant: Slice, data: object) -> None:
        """Does nothing."""

    def record(self, dispatches: Sequence[object]) -> None:
        """Does nothing."""

    def replay(self, recording: object, readback: object = None) -> Awaitable[bytes]:
        done: Future[bytes] = get_running_loop().create_future()
        done.set_result(b"")
        return done

    async def read(self, source: Slice) -> bytes:
        return bytes(source.size)

    def memory_bytes(self) -> None:
        """Returns None: the size is unknown."""

    def close(self) -> None:
        """Does nothing."""


@dataclass
class Shapes(Checkpoint):
    """A checkpoint of zeros; `types` maps the ends of matrices' names to their storage types."""

    architecture: str
    hidden: int
    wide: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    types: dict[str, StorageType]
    layers: int = 2
    fingerprint: str = "0badcafe"

    def __post_init__(self) -> None:
        prefix = self.architecture
        self.metadata: dict[str, Any] = {
            "general.architecture": prefix,
            f"{prefix}.embedding_length": self.hidden,
            f"{prefix}.block_count": self.layers,
            f"{prefix}.feed_forward_length": self.wide,
            f"{prefix}.attention.head_count": self.heads,
            f"{prefix}.attention.head_count_kv": self.kv_heads,
            f"{prefix}.attention.key_length": self.head_dim,
            f"{prefix}.attention.value_length": self.head_dim,
            f"{prefix}.attention.layer_norm_rms_epsilon": 1e-5,
            f"{prefix}.context_length": 2048,
            f"{prefix}.rope.freq_base": 1e6,
        }
        if prefix == "gemma3":
            self.metadata[f"{prefix}.attention.sliding_window"] = 512
        self._gguf_tensors: list[TensorInfo] = []
        self._add("token_embd.weight", self.vocab, self.hidden)
        self._add("output_norm.weight", self.hidden)
        for layer in range(self.layers):
            for name, shape in self._layer().items():
                self._add(f"blk.{layer}.{name}", *shape)
        described = translated(self.metadata, self._gguf_tensors, "0badcafe")
        super().__init__(described, cast(Files, None))
        self._zeros = bytes(max(info.nbytes for info in self.tensors.values()))

    def _layer(self) -> dict[str, tuple[int, ...]]:
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {
            "attn_norm.weight": (self.hidden,),
            "ffn_norm.weight": (self.hidden,),
            "attn_q.weight": (q, self.hidden),
            "attn_k.weight": (kv, self.hidden),
            "attn_v.weight": (kv, self.hidden),
            "attn_output.weight": (self.hidden, q),
            "ffn_gate.weight": (self.wide, self.hidden),
            "ffn_up.weight": (self.wide, self.hidden),
            "ffn_down.weight": (self.hidden, self.wide),
        }
        if self.architecture == "qwen2":
            shapes |= {"attn_q.bias": (q,), "attn_k.bias": (kv,), "attn_v.bias": (kv,)}
        if self.architecture in ("qwen3", "gemma3"):
            shapes |= {f"attn_{x}_norm.weight": (self.head_dim,) for x in "qk"}
        if self.architecture == "gemma3":
            for name in ("post_attention_norm", "post_ffw_norm"):
                shapes[f"{name}.weight"] = (self.hidden,)
        return shapes

    def _add(self, name: str, *shape: int) -> None:
        dtype = StorageType.F32
        if len(shape) == 2:
            kind = name.rsplit(".", 2)[-2]
            dtype = self.types.get(kind, self.types[""])
        self._gguf_tensors.append(TensorInfo(name, shape, dtype, (Plane("", 0),)))

    def data(self, name: str) -> memoryview:
        return memoryview(self._zeros)[: self.tensors[name].nbytes]

    async def read(self, name: str, first_row: int, num_rows: int) -> tuple[memoryview, ...]:
        sizes = self.tensors[name].row_bytes
        return tuple(memoryview(self._zeros)[: num_rows * size] for size in sizes)

    def close(self) -> None:
        """Does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Does nothing."""


def models() -> list[Shapes]:
    """Returns shapes of SmolLM2, Gemma 3 270M, Llama 3.2 1B, Qwen2.5 0.5B and Qwen3 0.6B."""
    kinds = StorageType
    small = {"": kinds.Q4_1, "token_embd": kinds.Q8_0}
    mixed = {"": kinds.Q4_K, "attn_v": kinds.Q6_K, "ffn_down": kinds.Q6_K, "token_embd": kinds.Q6_K}
    fives = {"": kinds.Q5_0, "attn_v": kinds.Q8_0, "ffn_down": kinds.Q4_0}
    return [
        Shapes("llama", 576, 1536, 9, 3, 64, 49152, small),
        Shapes("gemma3", 640, 2048, 4, 1, 256, 262144, {"": kinds.Q8_0}),
        Shapes("llama", 2048, 8192, 32, 8, 64, 128256, mixed),
        Shapes("qwen2", 896, 4864, 14, 2, 64, 151936, fives | {"token_embd": kinds.Q8_0}),
        Shapes("qwen3", 1024, 3072, 16, 8, 128, 151936, {"": kinds.F16, "ffn_down": kinds.BF16}),
    ]


async def kernels() -> list[Kernel]:
    found: dict[tuple[Any, ...], Kernel] = {}
    for limits in LIMITS:
        for name, variant in VARIANTS.items():
            device = CollectingDevice(name, limits)
            for model in models():
                await _compile_all(device, variant, model)
            _repack_all(device)
            found = device.kernels | found
    return list(found.values())


async def _compile_all(device: Any, variant: KernelVariant, checkpoint: Shapes) -> None:
    program = registry.record(checkpoint, 2048)
    backend = WebGPUBackend(device, variant)
    limits = BatchShape(512, 4, 4, 128)
    await backend.load(program, checkpoint, 128, limits, lambda *_: None)
    for tokens, seqs in SHAPES:
        backend.compile(program, BatchShape(tokens, seqs, seqs, 128)).dispatches()


def _repack_all(device: Any) -> None:
    params = Slice(device.buffer(PARAMS.size), 0, PARAMS.size)
    for pair in _repackable():
        matrix = allocate(device, 256, 256, common_format(dtype.storage for dtype in pair))
        for dtype in pair:
            planes = [params] * len(dtype.plane_bytes)
            repack(device, dtype, matrix, matrix.shards[0], params, planes, 1, params)
    for quantized in StorageType.Q4_0, StorageType.Q8_0:
        matrix = allocate(device, 256, 256, common_format([quantized.storage]))
        for dtype in StorageType.F32, StorageType.F16, StorageType.BF16:
            repack(device, dtype, matrix, matrix.shards[0], params, [params], 1, params, quantized)


def _repackable() -> Iterator[tuple[StorageType, StorageType]]:
    for pair in combinations_with_replacement(_TYPES, 2):
        try:
            common_format(dtype.storage for dtype in pair)
        except UnsupportedModelError:
            continue
        yield pair


if __name__ == "__main__":
    import asyncio

    print(json.dumps([asdict(kernel) for kernel in asyncio.run(kernels())]))
