"""The journal: keeps generations so that they can be resumed, also by another process.

A draw depends on seed, position and logits alone, so the request, its seed and the token ids that
were drawn are enough. They are records of an append-only byte string, one string for each session:

    u32 length, u32 CRC-32 of the payload, payload (msgpack); little endian

`Begin` is durable before the first token. `Tokens` follow in batches and `Finish` once for each
choice; what of them is lost is generated again, equal. Where the strings are kept is a storage's
business, see `JournalStorage`.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal, Protocol

import msgspec

from webllm.api.chat_completion import FinishReason
from webllm.api.validation import MAX_CHOICES
from webllm.engine.background import ignore_result, in_background
from webllm.errors import RequestError, SessionNotFoundError, WebLLMError
from webllm.host import THIS_HOST, Host
from webllm.ops.sampled import TokenLogprobs

_log = logging.getLogger(__name__)

_VERSION = 1
_HEADER = struct.Struct("<II")
_BATCH_TOKENS = 64  # of each choice; more than 200 ms have at less than 320 tokens/s
_BATCH_S = 0.2  # since the batch's first token


_Token = tuple[int, int, str, TokenLogprobs | None]  # choice, token id, text, logprobs


class Begin(msgspec.Struct, tag_field="record", tag="begin", frozen=True, kw_only=True):
    """The first record. A ValueError says which field cannot be.

    created: Unix time, seconds. request: plain data without fields that are None. prompt_ids: see
    `pack_token_ids`. model_id: the one that answers. models: plain data of all that were loaded.
    forms: the version of the kernel forms that compute the answer.
    """

    session_id: str
    created: float
    kind: Literal["chat", "completion"]
    request: dict[str, Any]
    seed: int
    prompt_ids: bytes
    model_id: str
    models: list[dict[str, Any]]
    forms: str
    version: int = _VERSION

    def __post_init__(self) -> None:
        if self.version != _VERSION:
            raise ValueError(f"version is {self.version}; this webllm reads {_VERSION}")
        if self.num_choices not in range(1, MAX_CHOICES + 1):
            raise ValueError(f"request has n={self.num_choices}; expected 1 to {MAX_CHOICES}")
        if len(self.prompt_ids) % 4:
            raise ValueError(f"prompt_ids has {len(self.prompt_ids)} bytes; expected 4 a token")

    @property
    def num_choices(self) -> int:
        num_choices: int = self.request.get("n") or 1
        return num_choices

    @property
    def prompt_token_ids(self) -> list[int]:
        return list(struct.unpack(f"<{len(self.prompt_ids) // 4}I", self.prompt_ids))


class Tokens(msgspec.Struct, tag_field="record", tag="tokens", frozen=True, omit_defaults=True):
    """What follows the earlier records of the choice. logprobs: one for each token.

    text: what these tokens made known; the rest of an unfinished character or of what may be a stop
    string is with later tokens.
    """

    choice: int
    token_ids: list[int]
    text: str
    logprobs: list[TokenLogprobs | None] | None = None

    def __post_init__(self) -> None:
        if self.logprobs is not None and len(self.logprobs) != len(self.token_ids):
            raise ValueError(f"{len(self.logprobs)} logprobs of {len(self.token_ids)} tokens")


class Finish(msgspec.Struct, tag_field="record", tag="finish", frozen=True):
    """The last record of a choice. text: what its end made known, after the text of its tokens."""

    choice: int
    reason: FinishReason
    num_output_tokens: int
    text: str = ""


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Begin | Tokens | Finish)


def pack_token_ids(token_ids: Sequence[int]) -> bytes:
    """Returns token ids as u32, little endian."""
    return struct.pack(f"<{len(token_ids)}I", *token_ids)


@dataclass(slots=True)
class RecoveredChoice:
    """What the journal has of one choice.

    logprobs: one for each token; None for one that has none. finish_reason: None if the choice did
    not end. num_output_tokens: as counted by the engine at its end; before, the tokens so far.
    """

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs | None] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    num_output_tokens: int = 0

    def apply(self, record: Tokens | Finish) -> None:
        if self.finish_reason is not None:  # tokens of steps that were in flight
            return
        if isinstance(record, Finish):
            self.finish_reason, self.num_output_tokens = record.reason, record.num_output_tokens
            self.text += record.text
            return
        self.text += record.text
        self.token_ids += record.token_ids
        self.logprobs += record.logprobs or [None] * len(record.token_ids)
        self.num_output_tokens = len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Recovered:
    """A session as the journal has it."""

    begin: Begin
    choices: list[RecoveredChoice]

    @property
    def is_finished(self) -> bool:
        """Whether every choice ended."""
        return all(choice.finish_reason is not None for choice in self.choices)

    @property
    def num_tokens(self) -> int:
        """Token ids of all choices, without the prompt's."""
        return sum(len(choice.token_ids) for choice in self.choices)


