"""Where the compiled kernels run: native library or WebAssembly module, behind one protocol.

Addresses are plain integers in the kernels' own memory.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Protocol

from webllm.artifacts.checkpoint import RawBytes

Bytes = bytes | bytearray | memoryview


class Memory(Protocol):
    """Zeroed memory, aligned to 64 bytes. Pages cost nothing before they are first written."""

    address: int

    def write(self, offset: int, data: Bytes) -> None: ...

    def read(self, offset: int, num_bytes: int) -> memoryview:
        """May be a view of the memory itself: valid until it is next written or closed."""

    def close(self) -> None: ...


class Host(Protocol):
    """One copy of the kernels with its threads."""

    isa: str  # the kernels' variant, such as "avx2"
    num_threads: int
    is_blocking: bool  # submit() returns when the work is done
    kv_element_bytes: int

    def allocate(self, num_bytes: int, *, filled: bool = False) -> Memory:
        """`filled`: all of it will be written, so that large pages, which are read faster, cost
        nothing. Raises DeviceMemoryError.
        """

    def available_bytes(self) -> int | None:
        """Memory that can still be allocated; None if unknown."""

    def source(self, data: RawBytes) -> AbstractContextManager[int]:
        """The address at which kernels read `data`, which will not be needed again soon."""

    def run(self, plan_address: int) -> None:
        """Runs one step; see `Plan` in ops.h."""

    def pack(self, packing_address: int) -> None:
        """Packs rows of a tensor; see `Packing` in kernels.c."""

    def dequantize(self, type_id: int, source: int, num_weights: int, out: int) -> None:
        """Weights of a GGML type as f32; `num_weights` is a multiple of 32."""

    def submit(self, work: Callable[[], None]) -> Future[None]:
        """Does `work` after all earlier work, on the kernels' own thread if there are threads."""

    def close(self) -> None: ...
