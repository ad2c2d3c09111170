"""Measures the GPU time of matrix products, as a chain of dependent dispatches.

    python benchmarks/gpu_linear.py [--tilings 128,4,4 ...] [--wgsl FOLDER] [--only TEXT]

--tilings tries other tilings of gemv (lanes, pairs at once, loops), --wgsl other versions of
kernels: a file such as FOLDER/linear/gemv.wgsl is used instead of the package's.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from gpu_decode import TIMESTAMPS, gpu_seconds

from webllm.artifacts.checkpoint import StorageType
from webllm.backends.webgpu.device.native import NativeDevice
from webllm.backends.webgpu.device.native_adapters import find_adapter
from webllm.backends.webgpu.device.protocol import Dispatch, Slice
from webllm.backends.webgpu.kernels import template
from webllm.backends.webgpu.kernels.activation import ActivationFormat, Encoded, row_bytes
from webllm.backends.webgpu.kernels.linear import gemm, gemv
from webllm.backends.webgpu.kernels.linear.product import Gated, Product, Residual, Store
from webllm.backends.webgpu.kernels.matrix import Matrix, allocate, format_of
from webllm.backends.webgpu.kernels.step_buffer import StepBuffer
from webllm.backends.webgpu.kernels.variant import KernelVariant
from webllm.ops.program import BatchShape
from webllm.ops.step import StepLayout

I8 = ActivationFormat.I8
ROTATED_BYTES = 200e6  # several times the L2

FILL = """
override SCALES: bool;
@group(0) @binding(0) var<storage, read_write> words: array<u32>;
@compute @workgroup_size(256) fn main(
  @builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>
) {
  for (var i = id.x; i < arrayLength(&words); i += 256u * n.x) {
    var x = i * 747796405u + 2891336453u;
    x = ((x >> ((x >> 28u) + 4u)) ^ x) * 277803737u;
    words[i] = select((x >> 22u) ^ x, 0x1c001c00u, SCALES);
  }
}
"""


@dataclass(frozen=True, slots=True)
class Case:
    epilogue: str
    tokens: int
    cols: int  # K
    rows: int  # N


CASES = (
    Case("store", 1, 4096, 6144),
    Case("residual", 1, 4096, 4096),
    Case("gated", 1, 4096, 28672),
    Case("residual", 1, 14336, 4096),
    Case("store", 1, 4096, 128256),
    Case("store", 1, 576, 960),
    Case("residual", 1, 576, 576),
    Case("gated", 1, 576, 3072),
    Case("residual", 1, 1536, 576),
    Case("store", 8, 4096, 6144),
    Case("gated", 8, 4096, 28672),
    Case("residual", 8, 14336, 4096),
    Case("store", 512, 4096, 6144),
    Case("gated", 512, 4096, 28672),
    Case("store", 512, 14336, 4096),
    Case("store", 512, 576, 960),
    Case("gated", 512, 576, 3072),
)


class Bench:
    def __init__(self, device: NativeDevice) -> None:
        self.device = device
        self.variant = KernelVariant.for_device(device)

    def filled(self, num_bytes: int, scales: bool = False) -> Slice:
        part = Slice(self.device.buffer(num_bytes), 0, num_bytes)
        fill = self.device.pipeline(FILL, {"SCALES": scales})
        self.device.replay(self.device.record([Dispatch(fill, (part,), (1024, 1, 1))]))
        return part

    def encoded(self, rows: int, cols: int) -> Encoded:
        values, scales = row_bytes(I8, cols)
        return Encoded(I8, self.filled(rows * values), self.filled(2 * rows * scales, True))

    def matrices(self, case: Case) -> list[Matrix]:
        format = format_of(StorageType.Q4_0)
        found = []
        size = case.rows * case.cols * 18 // 32
        for _ in range(max(1, round(ROTATED_BYTES / size))):
            matrix = allocate(self.device, case.rows, case.cols, format)
            for shard in matrix.shards:
                for part, scales in ((shard.quants, False), (shard.scales, True)):
                    fill = self.device.pipeline(FILL, {"SCALES": scales})
                    self.device.replay(self.device.record([Dispatch(fill, (part,), (1024, 1, 1))]))
            found.append(matrix)
        return found[:32]

    def step(self, tokens: int) -> StepBuffer:
        layout = StepLayout(BatchShape(tokens, 1, 1, 1), 16, num_blocks=1, num_token_ids=1)
        words = self.filled(4 * layout.num_words)
        self.device.write(words, tokens.to_bytes(4, "little") + bytes(12))
        return StepBuffer(words, layout, tokens, 1, 1, 1)

    def run(self, case: Case) -> str:
        step = self.step(case.tokens)
        x = self.encoded(case.tokens, case.cols)
        match case.epilogue:
            case "store":
                epilogue: Store | Gated | Residual = Store(self.filled(4 * case.tokens * case.rows))
            case "gated":
                epilogue = Gated("silu", self.encoded(case.tokens, case.rows // 2))
            case _:
                epilogue = Residual(
                    self.filled(4 * case.tokens * case.rows, True),
                    self.filled(4 * case.rows, True),
                    self.encoded(case.tokens, case.rows),
                )
        dispatches = []
        for matrix in self.matrices(case):
            product = Product(step, step.tokens, x, matrix, epilogue)
            if gemv.takes(product.rows):
                dispatches += gemv.dispatches(self.device, self.variant, product)
            else:
                dispatches += gemm.dispatches(self.device, product)
        seconds = gpu_seconds(self.device, dispatches, 20) / len(dispatches)
        size = case.rows * case.cols
        return (
            f"{case.epilogue:9}{case.tokens:4} x {case.cols:6} -> {case.rows:6} "
            f"{seconds * 1e6:9.2f} us {size * 0.5625 / seconds / 1e9:6.0f} GB/s "
            f"{2e-12 * size * case.tokens / seconds:6.1f} TFLOP/s"
        )


def use_files_of(folder: Path) -> None:
    packaged = template.text

    def text(file: str) -> str:
        other = folder / f"{file}.wgsl"
        return other.read_text() if other.exists() else packaged(file)

    template.text = text


def tiling_of(text: str) -> gemv.GemvTiling:
    return gemv.GemvTiling(*map(int, text.split(",")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tilings", nargs="*", default=[])
    parser.add_argument("--wgsl", type=Path)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    if arguments.wgsl:
        use_files_of(arguments.wgsl)
    device = NativeDevice(find_adapter(), more_features=[TIMESTAMPS])
    bench = Bench(device)
    for case in CASES:
        text = f"{case.epilogue} {case.tokens} {case.cols} {case.rows}"
        if not all(word in text.split() for word in arguments.only.split()):
            continue
        print(bench.run(case))
        for tiling in map(tiling_of, arguments.tilings if case.tokens == 1 else ()):
            needed = {"gated": 32, "residual": 16}.get(case.epilogue, tiling.pairs)
            fits = case.cols // 128 <= tiling.lanes < case.cols // 16
            if tiling.pairs != needed or not fits:
                continue
            original = gemv.gemv_tiling
            gemv.gemv_tiling = lambda *_, tiling=tiling: tiling
            try:
                print(bench.run(case), tiling)
            finally:
                gemv.gemv_tiling = original
    device.close()


if __name__ == "__main__":
    main()
