"""The kernels as WebAssembly in wasmtime, as a browser runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import wasmtime

from webllm.artifacts.checkpoint import RawBytes
from webllm.backends.cpu.kernels import Bytes
from webllm.errors import DeviceMemoryError

_PAGE = 65536


@cache
def _engine() -> wasmtime.Engine:
    config = wasmtime.Config()
    config.wasm_relaxed_simd = True
    return wasmtime.Engine(config)


@cache
def _compiled(path: Path) -> wasmtime.Module:
    return wasmtime.Module.from_file(_engine(), str(path))


class WasmMemory:
    def __init__(self, kernels: WasmKernels, address: int) -> None:
        self.kernels, self.address = kernels, address

    def write(self, offset: int, data: Bytes) -> None:
        view = memoryview(data).cast("B")
        self.kernels.memory.write(self.kernels.store, view.tobytes(), self.address + offset)

    def read(self, offset: int, num_bytes: int) -> memoryview:
        start = self.address + offset
        return memoryview(self.kernels.memory.read(self.kernels.store, start, start + num_bytes))

    def close(self) -> None:
        """Does nothing: linear memory never shrinks."""


class WasmKernels:
    num_threads = 1
    is_blocking = True

    def __init__(self, path: Path) -> None:
        module = _compiled(path)
        self.store = wasmtime.Store(_engine())
        self.exports = wasmtime.Instance(self.store, module, []).exports(self.store)
        memory, heap = self.exports["memory"], self.exports["__heap_base"]
        assert isinstance(memory, wasmtime.Memory)
        assert isinstance(heap, wasmtime.Global)
        self.memory = memory
        self._end: int = heap.value(self.store)
        self.isa = self._string(self.call("isa"))
        self.forms = "relaxed" if self.call("fuses") else "baseline"
        self.kv_element_bytes = self.call("kv_element_bytes")
        self._pool = self.call("pool_create", 1)
        self._source: WasmMemory | None = None

    def call(self, name: str, *arguments: int) -> int:
        function = self.exports[name]
        assert isinstance(function, wasmtime.Func)
        result: int = function(self.store, *arguments)
        return result

    def _string(self, address: int) -> str:
        data = self.memory.read(self.store, address, address + 32)
        return bytes(data).split(b"\0")[0].decode()

    def allocate(self, num_bytes: int, *, filled: bool = False) -> WasmMemory:
        address = -(-self._end // 64) * 64
        self._end = address + num_bytes
        missing = self._end - self.memory.data_len(self.store)
        if missing > 0:
            try:
                self.memory.grow(self.store, -(-missing // _PAGE))
            except (wasmtime.WasmtimeError, OverflowError) as error:
                raise DeviceMemoryError(f"{num_bytes} bytes do not fit: {error}") from error
        return WasmMemory(self, address)

    def available_bytes(self) -> int | None:
        return (4 << 30) - self._end

    @contextmanager
    def source(self, data: RawBytes) -> Iterator[int]:
        assert isinstance(data, memoryview)
        before = self._end
        memory = self.allocate(len(data))
        try:
            memory.write(0, data)
            yield memory.address
        finally:
            memory.write(0, bytes(len(data)))  # allocate() promises zeros
            self._end = before

    def run(self, plan_address: int) -> None:
        self.call("run", self._pool, plan_address)

    def pack(self, packing_address: int) -> None:
        self.call("pack", self._pool, packing_address)

    def dequantize(self, packing: int, out: int) -> None:
        self.call("dequantize", packing, out)

    def submit(self, work: Callable[[], None]) -> Future[None]:
        done: Future[None] = Future()
        work()
        done.set_result(None)
        return done

    def close(self) -> None:
        pass
