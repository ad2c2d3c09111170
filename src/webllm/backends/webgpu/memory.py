"""Scratch memory of executables: values whose lifetimes do not overlap share buffers.

A live value has a buffer of its own, because WebGPU forbids a dispatch to read and write one
buffer, even in different parts. Executables share the pool: their steps never overlap.
"""

from __future__ import annotations

from webllm.backends.webgpu.device.protocol import Buffer, Device
from webllm.ops.program import Program, values_of
from webllm.ops.values import Value


class Pool:
    """Buffers for reuse; `acquire` prefers the smallest that fits."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._all: list[Buffer] = []
        self._free: list[Buffer] = []

    def acquire(self, num_bytes: int) -> Buffer:
        fitting = [buffer for buffer in self._free if buffer.size >= num_bytes]
        if not fitting:
            buffer = self._device.buffer(num_bytes, "scratch")
            self._all.append(buffer)
            return buffer
        best = min(fitting, key=lambda buffer: buffer.size)
        self._free.remove(best)
        return best

    def release(self, buffer: Buffer) -> None:
        self._free.append(buffer)

    def release_all(self) -> None:
        """Frees all buffers, before another executable is lowered."""
        self._free = list(self._all)

    def destroy(self) -> None:
        for buffer in self._all:
            buffer.destroy()
        self._all.clear()
        self._free.clear()


def last_uses(program: Program) -> dict[int, list[Value]]:
    """Returns, by the index of an op, the values that no later op uses."""
    last = {value.id: (i, value) for i, op in enumerate(program.ops) for value in values_of(op)}
    uses: dict[int, list[Value]] = {}
    for i, value in last.values():
        uses.setdefault(i, []).append(value)
    return uses
