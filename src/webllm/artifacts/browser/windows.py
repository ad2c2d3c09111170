"""Reads a Blob in windows, and prefetches the next one.

A read is a round trip through the browser's processes, which takes as long for a kilobyte as for a
megabyte; a model has hundreds of tensors.
"""

from __future__ import annotations

import asyncio
from typing import Any

from js import Uint8Array

from webllm.artifacts.browser.promises import settled

_WINDOW_BYTES = 2 << 20  # small, because browsers free memory late
_MAX_WINDOWS = 4  # tensors are read in nearly, but not exactly, the order of the file


class BlobWindows:
    """A Blob read through a few windows, each kept until newer ones replace it."""

    def __init__(self, blob: Any) -> None:
        self._blob = blob
        self._windows: dict[int, asyncio.Task[Any]] = {}  # by index, least recently used first

    async def read(self, start: int, end: int) -> Any:
        """Returns bytes `start` to `end` as a Uint8Array, a view if they lie in one window."""
        first, last = start // _WINDOW_BYTES, (end - 1) // _WINDOW_BYTES
        under_way = [self._window(index) for index in range(first, last + 1)]
        if (last + 1) * _WINDOW_BYTES < self._blob.size:
            self._window(last + 1)
        windows = [await each for each in under_way]
        while len(self._windows) > _MAX_WINDOWS:
            del self._windows[next(iter(self._windows))]
        if len(windows) == 1:
            offset = start - first * _WINDOW_BYTES
            return windows[0].subarray(offset, offset + end - start)
        return _joined(windows, start - first * _WINDOW_BYTES, end - start)

    def _window(self, index: int) -> asyncio.Task[Any]:
        task = self._windows.pop(index, None)
        if task is None:
            task = asyncio.create_task(self._read(index * _WINDOW_BYTES))
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._windows[index] = task
        return task

    async def _read(self, start: int) -> Any:
        part = self._blob.slice(start, start + _WINDOW_BYTES)
        return Uint8Array.new(await settled(part.arrayBuffer()))


def _joined(windows: list[Any], offset: int, num_bytes: int) -> Any:
    """Copies `num_bytes` out of adjacent windows, from `offset` in the first one."""
    whole = Uint8Array.new(num_bytes)
    done = 0
    for window in windows:
        piece = window.subarray(offset, offset + num_bytes - done)
        whole.set(piece, done)
        done += piece.byteLength
        offset = 0
    return whole
