"""Mutates small GGUF files and checks that the parser returns a result or raises a WebLLMError.

    python tests/fuzz/fuzz_gguf.py --count 1000000 [--seed 0]

Input number i of a seed is always the same bytes. A finding is written to `--save` and ends the
run. A file that parses is checked further: its tensors lie inside the file without overlap, and its
strings encode to their bytes. Time is bounded for each input, memory for the whole run.
"""

import argparse
import gc
import random
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from webllm.artifacts.gguf.header import GGUFHeader, MoreBytesNeeded, parse_header
from webllm.artifacts.gguf.packed_arrays import StringArray
from webllm.errors import WebLLMError

MAX_CPU_S = 0.1  # per input; a hundred times the slowest seen
MAX_GROWTH_BYTES = 256 << 20
# GGUF's type ids of scalars, and the letters that `struct` packs them with.
SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIifBQqd", strict=True))
STRING, ARRAY = 8, 9  # type ids
BOUNDARIES = [  # integers at which a parser may go wrong
    *(0, 1, 2, 3, 4, 7, 8, 9, 12, 13, 30, 31, 32, 33, 255, 256, 65_535, 65_536, 1 << 24),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**61, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1),
]


@dataclass(frozen=True)
class Seed:
    """A valid file, and the (position, size in bytes) of its integers."""

    data: bytes
    integers: tuple[tuple[int, int], ...]


class SeedWriter:
    """Writes a GGUF file piece by piece and notes the positions of its integers."""

    def __init__(self, version: int, num_tensors: int, num_entries: int) -> None:
        self.data = bytearray(b"GGUF")
        self.integers: list[tuple[int, int]] = []
        self.integer("I", version)
        self.integer("Q", num_tensors)
        self.integer("Q", num_entries)

    def integer(self, letter: str, value: int) -> None:
        self.integers.append((len(self.data), struct.calcsize(letter)))
        self.data += struct.pack("<" + letter, value)

    def text(self, value: bytes) -> None:
        self.integer("Q", len(value))
        self.data += value

    def scalar(self, key: bytes, type_id: int, value: float) -> None:
        self.text(key)
        self.integer("I", type_id)
        self.data += struct.pack("<" + SCALARS[type_id], value)

    def string(self, key: bytes, value: bytes) -> None:
        self.text(key)
        self.integer("I", STRING)
        self.text(value)

    def array(self, key: bytes, type_id: int, values: Sequence[object]) -> None:
        self.text(key)
        self.integer("I", ARRAY)
        self.elements(type_id, values)

    def elements(self, type_id: int, values: Sequence[object]) -> None:
        self.integer("I", type_id)
        self.integer("Q", len(values))
        for value in values:
            if isinstance(value, bytes):
                self.text(value)
            elif isinstance(value, list):
                self.elements(5, value)  # int32
            else:
                self.data += struct.pack("<" + SCALARS[type_id], value)

    def tensor(self, name: bytes, sizes: Sequence[int], dtype: int, offset: int) -> None:
        self.text(name)
        self.integer("I", len(sizes))
        for size in sizes:
            self.integer("Q", size)
        self.integer("I", dtype)
        self.integer("Q", offset)

    def seed(self, data_bytes: int, alignment: int = 32) -> Seed:
        self.data += bytes(-len(self.data) % alignment + data_bytes)
        return Seed(bytes(self.data), tuple(self.integers))


def make_seeds() -> list[Seed]:
    everything = SeedWriter(3, 3, len(SCALARS) + 6)
    for type_id in SCALARS:
        everything.scalar(b"k%d" % type_id, type_id, 1)
    everything.string(b"general.architecture", b"llama")
    everything.array(b"tokens", STRING, [b"<s>", b"\xe2\x96\x81a", b"\xff", b""])
    everything.array(b"scores", 6, [0.0, -1.0])
    everything.array(b"flags", 7, [True, False])
    everything.array(b"nested", ARRAY, [[1, 2], [], [3]])
    everything.scalar(b"general.alignment", 4, 16)
    everything.tensor(b"a", [32, 2], 8, 0)
    everything.tensor(b"b", [256], 12, 80)
    everything.tensor(b"c", [3, 2, 1, 1], 0, 224)
    small = SeedWriter(2, 1, 1)
    small.string(b"k", b"v")
    small.tensor(b"t", [4], 1, 0)
    tensors = SeedWriter(3, 2, 0)
    tensors.tensor(b"t", [4, 4], 30, 0)
    tensors.tensor(b"u", [32], 2, 32)
    empty = SeedWriter(3, 0, 0)
    return [everything.seed(248, 16), small.seed(8), tensors.seed(50), empty.seed(0)]


