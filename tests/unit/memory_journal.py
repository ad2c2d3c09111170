"""A journal's storage in memory."""

import asyncio
import time

from webllm.engine.journal import Begin, Journal, Recorder


class MemoryStorage:
    """A `JournalStorage`; its dicts may be changed by tests.

    error: raised by `append`, for which nothing is written. gate: if set, `append` waits for it.
    """

    def __init__(self) -> None:
        self.strings: dict[str, bytearray] = {}
        self.changed: dict[str, float] = {}
        self.owned: set[str] = set()
        self.appends: asyncio.Queue[bytes] = asyncio.Queue()
        self.num_appending = 0
        self.num_closes = 0
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def create(self, name: str, data: bytes) -> "MemoryWriter | None":
        if name in self.strings:
            return None
        self.strings[name], self.changed[name] = bytearray(data), time.time()
        return MemoryWriter(self, name)

    async def reopen(self, name: str) -> "MemoryWriter | None":
        if name not in self.strings or name in self.owned:
            return None
        return MemoryWriter(self, name)

    async def read(self, name: str) -> bytes | None:
        return bytes(self.strings[name]) if name in self.strings else None

    async def is_owned(self, name: str) -> bool:
        return name in self.owned

    async def delete(self, name: str) -> bool:
        if name in self.owned:
            return False
        self.strings.pop(name, None)
        self.changed.pop(name, None)
        return True

    async def names(self) -> dict[str, float]:
        return dict(self.changed)


class MemoryWriter:
    def __init__(self, storage: MemoryStorage, name: str) -> None:
        self._storage, self._name = storage, name
        storage.owned.add(name)

    async def append(self, data: bytes) -> None:
        storage = self._storage
        storage.num_appending += 1
        assert storage.num_appending == 1
        assert self._name in storage.owned
        if storage.gate is not None:
            await storage.gate.wait()
        storage.num_appending -= 1
        if storage.error is not None:
            raise storage.error
        storage.strings[self._name] += data
        storage.appends.put_nowait(data)

    async def cut(self, num_bytes: int) -> None:
        del self._storage.strings[self._name][num_bytes:]

    async def close(self) -> None:
        self._storage.num_closes += 1
        self._storage.owned.discard(self._name)


async def begun(journal: Journal, begin: Begin) -> Recorder:
    """Begins a session, and waits until it is durable and old ones have expired."""
    recorder = journal.begin(begin)
    await recorder.begun()
    if journal._expiring is not None:
        await asyncio.wait([journal._expiring])
    return recorder
