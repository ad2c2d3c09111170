"""GPU time of single matrix products, in a chain of dependent dispatches over different weights.

    python benchmarks/gpu_linear.py [--teams 128,4,4 ...] [--wgsl FOLDER] [--only TEXT]

--teams tries other layouts of linear_few, --wgsl other versions of kernels: files of the same name
in FOLDER are used instead of the package's.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from gpu_decode import gpu_seconds

from webllm.artifacts.checkpoint import GGMLType
from webllm.backends.webgpu.device.native import NativeDevice
from webllm.backends.webgpu.device.native_adapters import find_adapter
from webllm.backends.webgpu.device.protocol import Dispatch, Slice
from webllm.backends.webgpu.kernels import linear_few, linear_many, template
from webllm.backends.webgpu.kernels.activation import Encoded, row_bytes
from webllm.backends.webgpu.kernels.linear.job import Gated, Job, Residual, Store
from webllm.backends.webgpu.kernels.matrix import format_of
from webllm.backends.webgpu.kernels.repack import Matrix, allocate
from webllm.backends.webgpu.kernels.step_buffer import StepBuffer
from webllm.backends.webgpu.kernels.activation import ActivationFormat
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
class Product:
    ending: str
    tokens: int
    cols: int  # K
    rows: int  # N


PRODUCTS = (
    Product("store", 1, 4096, 6144),
    Product("residual", 1, 4096, 4096),
    Product("gated", 1, 4096, 28672),
    Product("residual", 1, 14336, 4096),
    Product("store", 1, 4096, 128256),
    Product("store", 1, 576, 960),
    Product("residual", 1, 576, 576),
    Product("gated", 1, 576, 3072),
    Product("residual", 1, 1536, 576),
    Product("store", 8, 4096, 6144),
    Product("gated", 8, 4096, 28672),
    Product("residual", 8, 14336, 4096),
    Product("store", 512, 4096, 6144),
    Product("gated", 512, 4096, 28672),
    Product("store", 512, 14336, 4096),
    Product("store", 512, 576, 960),
    Product("gated", 512, 576, 3072),
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

    def matrices(self, product: Product) -> list[Matrix]:
        form = format_of(GGMLType.Q4_0)
        found = []
        size = product.rows * product.cols * 18 // 32
        for _ in range(max(1, round(ROTATED_BYTES / size))):
            matrix = allocate(self.device, product.rows, product.cols, form)
            for shard in matrix.shards:
                for plane, scales in ((shard.quants, False), (shard.scales, True)):
                    fill = self.device.pipeline(FILL, {"SCALES": scales})
                    self.device.replay(self.device.record([Dispatch(fill, (plane,), (1024, 1, 1))]))
            found.append(matrix)
        return found[:32]

    def step(self, tokens: int) -> StepBuffer:
        layout = StepLayout(BatchShape(tokens, 1, 1, 1), 16, num_blocks=1, num_token_ids=1)
        words = self.filled(4 * layout.num_words)
        self.device.write(words, tokens.to_bytes(4, "little") + bytes(12))
        return StepBuffer(words, layout, tokens, 1, 1, 1)

    def run(self, product: Product) -> str:
        step = self.step(product.tokens)
        x = self.encoded(product.tokens, product.cols)
        match product.ending:
            case "store":
                ending: Store | Gated | Residual = Store(
                    self.filled(4 * product.tokens * product.rows)
                )
            case "gated":
                ending = Gated("silu", self.encoded(product.tokens, product.rows // 2))
            case _:
                ending = Residual(
                    self.filled(4 * product.tokens * product.rows, True),
                    self.filled(4 * product.rows, True),
                    self.encoded(product.tokens, product.rows),
                )
        dispatches = []
        for matrix in self.matrices(product):
            job = Job(step, step.tokens, x, matrix, ending)
            if product.tokens <= linear_few.MAX_ROWS:
                dispatches += linear_few.few(self.device, self.variant, job)
            else:
                dispatches += linear_many.many(self.device, job)
        seconds = gpu_seconds(self.device, dispatches, 20) / len(dispatches)
        size = product.rows * product.cols
        return (
            f"{product.ending:9}{product.tokens:4} x {product.cols:6} -> {product.rows:6} "
            f"{seconds * 1e6:9.2f} us {size * 0.5625 / seconds / 1e9:6.0f} GB/s "
            f"{2e-12 * size * product.tokens / seconds:6.1f} TFLOP/s"
        )


def use_files_of(folder: Path) -> None:
    packaged = template.snippet

    def snippet(name: str) -> str:
        other = folder / f"{name}.wgsl"
        return other.read_text() if other.exists() else packaged(name)

    template.snippet = snippet
    linear_few.snippet = linear_many.snippet = snippet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teams", nargs="*", default=[])
    parser.add_argument("--wgsl", type=Path)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    if arguments.wgsl:
        use_files_of(arguments.wgsl)
    device = NativeDevice(find_adapter())
    bench = Bench(device)
    for product in PRODUCTS:
        text = f"{product.ending} {product.tokens} {product.cols} {product.rows}"
        if not all(word in text.split() for word in arguments.only.split()):
            continue
        print(bench.run(product))
        for teams in arguments.teams if product.tokens == 1 else ():
            lanes, teams_, loops = map(int, teams.split(","))
            laid = linear_few.GemvTiling(lanes, teams_, loops)
            needed = {"gated": 32, "residual": 16}.get(product.ending, laid.pairs)
            fits = product.cols // 128 <= lanes < product.cols // 16
            if laid.pairs != needed or not fits:
                continue
            original = linear_few.lay_out
            linear_few.lay_out = lambda *_, laid=laid: laid
            try:
                print(bench.run(product), f"teams {teams}")
            finally:
                linear_few.lay_out = original
    device.close()


if __name__ == "__main__":
    main()