def read_journal(data: bytes) -> tuple[Recovered | None, int]:
    """Returns the session in the whole records at the start of `data`, and their bytes.

    It stops at the first record that is torn, damaged or impossible. None: there is no `Begin`.
    """
    recovered, num_good_bytes = None, 0
    for record, end in _records(data):
        if isinstance(record, Begin):
            if recovered is not None:
                break
            recovered = Recovered(record, [RecoveredChoice() for _ in range(record.num_choices)])
        elif recovered is None or record.choice not in range(recovered.begin.num_choices):
            break
        else:
            recovered.choices[record.choice].apply(record)
        num_good_bytes = end
    return recovered, num_good_bytes


def _records(data: bytes) -> Iterator[tuple[Begin | Tokens | Finish, int]]:
    """Returns each whole record and where it ends, up to the first that cannot be read."""
    start = 0
    while start + _HEADER.size <= len(data):
        num_bytes, checksum = _HEADER.unpack_from(data, start)
        start += _HEADER.size
        payload = data[start : start + num_bytes]
        if len(payload) < num_bytes or zlib.crc32(payload) != checksum:
            return
        try:
            record = _DECODER.decode(payload)
        except (ValueError, RecursionError):
            return
        start += num_bytes
        yield record, start


def _framed(record: Begin | Tokens | Finish) -> bytes:
    payload = _ENCODER.encode(record)
    return _HEADER.pack(len(payload), zlib.crc32(payload)) + payload


class Writer(Protocol):
    """The owner's hold on one byte string. Each call waits for the earlier ones."""

    async def append(self, data: bytes) -> None: ...

    async def cut(self, num_bytes: int) -> None:
        """Removes what follows the first `num_bytes` bytes."""

    async def close(self) -> None:
        """Ends the ownership; does nothing if it has ended."""


class JournalStorage(Protocol):
    """Append-only byte strings by name: 64 hexadecimal digits.

    A string has at most one owner among all processes: the one that has its `Writer`. The end of a
    process ends its ownership. A call that is cancelled leaves nothing open. Errors of the medium
    are ArtifactErrors.
    """

    async def create(self, name: str, data: bytes) -> Writer | None:
        """Writes a new string durably and owns it; returns None if the name is taken."""

    async def reopen(self, name: str) -> Writer | None:
        """Owns an existing string; returns None if there is none, or if it has an owner."""

    async def read(self, name: str) -> bytes | None: ...

    async def is_owned(self, name: str) -> bool: ...

    async def delete(self, name: str) -> bool:
        """Deletes a string unless it has an owner; returns whether there is none now."""

    async def names(self) -> Mapping[str, float]:
        """Returns the time of the last change of each string: Unix time, seconds."""


