"""Messages as bytes in a pipe: four bytes of length, lowest first, then msgpack.

Plain functions and data; reads no pipe itself.
"""

from __future__ import annotations

from typing import Any

import msgspec

_LENGTH_BYTES = 4


def frame(message: object) -> bytes:
    """Raises TypeError, ValueError or OverflowError for what is not plain data."""
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(_LENGTH_BYTES, "little") + body


class FrameReader:
    """Finds the messages in a row of bytes that arrives in any pieces."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, piece: bytes) -> list[Any]:
        """The messages that this piece completes."""
        self._bytes += piece
        messages, start = [], 0
        with memoryview(self._bytes) as view:
            while (body := self._body(view, start)) is not None:
                messages.append(msgspec.msgpack.decode(view[body]))
                start = body.stop
        del self._bytes[:start]
        return messages

    @staticmethod
    def _body(view: memoryview, start: int) -> slice | None:
        """Where the next message lies, if all of it is there."""
        body = start + _LENGTH_BYTES
        if len(view) < body:
            return None
        end = body + int.from_bytes(view[start:body], "little")
        return slice(body, end) if len(view) >= end else None
