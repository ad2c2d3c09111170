"""Writes docs/kernels.md, by lowering a made-up model for made-up devices.

`make generated` writes the page; tests/unit/test_kernel_page.py compares it with the code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from browser.kernel_sources import LIMITS, FakeBuffer, Shapes
from webllm.artifacts.checkpoint import StorageType
from webllm.backends.webgpu.device.protocol import AdapterInfo, AdapterKind, Features, Slice
from webllm.backends.webgpu.kernels.kv_cache import KVSlices
from webllm.backends.webgpu.kernels.matrix import format_of
from webllm.backends.webgpu.kernels.rope_kv import Rope
from webllm.backends.webgpu.kernels.variant import KernelVariant
from webllm.backends.webgpu.lowering import Lowering, Memory
from webllm.backends.webgpu.memory import Pool
from webllm.backends.webgpu.weights import load_weights
from webllm.models import registry
from webllm.ops.program import BatchShape, Linear, Op, Program, RopeKV
from webllm.ops.sampled import SampledLayout
from webllm.ops.step import StepLayout

PAGE = Path(__file__).parents[1] / "docs" / "kernels.md"

DECODE = (1, 8, 64)  # sequences, with a token each
PREFILL = 512  # tokens of one sequence
BLOCKS = 128


@dataclass(frozen=True, slots=True)
class DeviceKind:
    title: str
    kind: AdapterKind
    features: Features


SUBGROUP_32 = DeviceKind("GPU, subgroups of 32", AdapterKind.DISCRETE, Features(True, 32, 32))
KINDS = (
    SUBGROUP_32,
    DeviceKind("GPU, subgroups of 64", AdapterKind.DISCRETE, Features(True, 64, 64)),
    DeviceKind("GPU, no fixed subgroup size", AdapterKind.DISCRETE, Features(True, 16, 32)),
    DeviceKind("software adapter", AdapterKind.SOFTWARE, Features(True, 4, 128)),
)


class FakeDevice:
    """A `Device` whose pipelines are their own source."""

    def __init__(self, kind: DeviceKind) -> None:
        self.info = AdapterInfo(kind.title, "", "", "", kind.kind)
        self.features = kind.features
        self.limits = LIMITS["large"]

    def buffer(self, num_bytes: int, label: str = "") -> FakeBuffer:
        return FakeBuffer(num_bytes)

    def pipeline(
        self, source: str, constants: object = None, label: str = "", proven: bool = False
    ) -> str:
        return source

    def write(self, target: Slice, data: object) -> None:
        """Does nothing."""

    def record(self, dispatches: object) -> None:
        """Does nothing."""

    def replay(self, recording: object, readback: object = None) -> Any:
        return asyncio.sleep(0, b"")

    async def read(self, source: Slice) -> bytes:
        return bytes(source.size)


class ExplainedLowering(Lowering):
    """Records the kernels of each op, with "int8" or "f32" for a product's operands."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.kernels: list[tuple[str, list[str]]] = []

    def _fuse(self, op: Op, following: Op | None) -> bool:
        start = len(self.dispatches)
        fused = super()._fuse(op, following)
        if fused:
            self._note(_title(op), start)
            assert following is not None
            self.kernels.append((_title(following), ["(in the product before)"]))
        return fused

    def _lower(self, op: Op) -> None:
        start = len(self.dispatches)
        super()._lower(op)
        self._note(_title(op), start)

    def _note(self, title: str, start: int) -> None:
        found = list(self.dispatches[start:])
        if title == "Sample":
            assert self.sample_stage is not None
            found = self.sample_stage.full
        self.kernels.append((title, [_kernel(d) for d in found]))


def _title(op: Op) -> str:
    name = type(op).__name__
    return f"{name}, into the residual" if isinstance(op, Linear) and op.accumulate else name


def _kernel(dispatch: Any) -> str:
    if not dispatch.label.startswith("linear/"):
        return f"`{dispatch.label}`"
    return f"`{dispatch.label}` ({'int8' if 'dot4I8Packed' in dispatch.pipeline else 'f32'})"


async def lowered(kind: DeviceKind, dtype: StorageType, shape: BatchShape) -> ExplainedLowering:
    device: Any = FakeDevice(kind)
    checkpoint: Any = Shapes("llama", 1024, 3072, 16, 8, 64, 32000, {"": dtype})
    program = registry.record(checkpoint, 16 * BLOCKS)
    lowering = ExplainedLowering(
        device,
        KernelVariant.for_device(device),
        await _memory(device, program, checkpoint, shape),
        shape,
    )
    lowering.lower(program)
    return lowering


async def _memory(device: Any, program: Program, checkpoint: Any, shape: BatchShape) -> Memory:
    somewhere = Slice(device.buffer(1 << 30), 0, 1 << 30)
    tables = {op.rope for op in program.ops if isinstance(op, RopeKV)}
    return Memory(
        await load_weights(device, program, checkpoint, lambda *_: None),
        [KVSlices(somewhere, somewhere)] * program.kv_cache.num_layers,
        {table: Rope(somewhere, somewhere, table.head_dim) for table in tables},
        somewhere,
        StepLayout(shape, program.kv_cache.block_size, BLOCKS, program.num_token_ids),
        somewhere,
        SampledLayout(shape.max_outputs),
        Pool(device),
    )


