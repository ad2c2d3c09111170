"""Runs a matrix product with a known result, to find drivers that compute wrong results."""

from __future__ import annotations

import logging
from array import array
from itertools import chain
from struct import pack

from webllm.artifacts.checkpoint import StorageType
from webllm.backends.webgpu.device.protocol import Device, Slice
from webllm.backends.webgpu.kernels.activation import GROUP, ActivationFormat, Encoded, row_bytes
from webllm.backends.webgpu.kernels.linear import linear
from webllm.backends.webgpu.kernels.matrix import Matrix, allocate, format_of
from webllm.backends.webgpu.kernels.repack import Chunk, repack
from webllm.backends.webgpu.kernels.step_buffer import StepBuffer
from webllm.backends.webgpu.kernels.variant import KernelVariant
from webllm.errors import DeviceError
from webllm.ops.program import BatchShape
from webllm.ops.step import StepLayout

_log = logging.getLogger(__name__)

# More groups of 32 columns than a subgroup has threads.
_ROWS, _COLS, _MAX_TOKENS = 16, 2048 + 32, 9


async def working_variant(device: Device, variant: KernelVariant) -> KernelVariant:
    """Returns `variant`, or the fastest safer one that computes correctly; else DeviceError."""
    candidate: KernelVariant | None = variant
    reasons: list[str] = []
    while candidate is not None:
        try:
            if await _computes_correctly(device, candidate):
                if reasons:
                    _log.warning("%s fails the self-test: %s", device.info.name, reasons)
                return candidate
            reasons.append("wrong results")
        except DeviceError as error:
            reasons.append(str(error))
        candidate = candidate.safer()
    raise DeviceError(
        f"{device.info.name} ({device.info.driver}) fails the self-test: {'; '.join(reasons)}. "
        f"Update its driver, or use the CPU backend"
    )


def _weight(row: int, col: int) -> int:
    return (7 * row + 3 * col + row * col) % 16 - 8


def _input(token: int, col: int) -> int:
    """Returns -8 .. 8, but 127 once in each group, so that int8 holds the values exactly."""
    return 127 if col % GROUP == 5 else (5 * token + 11 * col) % 17 - 8


async def _computes_correctly(device: Device, variant: KernelVariant) -> bool:
    run = _Run(device)
    try:
        matrix = run.matrix()
        return all([await run.agrees(variant, matrix, tokens) for tokens in (2, _MAX_TOKENS)])
    finally:
        run.free()


class _Run:
    """One product on the device, and the memory it takes."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.slices: list[Slice] = []

    def upload(self, data: bytes) -> Slice:
        part = Slice(self.device.buffer(len(data), "self-test"), 0, len(data))
        self.device.write(part, data)
        self.slices.append(part)
        return part

    def free(self) -> None:
        for part in self.slices:
            part.buffer.destroy()

    def matrix(self) -> Matrix:
        """Returns [_ROWS, _COLS] of `_weight`, repacked from Q4_0 blocks of scale 1."""
        blocks = b"".join(
            pack("<e", 1.0)
            + bytes(
                _weight(row, first + i) + 8 | _weight(row, first + 16 + i) + 8 << 4
                for i in range(16)
            )
            for row in range(_ROWS)
            for first in range(0, _COLS, GROUP)
        )
        matrix = allocate(self.device, _ROWS, _COLS, format_of(StorageType.Q4_0.storage))
        (shard,) = matrix.shards
        self.slices += [shard.quants, shard.scales]
        params = self.upload(Chunk(0, _ROWS, 0, 0, 1).params(matrix, shard))
        staged = self.upload(blocks)
        launch = repack(self.device, StorageType.Q4_0, matrix, shard, params, [staged], _ROWS)
        self.device.replay(self.device.record([launch]))
        return matrix

    def encoded(self, format: ActivationFormat, tokens: int) -> Encoded:
        rows = [[_input(token, col) for col in range(_COLS)] for token in range(tokens)]
        values = list(chain.from_iterable(rows))
        if format is ActivationFormat.F32:
            return Encoded(format, self.upload(array("f", values).tobytes()))
        scales = array("f")
        for first in range(0, len(values), GROUP):
            scales.extend((1.0, sum(values[first : first + GROUP])))
        assert row_bytes(format, _COLS) == (_COLS, _COLS // GROUP * 8)
        encoded = self.upload(array("b", values).tobytes())
        return Encoded(format, encoded, self.upload(scales.tobytes()))

    async def agrees(self, variant: KernelVariant, matrix: Matrix, tokens: int) -> bool:
        layout = StepLayout(BatchShape(tokens, 1, 1, 1), 16, num_blocks=1, num_token_ids=1)
        words = self.upload(pack("<4I", tokens, 1, 1, 0) + bytes(4 * layout.block_tables))
        step = StepBuffer(words, layout, tokens, 1, 1, 1)
        out = self.upload(bytes(4 * tokens * _ROWS))
        launches = linear(
            self.device,
            variant,
            step=step,
            rows=step.tokens,
            x=self.encoded(variant.activation, tokens),
            weight=matrix,
            out=out,
        )
        self.device.replay(self.device.record(launches))
        got = memoryview(await self.device.read(out)).cast("f")
        return all(
            got[token * _ROWS + row]
            == sum(_input(token, col) * _weight(row, col) for col in range(_COLS))
            for token in range(tokens)
            for row in range(_ROWS)
        )
