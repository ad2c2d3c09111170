"""The kernels as WebAssembly in a browser, in a memory of their own beside Python's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

from js import Uint8Array, WebAssembly
from pyodide.ffi import JsException, to_js

from webllm.artifacts.checkpoint import RawBytes
from webllm.cpu.host import Bytes
from webllm.errors import DeviceMemoryError, DeviceNotFoundError

VARIANTS = ("relaxed", "simd128")  # the fastest first
FOLDER = files("webllm.cpu") / "lib"
_PAGE_BYTES = 65536
_ADDRESS_SPACE = 4 << 30
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
    """See `host.Host`. `variant` None: the fastest that computes rightly here."""

    num_threads = 1

    def __init__(self, variant: str | None = None) -> None:
        self.isa, self._kernels = _open_kernels((variant,) if variant else VARIANTS)
        self.kv_element_bytes = int(self._kernels.kv_element_bytes())
        self.bytes: Any = Uint8Array.new(self._kernels.memory.buffer)  # replaced when it grows
        self._end = int(getattr(self._kernels, "__heap_base").value)  # a class would mangle it
        self._pool = self._kernels.pool_create(1)

    def allocate(self, num_bytes: int, *, filled: bool = False) -> LinearMemory:
        address = -(-self._end // _ALIGNMENT) * _ALIGNMENT
        missing = address + num_bytes - self.bytes.byteLength
        if missing > 0:
            self._grow(-(-missing // _PAGE_BYTES))
        self._end = address + num_bytes
        return LinearMemory(self, address)

    def _grow(self, num_pages: int) -> None:
        try:
            self._kernels.memory.grow(num_pages)
        except JsException as error:
            raise DeviceMemoryError(
                f"the browser gives no {num_pages * _PAGE_BYTES >> 20} MiB more: {error}; take a "
                "smaller model or a shorter context window"
            ) from error
        self.bytes = Uint8Array.new(self._kernels.memory.buffer)

    def available_bytes(self) -> int | None:
        return _ADDRESS_SPACE - self._end

    @contextmanager
    def source(self, data: RawBytes) -> Iterator[int]:
        """Copies `data` behind all else for the time being."""
        before = self._end
        num_bytes = data.nbytes if isinstance(data, memoryview) else data.byteLength
        memory = self.allocate(num_bytes)
        if isinstance(data, memoryview):
            memory.write(0, data)
        else:
            self.bytes.set(data, memory.address)
        yield memory.address
        self.bytes.fill(0, memory.address, memory.address + num_bytes)  # as allocate() promises
        self._end = before

    def run(self, plan_address: int) -> None:
        self._kernels.run(self._pool, plan_address)

    def pack(self, packing_address: int) -> None:
        self._kernels.pack(self._pool, packing_address)

    def dequantize(self, type_id: int, source: int, num_weights: int, out: int) -> None:
        self._kernels.dequantize(type_id, source, num_weights, out)

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


def _open_kernels(names: tuple[str, ...]) -> tuple[str, Any]:
    """The first variant of `names` that this browser runs, and runs rightly, and its exports."""
    for name in names:
        code = to_js((FOLDER / f"webllm_cpu_{name}.wasm").read_bytes())
        if not WebAssembly.validate(code):
            continue
        kernels = WebAssembly.Instance.new(WebAssembly.Module.new(code)).exports
        if kernels.self_test():
            return name, kernels
    raise DeviceNotFoundError(
        f"none of the CPU kernels {list(names)} runs in this browser; it needs WebAssembly with "
        "SIMD: update the browser"
    )
