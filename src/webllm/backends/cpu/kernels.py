"""The compiled kernels as Python sees them: a native library or a WebAssembly module.

Addresses are plain integers in the kernels' own memory.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Protocol

from webllm.artifacts.checkpoint import RawBytes

Bytes = bytes | bytearray | memoryview


class Allocation(Protocol):
    """Zeroed memory, aligned to 64 bytes. A page takes no RAM before it is first written."""

    address: int

    def write(self, offset: int, data: Bytes) -> None: ...

    def read(self, offset: int, num_bytes: int) -> memoryview:
        """Returns bytes that may be a view of the memory: valid until the next write or close."""

    def close(self) -> None: ...


class Kernels(Protocol):
    """One compiled variant of the kernels, with its memory and its thread pool."""

    isa: str  # the variant, such as "avx2"
    forms: str  # names the arithmetic: kernels of the same forms compute the same bits
    num_threads: int
    is_blocking: bool  # whether submit() returns only when the work is done
    kv_element_bytes: int

    def allocate(self, num_bytes: int, *, filled: bool = False) -> Allocation:
        """Returns new memory; raises DeviceMemoryError if there is not enough.

        `filled` promises that every page will be written. Huge pages, which are faster to read,
        then waste nothing.
        """

    def available_bytes(self) -> int | None:
        """Memory that can still be allocated; None if unknown."""

    def source(self, data: RawBytes) -> AbstractContextManager[int]:
        """Makes `data` readable by the kernels; gives its address. Made for reading data once."""

    def run(self, plan_address: int) -> None:
        """Runs one step; see `Plan` in ops.h."""

    def pack(self, packing_address: int) -> None:
        """Packs rows of a tensor into panels; see `Packing` in packing.h."""

    def submit(self, work: Callable[[], None]) -> Future[None]:
        """Does `work` after all earlier work, on a thread of its own if there are threads."""

    def close(self) -> None: ...
