"""The kernels as a WebAssembly module in a browser, with a memory separate from Python's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from js import Uint8Array
from pyodide.ffi import JsException

from webllm.artifacts.checkpoint import RawBytes
from webllm.backends.cpu.browser_module import PAGE_BYTES, WasmInstance
from webllm.backends.cpu.kernels import Bytes
from webllm.errors import DeviceMemoryError

_ALIGNMENT = 64


class LinearMemory:
    """See `kernels.Allocation`. Part of the module's memory, which never shrinks."""

    def __init__(self, kernels: BrowserKernels, address: int) -> None:
        self.address = address
        self._kernels = kernels

    def write(self, offset: int, data: Bytes) -> None:
        view = memoryview(data).cast("B")
        start = self.address + offset
        self._kernels.bytes.subarray(start, start + len(view)).assign(view)

    def read(self, offset: int, num_bytes: int) -> memoryview:
        start = self.address + offset
        return memoryview(self._kernels.bytes.subarray(start, start + num_bytes).to_bytes())

    def close(self) -> None:
        """Does nothing: the memory is freed with the module."""


class BrowserKernels:
    """See `kernels.Kernels`. `submit` does its work before it returns."""

    is_blocking = True

    def __init__(self, instance: WasmInstance, num_threads: int = 1) -> None:
        """`browser_threads` starts the threads beyond the first, which is the caller's."""
        self.isa, self.forms = instance.isa, instance.forms
        self.num_threads, self.instance = num_threads, instance
        self.workers: list[Any] = []  # Web Workers, one for each other thread
        self._exports = instance.exports
        self.kv_element_bytes = int(self._exports.kv_element_bytes())
        self.bytes: Any = Uint8Array.new(instance.memory.buffer)  # replaced when it grows
        self._end = int(getattr(self._exports, "__heap_base").value)  # a class mangles the name
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
            self.instance.memory.grow(num_pages)
        except JsException as error:
            raise DeviceMemoryError(
                f"the browser gives no {num_pages * PAGE_BYTES >> 20} MiB more: {error}; take a "
                "smaller model or a shorter context window"
            ) from error
        self.bytes = Uint8Array.new(self.instance.memory.buffer)

    def available_bytes(self) -> int | None:
        return self.instance.max_bytes - self._end

    @contextmanager
    def source(self, data: RawBytes) -> Iterator[int]:
        """Copies `data` to the end of the memory in use; frees that copy afterwards."""
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
            self.bytes.fill(0, memory.address, end)  # allocate() promises zeros
            self._end = before

    def run(self, plan_address: int) -> None:
        self._exports.run(self.pool, plan_address)

    def pack(self, packing_address: int) -> None:
        self._exports.pack(self.pool, packing_address)

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
        """Ends the threads. Nothing runs on them: every call has waited for its work."""
        self._exports.pool_destroy(self.pool)  # wakes them: terminating a sleeper takes seconds
        for worker in self.workers:
            worker.terminate()
        self.workers.clear()
