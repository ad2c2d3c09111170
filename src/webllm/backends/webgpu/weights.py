"""Loads a program's weights: uploads raw blocks in chunks, which kernels repack on the GPU.

Besides the weights themselves, this takes the memory of two chunks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass, field

from webllm.artifacts.checkpoint import Checkpoint, OnBytes
from webllm.backends.webgpu.device.protocol import Device, Slice, aligned
from webllm.backends.webgpu.kernels.matrix import Matrix, WeightFormat, allocate, common_format
from webllm.backends.webgpu.kernels.repack import PARAMS, Chunk, repack
from webllm.ops.program import Embed, GatedLinear, Linear, Op, Program
from webllm.ops.values import Part, RowOrder, Weight
from webllm.ops.vectors import read_vector

CHUNK_BYTES = 16 << 20

Key = tuple[Weight, ...]  # one weight, or (gate, up), whose rows interleave


def keys_of(op: Op) -> list[Key]:
    match op:
        case Embed():
            return [(op.table,)]
        case Linear():
            return [(op.weight,)]
        case GatedLinear():
            return [(op.gate, op.up)]
        case _:
            return []


def key_format(key: Key, checkpoint: Checkpoint) -> WeightFormat:
    tensors = [part.tensor for weight in key for part in weight.parts]
    return common_format([checkpoint.tensors[tensor].dtype for tensor in tensors])


def weight_bytes(program: Program, checkpoint: Checkpoint) -> int:
    """Returns the device memory that the matrices will take."""
    total = 0
    for key in dict.fromkeys(key for op in program.ops for key in keys_of(op)):
        format = key_format(key, checkpoint)
        groups = sum(weight.rows for weight in key) * (key[0].cols // 32)
        total += format.quants_bytes(groups) + format.scales_bytes(groups)
    return total


@dataclass(slots=True)
class Weights:
    """A program's weights on the device."""

    matrices: dict[Key, Matrix] = field(default_factory=dict)
    vectors: dict[Weight, Slice] = field(default_factory=dict)

    def destroy(self) -> None:
        for matrix in self.matrices.values():
            matrix.destroy()
        for buffer in {id(v.buffer): v.buffer for v in self.vectors.values()}.values():
            buffer.destroy()
        self.matrices.clear()
        self.vectors.clear()


async def load_weights(
    device: Device, program: Program, checkpoint: Checkpoint, on_bytes: OnBytes
) -> Weights:
    """Loads the weights of a program that `check_program` has accepted.

    on_bytes: called with the bytes loaded so far and in all. Raises DeviceMemoryError.
    """
    weights = Weights()
    keys = list(dict.fromkeys(key for op in program.ops for key in keys_of(op)))
    total = sum(
        checkpoint.tensors[part.tensor].nbytes
        for key in keys
        for weight in key
        for part in weight.parts
    )
    loader = _Loader(device, checkpoint, total, on_bytes)
    try:
        weights.vectors = _load_vectors(device, program, checkpoint)
        for key in keys:
            weights.matrices[key] = await loader.load(key)
        await loader.finish()
    except BaseException:
        weights.destroy()
        raise
    finally:
        loader.close()
    return weights


class _Loader:
    def __init__(
        self, device: Device, checkpoint: Checkpoint, total: int, on_bytes: OnBytes
    ) -> None:
        self.device = device
        self.checkpoint = checkpoint
        self.total = total
        self.loaded = 0
        self.on_bytes = on_bytes
        self.staging = device.buffer(CHUNK_BYTES, "staging")
        self.params = device.buffer(PARAMS.size, "repack parameters")
        self.running: deque[tuple[int, Awaitable[bytes]]] = deque()
        self.running_bytes = 0

    def close(self) -> None:
        self.staging.destroy()
        self.params.destroy()

    async def load(self, key: Key) -> Matrix:
        format = key_format(key, self.checkpoint)
        rows = sum(weight.rows for weight in key)
        matrix = allocate(self.device, rows, key[0].cols, format)
        for offset, weight in enumerate(key):
            first_row = offset
            for part in weight.parts:
                await self._load_part(part, matrix, first_row, stride=len(key))
                first_row += part.rows * len(key)
        return matrix

    async def _load_part(self, part: Part, matrix: Matrix, first_row: int, stride: int) -> None:
        tensor = self.checkpoint.tensors[part.tensor]
        row_bytes = sum(tensor.row_bytes)
        rows_at_once = min(part.rows, max(2, CHUNK_BYTES // row_bytes // 2 * 2))
        params = Slice(self.params, 0, PARAMS.size)
        blocks = Slice(self.staging, 0, self.staging.size)
        recordings = [
            (
                shard,
                self.device.record(
                    [repack(self.device, tensor.dtype, matrix, shard, params, blocks, rows_at_once)]
                ),
            )
            for shard in matrix.shards
        ]
        head_dim = part.head_dim if part.order is RowOrder.HALVES_TO_PAIRS else 0
        for row in range(0, part.rows, rows_at_once):
            rows = min(rows_at_once, part.rows - row)
            chunk = Chunk(row, rows, head_dim, first_row, stride)
            [data] = await self.checkpoint.read(part.tensor, row, rows)
            self.device.write(blocks, data)
            for shard, recording in recordings:
                self.device.write(params, chunk.params(matrix, shard))
                done = self.device.replay(recording)
            self.running.append((rows * row_bytes, done))
            self.running_bytes += rows * row_bytes
            await self._wait(CHUNK_BYTES)

    async def _wait(self, bytes_left: int) -> None:
        """Waits until at most `bytes_left` are in flight: the queue holds copies of them."""
        while self.running_bytes > bytes_left:
            num_bytes, done = self.running.popleft()
            await done
            self.running_bytes -= num_bytes
            self.loaded += num_bytes
            self.on_bytes(self.loaded, self.total)

    async def finish(self) -> None:
        await self._wait(0)


def _load_vectors(device: Device, program: Program, checkpoint: Checkpoint) -> dict[Weight, Slice]:
    """Uploads all vectors as f32 in one buffer."""
    vectors = program.vectors()
    size = sum(aligned(4 * weight.rows) for weight in vectors)
    buffer = device.buffer(size, "vectors")
    found: dict[Weight, Slice] = {}
    offset = 0
    for weight in vectors:
        found[weight] = Slice(buffer, offset, 4 * weight.rows)
        device.write(found[weight], read_vector(weight, checkpoint).tobytes())
        offset += aligned(4 * weight.rows)
    return found
