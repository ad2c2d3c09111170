"""The state of a download, without I/O: what to request next, and what was received.

A file has parts of equal size, except for the last one. It is requested as one stream; if that is
slow and the server has ranges, the rest is requested in parts, several at a time. Parts that an
earlier attempt stored are kept if the server still has their version. The whole file is hashed in
order: parts that arrive early wait in memory, so they may be ahead by CONNECTIONS only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from webllm.artifacts.destination import Chunk, RemoteVersion
from webllm.artifacts.response_head import BrokenError, ChangedError, Head
from webllm.artifacts.retry import RetryPolicy
from webllm.errors import FetchError, IntegrityError

CONNECTIONS = 4
_SLOW_PART_S = 1.0  # a stream that takes longer for a part is slow
_MIN_PARALLEL_PARTS = 2  # fewer are not worth new connections


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file at a URL, with its size and hashes if they are known beforehand."""

    url: str
    sha256: str | None = None  # in hex
    size: int | None = None  # bytes
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold a token
    md5: str | None = None  # in hex; notices damage, not forgery


Part = tuple[int, list[Chunk]]  # its number and its bytes


class _Failures:
    """Attempts in a row that brought no new byte."""

    def __init__(self) -> None:
        self._num, self._furthest = 0, 0

    def count(self, position: int) -> int:
        self._num = 1 if position > self._furthest else self._num + 1
        self._furthest = max(self._furthest, position)
        return self._num


