"""An event loop in its own thread, for callers that have none or must not block theirs.

Runs coroutines and async generators for other threads; knows nothing of engines.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from concurrent.futures import CancelledError, Future, wait
from threading import Thread, current_thread
from typing import Any, Final, Generic, ParamSpec, Protocol, Self, TypeVar

from webllm.errors import ModelNotLoadedError, RequestError

_P = ParamSpec("_P")
_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)

_WAKE_S = 0.25  # Windows delivers Ctrl-C only between waits


class EventLoopThread:
    """An event loop that runs in a thread until `close`, or until nobody refers to this object.

    at_end: the last coroutine that it runs. Any number of threads may use it at once.
    """

    def __init__(self, at_end: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=_run, args=(self._loop,), name="webllm", daemon=True)
        self._thread.start()
        self._end = weakref.finalize(self, _end, self._loop, self._thread, at_end)

    def wait_for(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Runs a coroutine and returns its result. Ctrl-C in the caller cancels the coroutine.

        Raises ModelNotLoadedError after `close`, and RequestError on this very thread, which would
        wait for itself.
        """
        try:
            future = self._submit(coroutine)
        except BaseException:
            coroutine.close()
            raise
        try:
            while not wait((future,), _WAKE_S).done:
                if not self._thread.is_alive():
                    raise CancelledError
            return future.result()
        except CancelledError:
            coroutine.close()  # if the event loop ended before it began
            raise _closed() from None
        except BaseException:
            future.cancel()
            raise

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on this thread."""
        return current_thread() is self._thread

    def call(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Calls a function on the event loop; callbacks that run there may use this too."""
        if self.is_current:
            return function(*args, **kwargs)

        async def call() -> _T:
            return function(*args, **kwargs)

        return self.wait_for(call())

    def close(self) -> None:
        """Ends the thread and waits for it; raises the error of `at_end`. May be repeated."""
        self._end()

    def _submit(self, coroutine: Coroutine[Any, Any, _T]) -> Future[_T]:
        if not self._end.alive:
            raise _closed()
        if self.is_current:
            raise RequestError(
                "a callback of the engine waits for the engine, which waits for the callback; "
                "ask from another thread"
            )
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:  # another thread has closed it a moment ago
            raise _closed() from None


def _closed() -> ModelNotLoadedError:
    return ModelNotLoadedError("this engine is closed; make a new one")


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    loop.close()


def _end(
    loop: asyncio.AbstractEventLoop, thread: Thread, at_end: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """Called by `close` or by the garbage collector, which may run on any thread, even this one."""

    async def finish() -> None:
        try:
            await at_end()
        finally:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await loop.shutdown_asyncgens()

    future = asyncio.run_coroutine_threadsafe(finish(), loop)
    future.add_done_callback(lambda _: loop.call_soon_threadsafe(loop.stop))
    if current_thread() is not thread:
        future.result()
        thread.join()


_END: Final = object()


class ClosableItems(Protocol[_T_co]):
    """An async generator, or an object that can be read and closed like one."""

    def __anext__(self) -> Awaitable[_T_co]: ...

    def aclose(self) -> Awaitable[None]: ...


class BlockingStream(Generic[_T], Iterator[_T]):
    """Iterates in any thread over items that come on the event loop's thread.

    `close` ends it at once, even while another thread waits for an item. Leaving its `for` loop
    ends it too, and so does dropping the last reference: asyncio closes unreferenced generators.
    """

    def __init__(self, thread: EventLoopThread, items: ClosableItems[_T]) -> None:
        self._thread = thread
        self._items = items
        self._turn = asyncio.Lock()
        self._reader: asyncio.Task[Any] | None = None
        self._is_closed = False

    def __next__(self) -> _T:
        item: _T = self._wait()
        if item is _END:
            raise StopIteration
        return item

    def __iter__(self) -> Generator[_T, None, None]:
        try:
            yield from iter(self._wait, _END)
        finally:
            if not self._thread.is_current:  # the garbage collector may run there
                self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the stream. May be repeated, also after the engine has ended."""
        try:
            self._thread.wait_for(self._close())
        except ModelNotLoadedError:
            return  # the engine has ended, and the stream with it

    def _wait(self) -> Any:
        """Returns the next item, or _END."""
        return self._thread.wait_for(self._next())

    async def _next(self) -> Any:
        async with self._turn:
            self._reader = asyncio.current_task()
            try:
                return await anext(self._items, _END)
            except asyncio.CancelledError:
                if self._is_closed:
                    return _END
                raise
            finally:
                self._reader = None

    async def _close(self) -> None:
        self._is_closed = True
        if self._reader:
            self._reader.cancel()
        async with self._turn:
            await self._items.aclose()