class Recorder:
    """Writes one generation to the journal, in the background and in order.

    error: the first error of the storage; after it nothing more is written. It is logged once and
    raised by `begun` alone. on_error: is called with an error after that.
    """

    def __init__(self, opening: asyncio.Future[Writer], num_choices: int = 1) -> None:
        self.error: BaseException | None = None
        self.on_error: Callable[[Exception], None] | None = None
        self._opening = opening
        self._loop = asyncio.get_running_loop()
        self._batch_tokens = _BATCH_TOKENS * num_choices
        self._batch: list[_Token] = []
        self._timer: asyncio.TimerHandle | None = None  # writes the batch
        self._unwritten = bytearray()  # framed records
        self._writing: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    async def begun(self) -> None:
        """Waits until the session's beginning is durable. Raises what `Journal.begin` raises."""
        await asyncio.wait([self._opening])
        self._opening.result()

    def token(
        self, choice: int, token_id: int, text: str, logprobs: TokenLogprobs | None = None
    ) -> None:
        """Adds a token, and the text that is known by it.

        A batch is the tokens of 200 ms, or 64 of each choice.
        """
        batch = self._batch
        batch.append((choice, token_id, text, logprobs))
        if len(batch) == 1:
            # All batches at the same time, so that a storage may write them together.
            until = _BATCH_S - self._loop.time() % _BATCH_S
            self._timer = self._loop.call_later(until, self._write_batch)
        elif len(batch) == self._batch_tokens:
            self._write_batch()

    def finish(
        self, choice: int, reason: FinishReason, num_output_tokens: int, text: str = ""
    ) -> None:
        """Ends a choice; writes it with all tokens before it. text: follows that of the tokens."""
        self._write_batch(_framed(Finish(choice, reason, num_output_tokens, text)))

    async def close(self) -> None:
        """Writes what is left and ends the ownership, even if the caller is cancelled meanwhile.

        Later tokens are not written.
        """
        if self._closing is None:
            self._write_batch()
            self._closing = self._loop.create_task(self._close())
        await asyncio.shield(self._closing)

    def _write_batch(self, last: bytes = b"") -> None:
        """Hands the batch, and a record that follows it, to the task that writes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        records = _framed_tokens(self._batch) + last
        self._batch.clear()
        if self.error is None and self._closing is None:
            self._unwritten += records
            if self._unwritten and self._writing is None:
                self._writing = self._loop.create_task(self._write())

    async def _write(self) -> None:
        await asyncio.wait([self._opening])
        if not self._has_begun:
            self.error = WebLLMError("the session could not be begun")
            self._unwritten.clear()
        try:
            while self._unwritten:
                data = bytes(self._unwritten)
                self._unwritten.clear()
                await self._opening.result().append(data)
        except Exception as error:
            self._fail(error)
        finally:
            self._writing = None

    async def _close(self) -> None:
        try:
            await asyncio.wait([self._writing or self._opening])
        except asyncio.CancelledError:
            await self._end()
            raise
        # Not in a `finally`: if the event loop was closed before, the garbage collector runs that,
        # on any thread and inside any call.
        await self._end()

    async def _end(self) -> None:
        try:
            if self._has_begun:
                await self._opening.result().close()
        except Exception as error:
            self._fail(error)

    @property
    def _has_begun(self) -> bool:
        opening = self._opening
        return opening.done() and not opening.cancelled() and opening.exception() is None

    def _fail(self, error: Exception) -> None:
        if self.error is not None:
            return
        self.error = error
        self._unwritten.clear()
        _log.warning("an answer goes on, but cannot be resumed from here on: %s", error)
        if self.on_error is not None:
            self.on_error(error)


def _framed_tokens(batch: Sequence[_Token]) -> bytes:
    """Returns one record for each choice in the batch."""
    choices: dict[int, list[_Token]] = {}
    for token in batch:
        choices.setdefault(token[0], []).append(token)
    records = b""
    for choice, tokens in choices.items():
        logprobs = [token[3] for token in tokens]
        records += _framed(
            Tokens(
                choice,
                [token[1] for token in tokens],
                "".join(token[2] for token in tokens),
                logprobs if any(each is not None for each in logprobs) else None,
            )
        )
    return records


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A session in the list; is_owned: its generation is under way."""

    recovered: Recovered
    is_owned: bool


