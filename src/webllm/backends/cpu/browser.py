"""The kernels as WebAssembly in a browser, in a memory of their own beside Python's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from js import Uint8Array
from pyodide.ffi import JsException

from webllm.artifacts.checkpoint import RawBytes
from webllm.backends.cpu.browser_kernels import PAGE_BYTES, Kernels
from webllm.backends.cpu.host import Bytes
from webllm.errors import DeviceMemoryError

_ALIGNMENT = 64


class LinearMemory:
    """See `host.Memory`. A part of the module's memory, which never shrinks."""

    def __init__(self, host: BrowserHost, address: int) -> None:
        self.address = address
        self._host = host

    def write(self, offset: int, data: Bytes) -> None:
        view = memoryview(data).cast("B")
        start = self.address + offset
        self._host.bytes.subarray(start, start + len(view)).assign(view)

    def read(self, offset: int, num_bytes: int) -> memoryview:
        start = self.address + offset
        return memoryview(self._host.bytes.subarray(start, start + num_bytes).to_bytes())

    def close(self) -> None:
        """Goes when the host is let go of."""


class BrowserHost:
    """See `host.Host`. Work is done by the time it is submitted."""

    is_blocking = True

    def __init__(self, kernels: Kernels, num_threads: int = 1) -> None:
        """With several threads, all but this one are to be started by `browser_threads`."""
        self.isa, self.num_threads, self.kernels = kernels.isa, num_threads, kernels
        self.helpers: list[Any] = []  # workers
        self._exports = kernels.exports
        self.kv_element_bytes = int(self._exports.kv_element_bytes())
        self.bytes: Any = Uint8Array.new(kernels.memory.buffer)  # replaced when it grows
        self._end = int(getattr(self._exports, "__heap_base").value)  # a class would mangle it
        self.pool = int(self._exports.pool_create(num_threads))

    def allocate(self, num_bytes: int, *, filled: bool = False) -> LinearMemory:
        address = -(-self._end // _ALIGNMENT) * _ALIGNMENT
        missing = address + num_bytes - self.bytes.byteLength
        if missing > 0:
            self._grow(-(-missing // PAGE_BYTES))
        self._end = address + num_bytes
        return LinearMemory(self, address)

    def _grow(self, num_pages: int) -> None:
        try:
            self.kernels.memory.grow(num_pages)
        except JsException as error:
            raise DeviceMemoryError(
                f"the browser gives no {num_pages * PAGE_BYTES >> 20} MiB more: {error}; take a "
                "smaller model or a shorter context window"
            ) from error
        self.bytes = Uint8Array.new(self.kernels.memory.buffer)

    def available_bytes(self) -> int | None:
        return self.kernels.most_bytes - self._end

    @contextmanager
    def source(self, data: RawBytes) -> Iterator[int]:
        """Copies `data` behind all else for the time being."""
        before = self._end
        num_bytes = data.nbytes if isinstance(data, memoryview) else data.byteLength
        memory = self.allocate(num_bytes)
        try:
            if isinstance(data, memoryview):
                memory.write(0, data)
            else:
                self.bytes.set(data, memory.address)
            yield memory.address
        finally:
            end = memory.address + num_bytes
            self.bytes.fill(0, memory.address, end)  # as allocate() promises
            self._end = before

    def run(self, plan_address: int) -> None:
        self._exports.run(self.pool, plan_address)

    def pack(self, packing_address: int) -> None:
        self._exports.pack(self.pool, packing_address)

    def dequantize(self, type_id: int, source: int, num_weights: int, out: int) -> None:
        self._exports.dequantize(type_id, source, num_weights, out)

    def submit(self, work: Callable[[], None]) -> Future[None]:
        done: Future[None] = Future()
        try:
            work()
        except Exception as error:
            done.set_exception(error)
        else:
            done.set_result(None)
        return done

    def close(self) -> None:
        """Nothing runs between two calls."""
        self._exports.pool_destroy(self.pool)  # or a browser waits seconds for sleeping helpers
        for helper in self.helpers:
            helper.terminate()
        self.helpers.clear()