def shapes() -> dict[str, BatchShape]:
    decode = {f"decode, {rows}": BatchShape(rows, rows, rows, BLOCKS) for rows in DECODE}
    return decode | {f"prefill, {PREFILL}": BatchShape(PREFILL, 1, 1, BLOCKS)}


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def variants_table() -> str:
    """Returns the table of variants: the one that a device's features choose, and safer ones."""
    head = ["device", "inputs of products", "KV cache", "reductions", "products"]
    rows = []
    for kind in KINDS:
        device: Any = FakeDevice(kind)
        variant: KernelVariant | None = KernelVariant.for_device(device)
        title = kind.title
        while variant is not None:
            rows.append([title, *_described(variant)])
            variant = variant.safer() if kind is SUBGROUP_32 else None
            title = "… if that fails the self-test"
    return table(head, rows)


def _described(variant: KernelVariant) -> list[str]:
    subgroup = f"subgroups of {variant.subgroup}" if variant.subgroup else "workgroup memory"
    return [
        variant.activation.value,
        "f16" if variant.kv_f16 else "f32",
        subgroup if variant.barriers else "none",
        "gemv, gemm" if variant.barriers else "scalar",
    ]


async def ops_tables() -> str:
    """Returns one table for all kinds of devices with the same kernels."""
    titles: dict[str, list[str]] = {}
    for kind in KINDS:
        columns = {
            name: (await lowered(kind, StorageType.Q4_0, shape)).kernels
            for name, shape in shapes().items()
        }
        titles.setdefault(_ops_table(columns), []).append(kind.title)
    return "\n\n".join(f"### {'; '.join(same)}\n\n{text}" for text, same in titles.items())


def _ops_table(columns: dict[str, list[tuple[str, list[str]]]]) -> str:
    merged = list(_merged(columns))
    ops = [op for op, _ in merged[0][1]]
    rows = [["<br>".join(kernels[i][1]) for _, kernels in merged] for i in range(len(ops))]
    first, last = (i for i, op in enumerate(ops) if op == "RopeKV")
    layer = last - first  # ops of a layer; the last layer's are shown where they differ
    found = []
    for i, (op, cells) in enumerate(zip(ops, rows, strict=True)):
        above = i - layer
        if above < 0 or ops[above] != op:
            found.append([op, *cells])
        elif rows[above] != cells:
            found.append([f"{op}, last layer", *cells])
    return table(["op", *(names for names, _ in merged)], found)


def _merged(
    columns: dict[str, list[tuple[str, list[str]]]],
) -> Iterator[tuple[str, list[tuple[str, list[str]]]]]:
    """Merges neighbouring batch shapes with the same kernels into one column."""
    for kernels, names in groupby(columns, columns.__getitem__):
        kinds: dict[str, list[str]] = {}
        for name in names:
            kind, rows = name.split(", ")
            kinds.setdefault(kind, []).append(rows)
        yield "; ".join(f"{kind} of {', '.join(rows)}" for kind, rows in kinds.items()), kernels


async def formats_table() -> str:
    software = KINDS[-1]
    head = ["weights", "in memory", "decode, GPU", "prefill, GPU", "software adapter"]
    names: dict[tuple[str, ...], list[str]] = {}
    for dtype in (dtype for dtype in StorageType if dtype.supported):
        format = format_of(dtype.storage)
        cells = [
            await _product(kind, dtype, shape)
            for kind, shape in (
                (SUBGROUP_32, BatchShape(1, 1, 1, BLOCKS)),
                (SUBGROUP_32, BatchShape(PREFILL, 1, 1, BLOCKS)),
                (software, BatchShape(1, 1, 1, BLOCKS)),
            )
        ]
        if format.is_float:
            memory = "bf16" if format.bf16 else f"f{format.bits}"
        else:
            memory = (
                f"{format.bits} bits, a scale{' and a min' * format.mins} for {format.scale_group}"
            )
        names.setdefault((memory, *cells), []).append(dtype.name)
    return table(head, [[", ".join(types), *cells] for cells, types in names.items()])


async def _product(kind: DeviceKind, dtype: StorageType, shape: BatchShape) -> str:
    """Returns the program's first product, which stores its result."""
    kernels = (await lowered(kind, dtype, shape)).kernels
    return next(found for op, (found, *_) in kernels if op == "Linear")


async def page() -> str:
    return f"""\
# Which kernel runs

Written by `make generated`, which lowers a made-up llama model for
made-up devices; `tests/unit/test_kernel_page.py` compares this page with the code. A name such as
`linear/gemv store` is the label of a dispatch, as `benchmarks/gpu_decode.py --profile` prints it:
the kernel is `src/webllm/backends/webgpu/kernels/linear/gemv.wgsl`, and "store" its epilogue.

## Devices

`KernelVariant.for_device` chooses by the adapter's kind and features. `self_test.working_variant`
multiplies with it, and steps down while results are wrong or kernels do not compile.

{variants_table()}

Vendors with one subgroup size are NVIDIA and Apple (32); others count as fixed where the adapter's
smallest and largest sizes are the same.

## Ops

The kernels of each op with Q4_0 weights, by the rows of a batch: decode has one row for each
sequence, prefill one for each token of a prompt. Sampling is shown with logit edits and logprobs;
most steps have neither, and leave out `sample/edit` and `sample/logprobs`. A product multiplies
(int8) or (f32).

{await ops_tables()}

## Weight formats

The kernel of a product, by the storage type of its weight. A weight whose parts have several types
has the narrowest format that holds them all (`matrix.common_format`).

{await formats_table()}
"""


if __name__ == "__main__":
    PAGE.write_text(asyncio.run(page()))
