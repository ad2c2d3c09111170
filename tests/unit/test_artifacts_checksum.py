"""XXH64 in C, natively and as WebAssembly, and the windows of a file."""

import ctypes
import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from webllm.artifacts import checksum
from webllm.artifacts.checksum import checksums, damaged_windows, file_checksums
from webllm.artifacts.destination import WINDOW_BYTES
from webllm.errors import ConfigError

LIBRARY = checksum._LIBRARY
WASM = LIBRARY.with_suffix(".wasm")
P1, P2, P3, P4, P5 = (
    *(0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9),
    *(0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5),
)
MASK = 2**64 - 1


def native(data: bytes) -> int:
    return checksum._xxh64(data, len(data))


class Wasm:
    """The module as stores.js calls it: the bytes lie behind __heap_base."""

    def __init__(self) -> None:
        self.store = wasmtime.Store()
        module = wasmtime.Module.from_file(self.store.engine, str(WASM))
        assert not module.imports
        exports = wasmtime.Instance(self.store, module, []).exports(self.store)
        memory, function, heap = (exports[name] for name in ("memory", "xxh64", "__heap_base"))
        assert isinstance(memory, wasmtime.Memory)
        assert isinstance(function, wasmtime.Func)
        assert isinstance(heap, wasmtime.Global)
        self.memory, self.xxh64, self.heap = memory, function, int(heap.value(self.store))
        memory.grow(self.store, 1)

    def __call__(self, data: bytes) -> int:
        self.memory.write(self.store, data, self.heap)
        return int(self.xxh64(self.store, self.heap, len(data))) & MASK


def reference(data: bytes) -> int:
    """XXH64 with seed 0, written from the specification alone."""

    def word(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], "little")

    def rotate(value: int, bits: int) -> int:
        return (value << bits | value >> 64 - bits) & MASK

    def step(lane: int, value: int) -> int:
        return rotate((lane + value * P2) & MASK, 31) * P1 & MASK

    found = P5
    if len(data) >= 32:
        lanes = [(P1 + P2) & MASK, P2, 0, -P1 & MASK]
        for at in range(0, len(data) - 31, 32):
            lanes = [step(lane, word(at + 8 * i, 8)) for i, lane in enumerate(lanes)]
        found = sum(map(rotate, lanes, (1, 7, 12, 18))) & MASK
        for lane in lanes:
            found = ((found ^ step(0, lane)) * P1 + P4) & MASK
    found = (found + len(data)) & MASK
    for at in range(len(data) // 32 * 32, len(data) - 7, 8):
        found = (rotate(found ^ step(0, word(at, 8)), 27) * P1 + P4) & MASK
    at = len(data) // 8 * 8
    if len(data) - at >= 4:
        found = (rotate(found ^ word(at, 4) * P1 & MASK, 23) * P2 + P3) & MASK
        at += 4
    for byte in data[at:]:
        found = rotate(found ^ byte * P5 & MASK, 11) * P1 & MASK
    found = (found ^ found >> 33) * P2 & MASK
    found = (found ^ found >> 29) * P3 & MASK
    return found ^ found >> 32


IMPLEMENTATIONS = pytest.mark.parametrize("xxh64", [native, Wasm(), reference])


@IMPLEMENTATIONS
def test_published_vectors(xxh64: Callable[[bytes], int]) -> None:
    """Those of the xxHash repository, cli/xsum_sanity_check.c, for seed 0."""
    data, generator = bytearray(), 2654435761
    for _ in range(222):
        data.append(generator >> 56)
        generator = generator * 11400714785074694797 & MASK
    vectors = {
        0: 0xEF46DB3751D8E999,
        1: 0xE934A84ADB052768,
        4: 0x9136A0DCA57457EE,
        14: 0x8282DCC4994E35C8,
        222: 0xB641AE8CB691C174,
    }
    assert {size: xxh64(bytes(data[:size])) for size in vectors} == vectors


@pytest.mark.parametrize("xxh64", [native, Wasm()])
@given(data=st.binary(max_size=200))
def test_every_length(xxh64: Callable[[bytes], int], data: bytes) -> None:
    assert xxh64(data) == reference(data)


@given(data=st.binary(min_size=8, max_size=100), skipped=st.integers(0, 8))
def test_any_address(data: bytes, skipped: int) -> None:
    buffer = ctypes.create_string_buffer(data, len(data))
    address = ctypes.addressof(buffer) + skipped
    found = checksum._library().xxh64(address, len(data) - skipped)
    assert found == reference(data[skipped:])


def test_nothing_is_read_beyond_the_end_and_nothing_is_undefined(tmp_path: Path) -> None:
    main, out = tmp_path / "main.c", tmp_path / "main"
    main.write_text(
        f"""
        #include <stdlib.h>
        #include "{Path(checksum.__file__).with_name("checksum.c")}"
        int main(void) {{
            for (size_t size = 1; size < 200; size++)
                for (size_t skipped = 0; skipped < 8 && skipped < size; skipped++) {{
                    uint8_t *data = calloc(size, 1);
                    xxh64(data + skipped, size - skipped);
                    free(data);
                }}
        }}
        """
    )
    compiler = shlex.split(os.environ.get("CC", "cc"))
    flags = ["-std=gnu11", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run([*compiler, *flags, str(main), "-o", str(out)], check=True)
    done = subprocess.run([out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "size", [0, 1, WINDOW_BYTES - 1, WINDOW_BYTES, WINDOW_BYTES + 1, 7 * WINDOW_BYTES + 12345]
)
def test_windows_of_a_file(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    file = tmp_path / "file"
    file.write_bytes(data)
    found = file_checksums(file)
    assert found == checksums(data)
    assert len(found) == -(-size // WINDOW_BYTES)
    assert found[1:2] == ([native(data[WINDOW_BYTES:][:WINDOW_BYTES])] if found[1:] else [])


def test_damaged_windows(tmp_path: Path) -> None:
    file = tmp_path / "file"
    data = bytearray(os.urandom(4 * WINDOW_BYTES + 100))
    expected = checksums(bytes(data))
    file.write_bytes(data)
    assert damaged_windows(file, expected) == []
    for at in (0, WINDOW_BYTES - 1, 2 * WINDOW_BYTES + 7, len(data) - 1):
        data[at] ^= 1
    file.write_bytes(data)
    assert damaged_windows(file, expected) == [0, 2, 4]
    file.write_bytes(data[: 3 * WINDOW_BYTES])  # truncated
    assert damaged_windows(file, expected) == [0, 2, 3, 4]
    assert damaged_windows(file, expected[:2]) == [0, 2]  # grown


def test_a_missing_library_names_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(checksum, "_LIBRARY", tmp_path / "none")
    checksum._library.cache_clear()
    try:
        with pytest.raises(ConfigError, match=r"cannot be verified.*install webllm from a wheel"):
            checksums(b"x")
    finally:
        checksum._library.cache_clear()