class Span:
    """Bytes of the file that are requested together and received in order.

    position: the next byte to receive; at first where a part begins. end: the byte after the last
    one; None: the stream, to the end of the file.
    """

    def __init__(self, position: int, end: int | None = None) -> None:
        self.position, self.end = position, end
        self._chunks: list[Chunk] = []  # of the part that is being received
        self._failures = _Failures()
        self._failures_of_file = _Failures()

    def add(self, chunk: Chunk, part_bytes: int) -> list[Part]:
        """Adds received bytes; returns the parts that they complete."""
        parts = []
        while (room := part_bytes - self.position % part_bytes) <= len(chunk):
            part = self.position // part_bytes
            self._chunks.append(chunk[:room])
            self.position += room
            parts.append((part, self._take()))
            chunk = chunk[room:]
        if len(chunk):
            self._chunks.append(chunk)
            self.position += len(chunk)
        return parts

    def finish(self, part_bytes: int) -> list[Part]:
        """Returns the last part of the file, unless it has `part_bytes` and was returned before."""
        return [(self.position // part_bytes, self._take())] if self._chunks else []

    def drop_unfinished(self) -> int:
        """Forgets the bytes of the part that is not complete; returns their number."""
        dropped = sum(map(len, self._take()))
        self.position -= dropped
        return dropped

    def count_failure(self, loaded: int) -> tuple[int, int]:
        """Counts one more attempt in a row, up to `loaded` bytes of the whole file.

        Returns the attempts that brought no new byte of this span, and those during which no other
        span had one either.
        """
        return self._failures.count(self.position), self._failures_of_file.count(loaded)

    def seek(self, position: int) -> None:
        """Forgets what was received; `position` is the next byte to receive."""
        self.position, self._chunks = position, []

    def _take(self) -> list[Chunk]:
        chunks, self._chunks = self._chunks, []
        return chunks


class Transfer:
    """A download of `file` in parts of `part_bytes`.

    cors: the rules of browsers apply. A header that the server does not expose reads as absent, and
    If-Range may not be sent.
    """

    def __init__(
        self, file: RemoteFile, part_bytes: int, retry: RetryPolicy, *, cors: bool = False
    ) -> None:
        self.file, self.version = file, RemoteVersion()
        self.loaded = 0  # bytes received and stored, in any order
        self.num_hashed = 0  # parts, from the first one
        self._part_bytes, self._retry, self._cors = part_bytes, retry, cors
        self._stored: set[int] = set()
        self._requested: set[int] = set()  # parts under way
        self._early: dict[int, Sequence[Chunk]] = {}  # stored parts that are not hashed yet
        self._begin_hash()
        self._stream = Span(0)  # the only one without an end: it counts its failures
        self._takes_ranges: bool | None = None  # None: unknown
        self._was_reached = False
        self._changes = 0

    @property
    def is_whole(self) -> bool:
        """Whether every part is stored and hashed."""
        size = self.version.size
        return size is not None and self.num_hashed == -(-size // self._part_bytes)

    @property
    def _resumable(self) -> bool:
        """Whether a part of this version can be told from a part of another one."""
        return self.version.identified or self._has_hash

    @property
    def _has_hash(self) -> bool:
        return self.file.sha256 is not None or self.file.md5 is not None

    @property
    def stored_bytes(self) -> int:
        return sum(map(self._size_of, self._stored))

    def recover(self, version: RemoteVersion, parts: Iterable[int]) -> None:
        """Takes over what an earlier attempt stored."""
        self.version = version
        size = version.size or 0
        self._stored = {part for part in parts if part * self._part_bytes < size}
        self.loaded = self.stored_bytes

    def restart(self, version: RemoteVersion) -> None:
        """Forgets all parts; later ones belong to `version`."""
        self.version, self.loaded, self.num_hashed = version, 0, 0
        self._stored, self._requested, self._early = set(), set(), {}
        self._begin_hash()

    def _begin_hash(self) -> None:
        self._hash = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False) if self.file.md5 else None

    def stream(self) -> Span | None:
        """Returns the rest of the file; None if parts of it are stored: then ranges are missing."""
        if len(self._stored) > self.num_hashed:
            return None
        self._stream.seek(self.num_hashed * self._part_bytes)
        return self._stream

    def next_part(self) -> Span | None:
        """Returns a part to request beside those under way; None if there is none now."""
        assert self.version.size is not None
        num_parts = -(-self.version.size // self._part_bytes)
        for part in range(self.num_hashed, min(num_parts, self.num_hashed + CONNECTIONS)):
            if part not in self._stored and part not in self._requested:
                self._requested.add(part)
                start = part * self._part_bytes
                return Span(start, start + self._size_of(part))
        return None

    def request_headers(self, span: Span) -> dict[str, str]:
        """Returns the headers of a request for the rest of `span`.

        Raises ChangedError if the answer could not be told from another version of the file.
        """
        headers = dict(self.file.headers)
        if span.position == 0 and span.end is None:
            return headers
        if not self._resumable:
            raise ChangedError
        last = "" if span.end is None else span.end - 1
        headers["Range"] = f"bytes={span.position}-{last}"
        if validator := self._validator():
            headers["If-Range"] = validator
        return headers

    def _validator(self) -> str | None:
        etag = self.version.etag
        strong = etag if etag and not etag.startswith("W/") else None
        validator = strong or self.version.last_modified  # RFC 9110, 13.1.5: no weak ETag
        usable = validator and validator.isascii() and not self._cors  # a header holds ASCII only
        return validator if usable else None

    def accept(self, span: Span, head: Head) -> RemoteVersion | None:
        """Returns None if the body continues `span`, or the version of the whole file that it is.

        Raises what `Head.check_status` raises, ChangedError if the body is neither, IntegrityError
        for a size that is not the promised one, FetchError for a body that was compressed unasked.
        """
        self._was_reached = True
        head.check_status(self.file.url)
        if head.is_encoded and not self._cors:  # a browser decodes the body
            encoding = head.headers["content-encoding"]
            raise FetchError(
                f"{self.file.url} arrives compressed as {encoding!r}, which was not requested"
            )
        start, size = head.extent()
        if head.is_part and self._cors and "content-range" not in head.headers:
            start, size = span.position, None
        version = head.version(size)
        if self.file.size is not None and size not in (None, self.file.size):
            raise self._discarded(f"the server has {size} bytes, expected {self.file.size}")
        if head.is_part:
            if start != span.position or not self._continues(version):
                raise ChangedError
        elif span.end is not None:
            raise ChangedError
        if self._takes_ranges is None:
            self._takes_ranges = head.takes_ranges
        return None if head.is_part else version

    def _continues(self, version: RemoteVersion) -> bool:
        """Returns whether a part of `version` belongs to the stored parts.

        Where either has no ETag or date, this is assumed if the hash of the whole file is known.
        """
        if version.size not in (None, self.version.size):
            return False
        if not (version.identified and self.version.identified):
            return self._has_hash
        return replace(version, size=self.version.size).same_as(self.version)

    def received(self, span: Span, chunk: Chunk) -> list[Part]:
        """Adds received bytes; returns the parts that they complete, to be stored and hashed."""
        self.loaded += len(chunk)
        size, end = self.version.size, span.position + len(chunk)
        if span.end is not None and end > span.end:
            raise ChangedError
        if size is not None and end > size:
            raise self._discarded(f"the server sends more than the {size} bytes it announced")
        return span.add(chunk, self._part_bytes)

    def ended(self, span: Span) -> list[Part]:
        """Returns the last part of a body; raises BrokenError if the body ended early."""
        end = span.end if span.end is not None else self.version.size
        if end is not None and span.position < end:
            raise BrokenError(f"the body ended after {span.position} of {end} bytes")
        self.version = replace(self.version, size=self.version.size or span.position)
        return span.finish(self._part_bytes)

    def should_split(self, span: Span, part_s: float) -> bool:
        """Returns whether the rest of a stream, whose last part took `part_s`, is for `next_part`.

        Its unfinished part is dropped then.
        """
        size = self.version.size
        if span.end is not None or not self._takes_ranges or size is None:
            return False
        left = size - self.num_hashed * self._part_bytes
        if part_s <= _SLOW_PART_S or left <= _MIN_PARALLEL_PARTS * self._part_bytes:
            return False
        self.loaded -= span.drop_unfinished()
        return True

    def failed(self, span: Span, broken: BrokenError) -> float:
        """Returns the pause before the next attempt, in seconds.

        Raises FetchError if there should be none. As long as other parts arrive there is: some
        servers refuse to send several at a time.
        """
        retry, url, asked_s = self._retry, self.file.url, broken.pause_s or 0.0
        failures, failures_of_file = span.count_failure(self.loaded)
        if asked_s > retry.max_retry_after_s:
            raise FetchError(f"{broken}: the server asks to wait {asked_s:.0f} s; try again later")
        attempts = retry.attempts if self._was_reached else retry.unreached_attempts
        if failures_of_file >= attempts:
            stored = self.stored_bytes if self._resumable else 0
            raise FetchError(
                f"{url} failed {failures_of_file} times in a row; last error: {broken}; "
                f"{stored} bytes are stored: try again to resume"
            ) from broken.__cause__
        return max(asked_s, retry.pause_s(failures))

    def changed(self) -> None:
        """Forgets all parts, because the server has another version; it is not asked for ranges.

        Raises FetchError after too many changes.
        """
        self._changes += 1
        if self._changes > self._retry.attempts:
            raise FetchError(
                f"{self.file.url} changed {self._changes} times while it was downloaded, or the "
                "server does not send what it is asked for; try again later"
            )
        self.restart(RemoteVersion())
        self._takes_ranges = False  # its parts may not even belong together

    def stored(self, part: int, chunks: Sequence[Chunk]) -> None:
        """Hashes a part that is being stored, or keeps it until those before it are hashed."""
        self._stored.add(part)
        self._requested.discard(part)
        self._early[part] = chunks
        while (next_chunks := self._early.pop(self.num_hashed, None)) is not None:
            for data in map(bytes, next_chunks):
                self._hash.update(data)
                if self._md5 is not None:
                    self._md5.update(data)
            self.num_hashed += 1

    def part_to_read(self) -> int | None:
        """Returns the part to read from the store, because it is the next one to hash."""
        return self.num_hashed if self.num_hashed in self._stored else None

    def lost(self, part: int) -> None:
        """Forgets a part that the store does not have, or not intact."""
        self._stored.discard(part)
        self.loaded -= self._size_of(part)

    def verified(self) -> str:
        """Returns the SHA-256 of the whole file in hex.

        Raises IntegrityError if its size or hash is not the promised one.
        """
        digest, size = self._hash.hexdigest(), self.version.size
        if self.file.size not in (None, size):
            raise self._discarded(f"it has {size} bytes, expected {self.file.size}")
        if self.file.sha256 not in (None, digest):
            reason = f"its SHA-256 is {digest}, expected {self.file.sha256}"
            raise self._discarded(reason, self.file.sha256, digest)
        if self._md5 is not None and (md5 := self._md5.hexdigest()) != self.file.md5:
            reason = f"its MD5 is {md5}, expected {self.file.md5}"
            raise self._discarded(reason, self.file.md5, md5)
        return digest

    def _discarded(
        self, reason: str, expected: str | None = None, actual: str | None = None
    ) -> IntegrityError:
        return IntegrityError(
            f"the download of {self.file.url} is not the expected file: {reason}; "
            "it was discarded, try again",
            self.file.url,
            expected,
            actual,
        )

    def _size_of(self, part: int) -> int:
        """Returns the bytes of a part."""
        size = self.version.size
        if size is None:
            return self._part_bytes
        return max(0, min(self._part_bytes, size - part * self._part_bytes))
