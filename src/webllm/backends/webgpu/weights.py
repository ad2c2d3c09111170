"""Loads a program's weights: uploads raw blocks in chunks, which kernels repack on the GPU.

Besides the weights themselves, this takes the memory of two chunks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from webllm.artifacts.checkpoint import MAX_PLANES, Checkpoint, OnBytes, TensorInfo
from webllm.backends.webgpu.device.protocol import Device, Slice, aligned
from webllm.backends.webgpu.kernels.matrix import Matrix, WeightFormat, allocate, common_format
from webllm.backends.webgpu.kernels.repack import PARAMS, Chunk, repack
from webllm.ops.checks import out_of_range
from webllm.ops.program import Embed, GatedLinear, Linear, Op, Program
from webllm.ops.values import Part, RowOrder, Weight
from webllm.ops.vectors import read_vector

CHUNK_BYTES = 16 << 20
_WORD_STEP = aligned(4)

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
    return common_format(checkpoint.tensors[tensor].packed for tensor in tensors)


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
    parts = (part for key in keys for weight in key for part in weight.parts)
    tensors = [checkpoint.tensors[part.tensor] for part in parts]
    loader = _Loader(device, checkpoint, tensors, on_bytes)
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
        self, device: Device, checkpoint: Checkpoint, tensors: list[TensorInfo], on_bytes: OnBytes
    ) -> None:
        self.device = device
        self.checkpoint = checkpoint
        self.total = sum(tensor.nbytes for tensor in tensors)
        self.loaded = 0
        self.on_bytes = on_bytes
        self.staging = device.buffer(CHUNK_BYTES + MAX_PLANES * aligned(1), "staging")
        self.params = device.buffer(PARAMS.size, "repack parameters")
        self.faults = Faults(device, [each.name for each in tensors if _may_overflow(each)])
        self.running: deque[tuple[int, Awaitable[bytes]]] = deque()
        self.running_bytes = 0

    def close(self) -> None:
        self.staging.destroy()
        self.params.destroy()
        self.faults.destroy()

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
        planes = self._staged([rows_at_once * size for size in tensor.row_bytes])
        params = Slice(self.params, 0, PARAMS.size)
        fault = self.faults.of(part.tensor) if _may_overflow(tensor) else None
        recordings = []
        for shard in matrix.shards:
            dispatch = repack(
                self.device,
                tensor.dtype,
                matrix,
                shard,
                params,
                planes,
                rows_at_once,
                fault,
                tensor.quantized,
            )
            recordings.append((shard, self.device.record([dispatch])))
        head_dim = part.head_dim if part.order is RowOrder.HALVES_TO_PAIRS else 0
        for row in range(0, part.rows, rows_at_once):
            rows = min(rows_at_once, part.rows - row)
            chunk = Chunk(row, rows, head_dim, first_row, stride)
            data = await self.checkpoint.read(part.tensor, row, rows)
            for plane, stored in zip(planes, data, strict=True):
                self.device.write(plane, stored)
            for shard, recording in recordings:
                self.device.write(params, chunk.params(matrix, shard))
                done = self.device.replay(recording)
            self.running.append((rows * row_bytes, done))
            self.running_bytes += rows * row_bytes
            await self._wait(CHUNK_BYTES)

    def _staged(self, sizes: list[int]) -> list[Slice]:
        """Returns a place of each size in the staging buffer."""
        ends = list(accumulate(map(aligned, sizes), initial=0))
        return [Slice(self.staging, start, end - start) for start, end in pairwise(ends)]

    async def _wait(self, bytes_left: int) -> None:
        """Waits until at most `bytes_left` are in flight: the queue holds copies of them."""
        while self.running_bytes > bytes_left:
            num_bytes, done = self.running.popleft()
            await done
            self.running_bytes -= num_bytes
            self.loaded += num_bytes
            self.on_bytes(self.loaded, self.total)

    async def finish(self) -> None:
        """Waits for all rows. Raises CheckpointError for scales that f16 cannot hold."""
        await self._wait(0)
        await self.faults.check()


def _may_overflow(tensor: TensorInfo) -> bool:
    """Whether the scales are no f16 before they are packed."""
    return tensor.quantized is not None or len(tensor.dtype.plane_bytes) > 1


class Faults:
    """A word on the device for each tensor that may overflow: 1 if f16 cannot hold its scales."""

    def __init__(self, device: Device, tensors: Sequence[str]) -> None:
        self._device, self._tensors = device, tensors
        self._words = device.buffer(_WORD_STEP * len(tensors), "faults")

    def of(self, tensor: str) -> Slice:
        return Slice(self._words, _WORD_STEP * self._tensors.index(tensor), 4)

    async def check(self) -> None:
        """Raises CheckpointError if a word is set."""
        if not self._tensors:
            return
        size = _WORD_STEP * len(self._tensors)
        data = await self._device.read(Slice(self._words, 0, size))
        for tensor, fault in zip(self._tensors, data[::_WORD_STEP], strict=True):
            if fault:
                raise out_of_range(tensor)

    def destroy(self) -> None:
        self._words.destroy()


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
