"""The protocol of a journal's storage. It imports webllm alone, so that it also runs in a page."""

from __future__ import annotations

import asyncio
import time

from webllm.engine.journal import JournalStorage

NAME = "0" * 64


async def check(storage: JournalStorage) -> None:
    """Uses an empty storage, and leaves it empty."""
    assert await storage.names() == {}
    assert await storage.read(NAME) is None
    assert await storage.reopen(NAME) is None
    assert not await storage.is_owned(NAME)
    assert await storage.delete(NAME)

    before = time.time()
    writer = await storage.create(NAME, b"begin,")
    assert writer is not None
    await writer.append(b"one,")
    await asyncio.gather(*(writer.append(f"{number},".encode()) for number in range(20)))
    whole = b"begin,one," + b"".join(f"{number},".encode() for number in range(20))
    assert await storage.read(NAME) == whole
    ((name, changed),) = (await storage.names()).items()
    assert name == NAME
    assert before - 1 < changed < time.time() + 1

    assert await storage.create(NAME, b"again") is None
    assert await storage.is_owned(NAME)
    assert await storage.reopen(NAME) is None
    assert not await storage.delete(NAME)
    await writer.close()
    await writer.close()

    assert not await storage.is_owned(NAME)
    assert await storage.create(NAME, b"again") is None
    writer = await storage.reopen(NAME)
    assert writer is not None
    assert await storage.is_owned(NAME)
    await writer.cut(8)
    assert await storage.read(NAME) == b"begin,on"
    await writer.append(b"two")
    await writer.cut(6)
    await writer.append(b"two")
    await writer.close()
    assert await storage.read(NAME) == b"begin,two"
    assert await storage.delete(NAME)
    assert await storage.names() == {}
