"""The kernels built with AddressSanitizer and UBSan, in memory with poisoned gaps.

The kernels' memory is one mapping, so ASan cannot see its pieces. Here every piece that
`BumpAllocator` lays out is followed by a poisoned gap of at least 64 bytes.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from webllm.backends.cpu import memory_plan, native, native_library, plan, weights
from webllm.backends.cpu.native import MappedMemory, NativeKernels

SOURCE = Path(native_library.__file__).parent / "kernels.c"
FLAGS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512vnni": ["-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512dq",
                   "-mavx512vl", "-mavx512vnni"],
}  # fmt: skip
_GAP = 64


def build(folder: Path) -> list[str]:
    """Compiles this machine's variants whose source is newer; returns the names of all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [name for name in FLAGS if name in native_library.variants()]
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    common = ["-std=gnu11", "-O1", "-g", "-ffp-contract=off", "-fno-math-errno", "-shared", "-fPIC"]
    newest = max(file.stat().st_mtime for file in SOURCE.parent.glob("*.[ch]"))
    running = []
    for name in names:
        out = folder / f"webllm_cpu_{name}.so"
        if out.exists() and out.stat().st_mtime > newest:
            continue
        command = [
            "gcc",
            *common,
            *sanitize,
            "-pthread",
            *FLAGS[name],
            str(SOURCE),
            "-o",
            str(out),
        ]
        running.append(subprocess.Popen(command))
    if any(process.wait() for process in running):
        raise SystemExit("the kernels do not compile with sanitizers: gcc and libasan are needed")
    return names


def environment() -> dict[str, str]:
    """Returns the environment of a Python that loads such a library."""
    found = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    )
    return {
        "LD_PRELOAD": found.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:quarantine_size_mb=8:"
        "allocator_may_return_null=1",
        "UBSAN_OPTIONS": "abort_on_error=1:print_stacktrace=1",
    }


class GuardedAllocator(memory_plan.BumpAllocator):
    """`gaps` has the gaps of every planned block of memory, by the block's size."""

    gaps: dict[int, list[tuple[int, int]]] = {}  # noqa: RUF012 - one for all, on purpose

    def allocate(self, num_bytes: int) -> int:
        before = self.gaps.pop(self.num_bytes, []) if self.num_bytes else []
        offset = super().allocate(num_bytes + _GAP)
        self.gaps[self.num_bytes] = [*before, (offset + num_bytes, self.num_bytes)]
        return offset


class GuardedMemory(MappedMemory):
    def __init__(self, num_bytes: int, *, filled: bool = False) -> None:
        super().__init__(num_bytes + 4096, filled=filled)
        gaps = GuardedAllocator.gaps.pop(num_bytes, [])
        self._size = num_bytes + 4096
        for start, end in [*gaps, (num_bytes, self._size)]:
            _mark("poison", self.address + start, end - start)

    def close(self) -> None:
        _mark("unpoison", self.address, self._size)
        super().close()


class SanitizedKernels(NativeKernels):
    def allocate(self, num_bytes: int, *, filled: bool = False) -> MappedMemory:
        return GuardedMemory(num_bytes, filled=filled)

    @contextmanager
    def source(self, data: object) -> Iterator[int]:
        """Gives the kernels a copy whose allocation ends with its last byte."""
        assert isinstance(data, memoryview)
        copy = ctypes.create_string_buffer(bytes(data), len(data))
        yield ctypes.addressof(copy)


def _mark(verb: str, address: int, num_bytes: int) -> None:
    function = getattr(ctypes.CDLL(None), f"__asan_{verb}_memory_region")
    function.argtypes, function.restype = (ctypes.c_void_p, ctypes.c_size_t), None
    function(address, num_bytes)


def install(folder: Path) -> None:
    """Makes `open_kernels` open these kernels."""
    native_library.FOLDER = folder
    for module in (plan, weights):
        module.BumpAllocator = GuardedAllocator  # type: ignore[attr-defined]
    native.NativeKernels = SanitizedKernels  # type: ignore[misc]
