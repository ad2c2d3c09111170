"""The kernels as a native library: called through ctypes, on memory mapped anonymously."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

from webllm.artifacts.checkpoint import RawBytes
from webllm.backends.cpu.kernels import Bytes
from webllm.backends.cpu.native_library import open_library
from webllm.backends.cpu.system_memory import available_bytes
from webllm.errors import DeviceMemoryError

_MAX_THREADS = 64  # as in threads.h
_MAX_DEFAULT_THREADS = 16  # only models too large for a CPU gain from more


class MappedMemory:
    """See `kernels.Allocation`."""

    def __init__(self, num_bytes: int, *, filled: bool = False) -> None:
        try:
            self._mapping = _anonymous_mapping(num_bytes)
        except (OSError, OverflowError) as error:
            raise DeviceMemoryError(f"{num_bytes} bytes cannot be allocated: {error}") from error
        if filled and hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # the operating system may have no huge pages
                self._mapping.madvise(mmap.MADV_HUGEPAGE)
        self._view = memoryview(self._mapping)
        anchor = ctypes.c_char.from_buffer(self._mapping)
        self.address = ctypes.addressof(anchor)

    def write(self, offset: int, data: Bytes) -> None:
        view = memoryview(data).cast("B")
        self._view[offset : offset + len(view)] = view

    def read(self, offset: int, num_bytes: int) -> memoryview:
        return self._view[offset : offset + num_bytes]

    def close(self) -> None:
        """Unmaps the memory; no view that `read` returned may still be in use."""
        self._view.release()
        self._mapping.close()


def _anonymous_mapping(num_bytes: int) -> mmap.mmap:
    if sys.platform == "win32":
        return mmap.mmap(-1, num_bytes)
    return mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class NativeKernels:
    """See `kernels.Kernels`."""

    is_blocking = False

    def __init__(self, num_threads: int | None = None, variant: str | None = None) -> None:
        self._library = _declare(open_library(variant))
        self.isa = self.forms = self._library.isa().decode()
        self.kv_element_bytes = int(self._library.kv_element_bytes())
        wanted = num_threads or min(_usable_cpus(), _MAX_DEFAULT_THREADS)
        self.num_threads = min(wanted, _MAX_THREADS)
        self._pool: int | None = self._library.pool_create(self.num_threads)
        if self._pool is None:
            raise DeviceMemoryError("no memory for the CPU kernels' threads")
        self._worker = ThreadPoolExecutor(1, "webllm-cpu")

    def allocate(self, num_bytes: int, *, filled: bool = False) -> MappedMemory:
        return MappedMemory(num_bytes, filled=filled)

    def available_bytes(self) -> int | None:
        return available_bytes()

    @contextmanager
    def source(self, data: RawBytes) -> Iterator[int]:
        assert isinstance(data, memoryview), data
        try:
            yield _address(data)
        finally:
            _release_pages(data)

    def run(self, plan_address: int) -> None:
        self._library.run(self._pool, plan_address)

    def pack(self, packing_address: int) -> None:
        self._library.pack(self._pool, packing_address)

    def submit(self, work: Callable[[], None]) -> Future[None]:
        return self._worker.submit(work)

    def close(self) -> None:
        self._worker.shutdown()
        if self._pool is not None:
            self._library.pool_destroy(self._pool)
        self._pool = None


class _PyBuffer(ctypes.Structure):
    """CPython's Py_buffer; only `buf` is read."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("rest", ctypes.c_byte * 128),
    )


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    address, word = ctypes.c_void_p, ctypes.c_uint32
    library.isa.restype = ctypes.c_char_p
    library.kv_element_bytes.restype = word
    library.pool_create.argtypes, library.pool_create.restype = (word,), address
    library.pool_destroy.argtypes, library.pool_destroy.restype = (address,), None
    library.run.argtypes, library.run.restype = (address, address), None
    library.pack.argtypes, library.pack.restype = (address, address), None
    return library


def _address(buffer: object) -> int:
    """Returns the address of an object's buffer, also of a read-only one."""
    filled = _PyBuffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(buffer), ctypes.byref(filled), 0)
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(filled))
    return filled.buf or 0


def _release_pages(data: memoryview) -> None:
    """Drops a mapped file's pages from this process: its resident memory would grow by the file."""
    mapping = data.obj
    if isinstance(mapping, mmap.mmap) and data.readonly and hasattr(mmap, "MADV_DONTNEED"):
        start = _address(data) - _address(mapping)
        page = start - start % mmap.PAGESIZE
        mapping.madvise(mmap.MADV_DONTNEED, page, start + data.nbytes - page)


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
