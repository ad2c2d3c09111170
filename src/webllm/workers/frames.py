"""Messages as bytes in a pipe: the length in four bytes, little-endian, then a map in msgpack.

Does no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from webllm.errors import RequestError, WorkerLostError

MAX_BYTES = 1 << 28  # of one message; many times the text that any context window holds
_LENGTH_BYTES = 4
_read = msgspec.msgpack.Decoder(dict[str, Any]).decode


def frame(message: object) -> bytes:
    """Returns a message as bytes.

    Raises RequestError for a message that is too long, and TypeError, ValueError, OverflowError or
    RecursionError for one that is not plain data.
    """
    body = msgspec.msgpack.encode(message)
    if len(body) > MAX_BYTES:
        raise RequestError(
            f"a message of {len(body)} bytes is too long for a worker process; send at most "
            f"{MAX_BYTES} bytes at a time"
        )
    return len(body).to_bytes(_LENGTH_BYTES, "little") + body


class FrameReader:
    """Finds the messages in a stream of bytes that arrives in pieces of any size."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._is_broken = False

    def feed(self, piece: bytes) -> Iterator[dict[str, Any]]:
        """Yields the messages that this piece completes.

        Raises WorkerLostError for bytes that are no message. Later bytes are then ignored, because
        the start of the next message is unknown.
        """
        if self._is_broken:
            return
        self._bytes += piece
        try:
            while (body := self._next_body()) is not None:
                yield _read(body)
        except (ValueError, RecursionError) as error:
            self._is_broken = True
            self._bytes.clear()
            raise WorkerLostError(f"bytes came that are no message: {error}") from None

    def _next_body(self) -> bytearray | None:
        """Removes the next message from the bytes and returns it; None if it is incomplete."""
        if len(self._bytes) < _LENGTH_BYTES:
            return None
        num_bytes = int.from_bytes(self._bytes[:_LENGTH_BYTES], "little")
        if num_bytes > MAX_BYTES:
            raise ValueError(f"a length of {num_bytes} bytes, more than {MAX_BYTES}")
        end = _LENGTH_BYTES + num_bytes
        if len(self._bytes) < end:
            return None
        body = self._bytes[_LENGTH_BYTES:end]
        del self._bytes[:end]
        return body
