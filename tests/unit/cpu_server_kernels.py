"""The kernels in another process, possibly under an emulator; see cpu_server.c."""

from __future__ import annotations

import shlex
import struct
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from webllm.artifacts.checkpoint import RawBytes
from webllm.backends.cpu.kernels import Bytes

_ALLOCATE, _WRITE, _READ, _RUN, _PACK, _DEQUANTIZE, _DESCRIBE = range(7)


class ServerMemory:
    def __init__(self, kernels: ServerKernels, address: int) -> None:
        self.kernels, self.address = kernels, address

    def write(self, offset: int, data: Bytes) -> None:
        view = memoryview(data).cast("B")
        self.kernels.call(_WRITE, self.address + offset, len(view), payload=view)

    def read(self, offset: int, num_bytes: int) -> memoryview:
        return self.kernels.call_for_bytes(self.address + offset, num_bytes)

    def close(self) -> None:
        """Does nothing: the process frees it when it ends."""


class ServerKernels:
    num_threads = 2
    is_blocking = True

    def __init__(self, command: str) -> None:
        self.isa, self.forms = command, Path(shlex.split(command)[-1]).name
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(shlex.split(command), stdin=pipe, stdout=pipe)
        self.kv_element_bytes = self.call(_DESCRIBE)

    def _send(self, command: int, *arguments: int, payload: bytes | memoryview = b"") -> None:
        assert self._process.stdin
        words = [command, *arguments, 0, 0, 0, 0][:5]
        self._process.stdin.write(struct.pack("<5Q", *words))
        self._process.stdin.write(payload)
        self._process.stdin.flush()

    def _receive(self, num_bytes: int) -> bytes:
        assert self._process.stdout
        return self._process.stdout.read(num_bytes)

    def call(self, command: int, *arguments: int, payload: bytes | memoryview = b"") -> int:
        self._send(command, *arguments, payload=payload)
        return int(struct.unpack("<Q", self._receive(8))[0])

    def call_for_bytes(self, address: int, num_bytes: int) -> memoryview:
        self._send(_READ, address, num_bytes)
        data = self._receive(num_bytes)
        self._receive(8)
        return memoryview(data)

    def allocate(self, num_bytes: int, *, filled: bool = False) -> ServerMemory:
        return ServerMemory(self, self.call(_ALLOCATE, num_bytes))

    def available_bytes(self) -> int | None:
        return None

    @contextmanager
    def source(self, data: RawBytes) -> Iterator[int]:
        assert isinstance(data, memoryview)
        memory = self.allocate(len(data))
        memory.write(0, data)
        yield memory.address

    def run(self, plan_address: int) -> None:
        self.call(_RUN, plan_address)

    def pack(self, packing_address: int) -> None:
        self.call(_PACK, packing_address)

    def dequantize(self, packing: int, out: int) -> None:
        self.call(_DEQUANTIZE, packing, out)

    def submit(self, work: Callable[[], None]) -> Future[None]:
        done: Future[None] = Future()
        work()
        done.set_result(None)
        return done

    def close(self) -> None:
        self._process.communicate()
