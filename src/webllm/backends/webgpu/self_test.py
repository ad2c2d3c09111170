"""Runs a matrix product whose answer is known, so that a driver that computes wrongly is found."""

from __future__ import annotations

import logging
from array import array
from itertools import chain
from struct import pack

from webllm.artifacts.checkpoint import GGMLType
from webllm.backends.webgpu.device.protocol import Device, Slice
from webllm.backends.webgpu.kernels.activation import GROUP, Encoded, row_bytes
from webllm.backends.webgpu.kernels.linear import linear
from webllm.backends.webgpu.kernels.quant.planar import format_of
from webllm.backends.webgpu.kernels.repack import Chunk, Matrix, allocate, repack
from webllm.backends.webgpu.kernels.step_buffer import StepBuffer
from webllm.backends.webgpu.kernels.target import ActivationFormat, Target
from webllm.errors import DeviceError
from webllm.ops.program import BatchShape
from webllm.ops.step import StepLayout

_log = logging.getLogger(__name__)

# More columns than the largest subgroup has groups of 32.
_ROWS, _COLS, _MOST_TOKENS = 16, 2048 + 32, 9


async def working_target(device: Device, target: Target) -> Target:
    """`target`, or the fastest safer one that computes rightly; DeviceError if none does."""
    candidate: Target | None = target
    reasons: list[str] = []
    while candidate is not None:
        try:
            if await _computes_rightly(device, candidate):
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
    """-8 .. 8, but 127 once in each group: int8 then holds the values exactly."""
    return 127 if col % GROUP == 5 else (5 * token + 11 * col) % 17 - 8


async def _computes_rightly(device: Device, target: Target) -> bool:
    run = _Run(device)
    try:
        matrix = run.matrix()
        return all([await run.agrees(target, matrix, tokens) for tokens in (2, _MOST_TOKENS)])
    finally:
        run.free()


class _Run:
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
        """[_ROWS, _COLS] of `_weight`, repacked from Q4_0 blocks of scale 1."""
        blocks = b"".join(
            pack("<e", 1.0)
            + bytes(
                _weight(row, first + i) + 8 | _weight(row, first + 16 + i) + 8 << 4
                for i in range(16)
            )
            for row in range(_ROWS)
            for first in range(0, _COLS, GROUP)
        )
        matrix = allocate(self.device, _ROWS, _COLS, format_of(GGMLType.Q4_0))
        (shard,) = matrix.shards
        self.slices += [shard.quants, shard.side]
        params = self.upload(Chunk(0, _ROWS, 0, 0, 1).params(matrix, shard))
        staged = self.upload(blocks)
        launch = repack(self.device, GGMLType.Q4_0, matrix, shard, params, staged, _ROWS)
        self.device.replay(self.device.record([launch]))
        return matrix

    def encoded(self, form: ActivationFormat, tokens: int) -> Encoded:
        rows = [[_input(token, col) for col in range(_COLS)] for token in range(tokens)]
        values = list(chain.from_iterable(rows))
        match form:
            case ActivationFormat.F32:
                return Encoded(form, self.upload(array("f", values).tobytes()))
            case ActivationFormat.F16:
                return Encoded(form, self.upload(pack(f"<{len(values)}e", *values)))
        scales = array("f")
        for first in range(0, len(values), GROUP):
            scales.extend((1.0, sum(values[first : first + GROUP])))
        assert row_bytes(form, _COLS) == (_COLS, _COLS // GROUP * 8)
        encoded = self.upload(array("b", values).tobytes())
        return Encoded(form, encoded, self.upload(scales.tobytes()))

    async def agrees(self, target: Target, matrix: Matrix, tokens: int) -> bool:
        layout = StepLayout(BatchShape(tokens, 1, 1, 1), 16, num_blocks=1, num_token_ids=1)
        words = self.upload(pack("<4I", tokens, 1, 1, 0) + bytes(4 * layout.block_tables))
        step = StepBuffer(words, layout, tokens, 1, 1, 1)
        out = self.upload(bytes(4 * tokens * _ROWS))
        launches = linear(
            self.device,
            target,
            step=step,
            rows=step.tokens,
            x=self.encoded(target.activation, tokens),
            weight=matrix,
            out=out,
        )
        got = memoryview(await self.device.replay(self.device.record(launches), out)).cast("f")
        return all(
            got[token * _ROWS + row]
            == sum(_input(token, col) * _weight(row, col) for col in range(_COLS))
            for token in range(tokens)
            for row in range(_ROWS)
        )