class Journal:
    """The sessions of a storage, which other processes may use as well.

    A session expires `max_age_s` seconds after its last change, and the oldest do where there are
    more than `max_entries`; never one whose generation is under way. Damaged ones expire likewise.
    Every method raises ArtifactError if the storage cannot be read or written.
    """

    def __init__(
        self,
        storage: JournalStorage,
        max_age_s: float = 24 * 3600,
        max_entries: int = 64,
        host: Host = THIS_HOST,
    ) -> None:
        self._storage, self._host = storage, host
        self._max_age_s, self._max_entries = max_age_s, max_entries
        self._expiring: asyncio.Task[None] | None = None

    def begin(self, begin: Begin) -> Recorder:
        """Returns what records the tokens of a new session, which it writes in the background.

        `Recorder.begun` waits until the session is durable. It raises RequestError if there is a
        session of this id, StorageFullError for a full disk.
        """
        try:
            data = _framed(begin)
        except OverflowError:
            raise RequestError(
                "a resumable request has a number beyond 64 bits; use a smaller one"
            ) from None
        except UnicodeEncodeError as error:
            raise RequestError(
                f"a resumable request has text that is not Unicode: {error}"
            ) from None
        opening = asyncio.ensure_future(self._create(begin, data))
        opening.add_done_callback(ignore_result)
        return Recorder(opening, begin.num_choices)

    async def _create(self, begin: Begin, data: bytes) -> Writer:
        name = _name(begin.session_id)
        writer = await self._storage.create(name, data)
        if writer is None and await self._recovered(name) is None:
            await self._storage.delete(name)  # its process was killed before `Begin` was written
            writer = await self._storage.create(name, data)
        if writer is None:
            raise RequestError(
                f"the journal has a session {begin.session_id!r} already; resume or delete it, or "
                "choose another session_id",
                field="extra_body.resumable.session_id",
            )
        self._expire_soon()
        return writer

    async def find(self, session_id: str) -> Recovered | None:
        """Returns a session, also of a generation that is under way; None if there is none."""
        return await self._recovered(_name(session_id))

    async def reopen(self, session_id: str) -> tuple[Recovered, Recorder] | None:
        """Returns a session, and what records the tokens that follow; None if there is none.

        Raises RequestError if its generation is under way, in this or in another process.
        """
        name = _name(session_id)
        writer = await self._storage.reopen(name)
        if writer is None:
            if await self._recovered(name) is not None:
                raise _under_way(session_id)
            return None
        try:
            recovered = await self._cut(name, writer)
        except (Exception, asyncio.CancelledError):
            await writer.close()
            raise
        if recovered is None:
            await writer.close()
            return None
        opened: asyncio.Future[Writer] = asyncio.get_running_loop().create_future()
        opened.set_result(writer)
        return recovered, Recorder(opened, recovered.begin.num_choices)

    def _expire_soon(self) -> None:
        """Expires sessions in the background, once for all that begin meanwhile."""
        if self._expiring is None or self._expiring.done():
            self._expiring = asyncio.ensure_future(self._expire(self._max_entries))
            self._expiring.add_done_callback(_log_error)

    async def list(self) -> Sequence[JournalEntry]:
        """Returns all sessions, the newest first; one that cannot be read is left out."""
        await self._expire(self._max_entries)
        entries: list[JournalEntry] = []
        for name in await self._storage.names():
            try:
                is_owned = await self._storage.is_owned(name)
                recovered = await self._recovered(name)
            except WebLLMError as error:
                _log.warning("one session is not listed: %s", error)
                continue
            if recovered is not None:
                entries.append(JournalEntry(recovered, is_owned))
        return sorted(entries, key=lambda entry: entry.recovered.begin.created, reverse=True)

    async def delete(self, session_id: str) -> None:
        """Raises SessionNotFoundError, or RequestError while its generation is under way."""
        name = _name(session_id)
        if name not in await self._storage.names():
            raise SessionNotFoundError(
                f"the journal has no session {session_id!r}; it was deleted, has expired, or was "
                "not resumable"
            )
        if not await self._storage.delete(name):
            raise _under_way(session_id)

    async def delete_all(self) -> None:
        """Deletes all sessions except for those whose generation is under way."""
        for name in await self._storage.names():
            await self._storage.delete(name)

    async def _recovered(self, name: str) -> Recovered | None:
        data = await self._storage.read(name)
        if data is None:
            return None
        return (await in_background(self._host, read_journal, data))[0]

    async def _cut(self, name: str, writer: Writer) -> Recovered | None:
        """Returns an owned session, and removes what cannot be read after it."""
        data = await self._storage.read(name) or b""
        recovered, num_good_bytes = await in_background(self._host, read_journal, data)
        if num_good_bytes < len(data):
            await writer.cut(num_good_bytes)
        return recovered

    async def _expire(self, max_entries: int) -> None:
        """Deletes what has expired, and the oldest until `max_entries` are left.

        Generations under way do not count. A time in the far future is as wrong as an old one.
        """
        changed = await self._storage.names()
        now = time.time()
        expired = {name for name, time in changed.items() if abs(now - time) > self._max_age_s}
        if len(changed) > max_entries:
            ended = [name for name in changed if not await self._storage.is_owned(name)]
            ended.sort(key=changed.__getitem__)
            expired.update(ended[: max(len(ended) - max_entries, 0)])
        for name in expired:
            try:
                await self._storage.delete(name)
            except WebLLMError as error:
                _log.warning("one session has expired, but stays: %s", error)


def _log_error(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.warning("old sessions could not be deleted: %s", error)


def _name(session_id: str) -> str:
    return sha256(session_id.encode()).hexdigest()


def _under_way(session_id: str) -> RequestError:
    return RequestError(
        f"the generation of session {session_id!r} is under way; attach to it, or interrupt it and "
        "wait for its end",
        field="session_id",
    )
