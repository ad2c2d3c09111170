"""Checksums of a file's windows, which notice damage: XXH64, computed by checksum.c.

The last window of a file may be shorter. Natively only: in a browser, stores.js calls the same C.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain, zip_longest
from pathlib import Path

from webllm.artifacts.destination import WINDOW_BYTES
from webllm.errors import ConfigError

_SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
_LIBRARY = Path(__file__).parent / "lib" / f"webllm_checksum{_SUFFIX}"
_MAX_THREADS = 4  # more wait for memory


def checksums(data: bytes) -> list[int]:
    """Returns the checksum of each window."""
    starts = range(0, len(data), WINDOW_BYTES)
    return [_xxh64(window, len(window)) for i in starts if (window := data[i : i + WINDOW_BYTES])]


def file_checksums(path: Path) -> list[int]:
    """Returns the checksum of each window of a file, computed on a few threads.

    The file is read, not mapped: that is faster, and a disk that fails raises OSError, no SIGBUS.
    """
    num_windows = -(-path.stat().st_size // WINDOW_BYTES)
    num_threads = max(1, min(num_windows, os.cpu_count() or 1, _MAX_THREADS))

    def every_nth(first: int) -> list[int]:
        buffer, found = ctypes.create_string_buffer(WINDOW_BYTES), []
        with path.open("rb") as file:
            for window in range(first, num_windows, num_threads):
                file.seek(window * WINDOW_BYTES)
                found.append(_xxh64(buffer, file.readinto(buffer)))
        return found

    with ThreadPoolExecutor(num_threads, "webllm-checksum") as threads:
        columns = threads.map(every_nth, range(num_threads))
        rows = zip_longest(*columns)
        return list(chain.from_iterable(rows))[:num_windows]


def damaged_windows(path: Path, expected: Sequence[int]) -> list[int]:
    """Returns the windows of a file whose bytes do not have the expected checksums."""
    pairs = zip_longest(file_checksums(path), expected)
    return [window for window, (found, wanted) in enumerate(pairs) if found != wanted]


def _xxh64(data: bytes | ctypes.Array[ctypes.c_char], num_bytes: int) -> int:
    return int(_library().xxh64(data, num_bytes))  # without the interpreter's lock


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(_LIBRARY))
    except OSError as error:
        raise ConfigError(
            f"stored models cannot be verified on this machine ({error}); install webllm from a "
            "wheel for it, or build it here with a C compiler or the `ziglang` package"
        ) from error
    library.xxh64.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    library.xxh64.restype = ctypes.c_uint64
    return library