def mutate(seeds: list[Seed], rng: random.Random) -> bytes:
    """Returns a seed after a few random changes."""
    seed = seeds[int(rng.random() ** 2 * len(seeds))]  # the first, with everything, most often
    data = bytearray(seed.data)
    for _ in range(1 + int(rng.random() ** 2 * 4)):
        kind = rng.random()
        if kind < 0.4:
            position, size = rng.choice(seed.integers)
            value = _boundary(rng, len(data)) % (1 << 8 * size)
            data[position : position + size] = value.to_bytes(size, "little")
        elif kind < 0.7 and data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind < 0.8 and data:
            data[rng.randrange(len(data))] = rng.randrange(256)
        elif kind < 0.9:
            del data[rng.randrange(len(data) + 1) :]
        else:
            donor = rng.choice(seeds).data
            begin, target = rng.randrange(len(donor)), rng.randrange(len(data) + 1)
            length = rng.randrange(64)
            replaced = length if rng.random() < 0.5 else 0
            data[target : target + replaced] = donor[begin : begin + length]
    return bytes(data)


def _boundary(rng: random.Random, num_bytes: int) -> int:
    if rng.random() < 0.2:
        return num_bytes + rng.randrange(-40, 41) & 2**64 - 1
    return rng.choice(BOUNDARIES)


def check(data: bytes, shown_bytes: int) -> str:
    """Parses a file of which only the first `shown_bytes` have been read so far.

    Returns the name of the outcome. Raises AssertionError, or whatever the parser raises, for a
    finding.
    """
    try:
        header = parse_header(memoryview(data)[:shown_bytes], len(data))
    except MoreBytesNeeded as signal:
        if not shown_bytes < signal.num_bytes <= len(data):
            raise AssertionError("asks for bytes that it has, or that the file lacks") from signal
        return "MoreBytesNeeded"
    except WebLLMError as error:
        return type(error).__name__
    check_parsed(header, data)
    return "parsed"


def check_parsed(header: GGUFHeader, data: bytes) -> None:
    """Asserts that a header describes tensors and strings inside the file `data`."""
    end = 0
    for tensor in sorted(header.tensors.values(), key=lambda each: each.planes[0].offset):
        assert tensor.planes[0].offset % header.alignment == 0, "tensor is not aligned"
        assert end <= tensor.planes[0].offset, "tensors overlap"
        end = tensor.planes[0].offset + tensor.nbytes
        assert tensor.nbytes > 0, "tensor is empty"
    assert end <= len(data), "tensor leaves the file"
    for value in header.metadata.values():
        if isinstance(value, StringArray):
            for i, text in enumerate(value):
                assert text == value[i], "iteration and index differ"
                assert text.encode("utf-8", "surrogateescape") in data, "string is not in the file"


def fuzz(count: int, seed: int = 0, save: Path | None = None) -> dict[str, int]:
    """Runs `count` inputs; returns the number of each outcome."""
    seeds = make_seeds()
    assert all(check(each.data, len(each.data)) == "parsed" for each in seeds), "a seed is bad"
    rng = random.Random()
    outcomes: dict[str, int] = {}
    gc.freeze()  # older objects must not be collected on an input's time
    for i in range(count):
        rng.seed((seed << 40) + i)
        data = mutate(seeds, rng)
        shown_bytes = rng.randrange(len(data) + 1) if i % 8 == 0 else len(data)
        started = time.thread_time()
        try:
            outcome = check(data, shown_bytes)
            assert time.thread_time() - started < MAX_CPU_S, "takes too long"
        except BaseException:
            if save is not None:
                save.write_bytes(data)
            print(f"finding: --seed {seed}, input {i}, {shown_bytes} bytes shown", file=sys.stderr)
            raise
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes


def limit_memory() -> None:
    """Limits this process to the memory it uses now plus MAX_GROWTH_BYTES."""
    import resource

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MAX_GROWTH_BYTES,) * 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, default=Path("fuzz_gguf_finding.gguf"))
    arguments = parser.parse_args()
    if sys.platform == "linux":
        limit_memory()
    started = time.monotonic()
    outcomes = fuzz(arguments.count, arguments.seed, arguments.save)
    seconds = time.monotonic() - started
    print(
        f"{arguments.count} inputs in {seconds:.1f} s, {arguments.count / seconds:.0f} per second"
    )
    for outcome, number in sorted(outcomes.items()):
        print(f"  {outcome}: {number}")


if __name__ == "__main__":
    main()
