"""The storage of the journal in a browser: in IndexedDB, which journal.js reads and writes.

The owner of a session holds a Web Lock; the browser releases it when the tab or worker ends. Pages
without https have no Web Locks. There a storage knows of its own sessions alone, so another tab may
take up or delete one that is being written. The one that writes second then fails, and what is
stored stays one answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from pyodide.ffi import to_js

from webllm.artifacts.browser.store import answered, stores_module
from webllm.browser_javascript import handled
from webllm.errors import ArtifactError

_T = TypeVar("_T")
_Append = tuple[str, int, bytes, asyncio.Future[None]]  # the last: when it is written
_ERRORS = {
    "deleted": "the journal of an answer was deleted while it was written; ask again to keep it",
    "taken": "another tab has taken up an answer and writes its journal; read it there",
}


class JournalDatabase:
    """A `JournalStorage` in this site's IndexedDB.

    Every method raises ConfigError without IndexedDB, StorageFullError where the site may store
    nothing more, ArtifactError for any other failure.
    """

    def __init__(self) -> None:
        self._opened: Any = None
        self._owned: set[str] = set()
        self._appends: list[_Append] = []  # asked for since the last transaction began
        self._writing: asyncio.Task[None] | None = None

    async def create(self, name: str, data: bytes) -> DatabaseWriter | None:
        """Writes a new string to the disk; returns None if there is one."""

        async def remove(writer: DatabaseWriter | None) -> None:
            if writer is not None:
                await self._delete(name)
                await writer.close()

        return await _whole(self._create(name, data), remove)

    async def reopen(self, name: str) -> DatabaseWriter | None:
        """Owns a string; returns None if there is none, or if it has an owner."""

        async def close(writer: DatabaseWriter | None) -> None:
            if writer is not None:
                await writer.close()

        return await _whole(self._reopen(name), close)

    async def read(self, name: str) -> bytes | None:
        database = await self._open()
        data = await answered(database.read(name))
        return None if data is None else data.to_bytes()

    async def is_owned(self, name: str) -> bool:
        database = await self._open()
        return name in self._owned or bool(await answered(database.isLocked(name)))

    async def delete(self, name: str) -> bool:
        """Deletes a string unless it has an owner; returns whether there is none now."""

        async def delete() -> bool:
            ownership = await self._own(name)
            if ownership is None:
                return False
            try:
                await self._delete(name)
            finally:
                await ownership.end()
            return True

        return await _whole(delete())

    async def names(self) -> dict[str, float]:
        """Returns the time of the last change of each string: Unix time, seconds."""
        database = await self._open()
        return dict((await answered(database.names())).to_py())

    async def _open(self) -> Any:
        """Returns the `JournalDatabase` of journal.js."""
        if self._opened is None:
            stores = await stores_module()
            self._opened = self._opened or stores.JournalDatabase.new()
        return self._opened

    async def _create(self, name: str, data: bytes) -> DatabaseWriter | None:
        ownership = await self._own(name)
        if ownership is None:
            return None
        try:
            database = await self._open()
            if await answered(database.create(name, to_js(data))):
                return DatabaseWriter(ownership, name, 1, self._append, self._cut)
        except BaseException:
            await ownership.end()
            raise
        await ownership.end()
        return None

    async def _reopen(self, name: str) -> DatabaseWriter | None:
        ownership = await self._own(name)
        if ownership is None:
            return None
        try:
            database = await self._open()
            next_part = await answered(database.nextPart(name))
        except BaseException:
            await ownership.end()
            raise
        if next_part is None:
            await ownership.end()
            return None
        return DatabaseWriter(ownership, name, next_part, self._append, self._cut)

    async def _delete(self, name: str) -> None:
        database = await self._open()
        await answered(database.delete(name))

    async def _cut(self, name: str, num_bytes: int) -> None:
        database = await self._open()
        await answered(database.cut(name, num_bytes))

    async def _own(self, name: str) -> _Ownership | None:
        """Returns None if another has it."""
        database = await self._open()
        if name in self._owned:
            return None
        ownership = _Ownership(database.lock(name), name, self._owned)
        self._owned.add(name)
        try:
            is_ours = await ownership.begun()
        except BaseException:
            await ownership.end()
            raise
        if is_ours:
            return ownership
        await ownership.end()
        return None

    def _append(self, name: str, part: int, data: bytes) -> asyncio.Future[None]:
        """Writes a part, in one transaction with all that are asked for together.

        What is asked for during a transaction is written by the next one.
        """
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        written.add_done_callback(lambda _: written.cancelled() or written.exception())
        self._appends.append((name, part, data, written))
        if self._writing is None:
            self._writing = asyncio.ensure_future(self._write())
        return written

    async def _write(self) -> None:
        try:
            while self._appends:
                appends, self._appends = self._appends, []
                await self._write_together(appends)
        finally:
            self._writing = None

    async def _write_together(self, appends: list[_Append]) -> None:
        try:
            database = await self._open()
            calls = to_js([(name, part, data) for name, part, data, _ in appends])
            errors = list(await answered(database.append(calls)))
        except Exception as error:
            for *_, written in appends:
                written.set_exception(error)
            return
        for (*_, written), kind in zip(appends, errors, strict=True):
            if kind:
                written.set_exception(ArtifactError(_ERRORS[kind]))
            else:
                written.set_result(None)


class DatabaseWriter:
    """The owner's hold on one string. `cut` and `close` wait for earlier appends."""

    def __init__(
        self,
        ownership: _Ownership,
        name: str,
        next_part: int,
        append: Callable[[str, int, bytes], asyncio.Future[None]],
        cut: Callable[[str, int], Awaitable[None]],
    ) -> None:
        self._ownership, self._name = ownership, name
        self._next_part = next_part
        self._append, self._cut = append, cut
        self._last: asyncio.Future[None] | None = None

    async def append(self, data: bytes) -> None:
        written = self._last = self._append(self._name, self._next_part, data)
        self._next_part += 1
        await asyncio.wait([written])
        written.result()

    async def cut(self, num_bytes: int) -> None:
        """Removes what follows the first `num_bytes` bytes."""
        await self._settle()
        await self._cut(self._name, num_bytes)

    async def close(self) -> None:
        """Ends the ownership; does nothing if it has ended."""

        async def close() -> None:
            await self._settle()
            await self._ownership.end()

        await _whole(close())

    async def _settle(self) -> None:
        if self._last is not None:
            await asyncio.wait([self._last])


class _Ownership:
    """One name among those that this storage owns, and its lock over the whole site."""

    def __init__(self, lock: Any, name: str, owned: set[str]) -> None:
        self._lock, self._name, self._owned = lock, name, owned

    async def begun(self) -> bool:
        """Returns whether it is ours."""
        return bool(await answered(self._lock.granted))

    async def end(self) -> None:
        if self._lock is None:
            return
        lock, self._lock = self._lock, None
        try:
            await answered(lock.release())
        finally:
            self._owned.discard(self._name)


async def _whole(
    work: Coroutine[Any, Any, _T], undo: Callable[[_T], Coroutine[Any, Any, None]] | None = None
) -> _T:
    """Runs `work` to its end. If the caller is cancelled meanwhile, undoes it."""
    running = handled(work)
    try:
        await asyncio.wait([running])
    except asyncio.CancelledError:
        await _ended(running)
        if undo is not None and running.exception() is None:
            await _ended(handled(undo(running.result())))
        raise
    result: _T = running.result()
    return result


async def _ended(work: asyncio.Future[Any]) -> None:
    """Waits for the end, also if it is cancelled meanwhile."""
    while not work.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([work])
