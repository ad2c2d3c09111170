"""Keeps generations in the journal, and takes them up again."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from webllm.api.requests import ChatCompletionRequest, ExtraBody, GenerationParams, Resumable
from webllm.api.resumable import ResumableSession, ResumeResult
from webllm.api.validation import chat_completion_request, check_resumable, completion_request
from webllm.config import ChatOptions, ModelRecord
from webllm.engine.generation import Generation, identity
from webllm.engine.generations import check_model, check_same, resumable
from webllm.engine.journal import (
    Begin,
    Journal,
    JournalEntry,
    Recorder,
    Recovered,
    pack_token_ids,
)
from webllm.errors import ArtifactError, ConfigError, WebLLMError
from webllm.host import Host

_log = logging.getLogger(__name__)


class LoadedRecord(msgspec.Struct, frozen=True):
    """A model that is loaded, and the options given to `reload`."""

    record: ModelRecord
    options: ChatOptions

    @property
    def model_id(self) -> str:
        return self.record.model_id


class SessionJournal:
    """The journal, for one generation by the models that are loaded.

    written: waits until the journal has what generations of this engine wrote that have ended.
    """

    def __init__(
        self,
        journal: Journal,
        models: Sequence[LoadedRecord],
        written: Callable[[], Awaitable[None]],
    ) -> None:
        self._journal = journal
        self._models = models
        self._written = written
        self._has_failed = False

    async def reopen(self, generation: Generation) -> Recovered | None:
        """Returns what the journal has of a generation, which it records from now on.

        Returns None if it has nothing. Raises RequestError if it has another request under this id,
        or if another process generates it.
        """
        await self._written()
        try:
            found = await self._journal.reopen(generation.id)
        except WebLLMError as error:
            if not self._goes_on(generation, error):
                raise
            return None
        if found is None:
            return None
        past, generation.recorder = found
        check_same(identity(generation.request), request_of(past.begin), generation.id)
        check_model(generation.model_id, past.begin.model_id, generation.id)
        if _is_strict(generation.request):
            generation.recorder.on_error = generation.fail
        return past

    def begin(
        self, generation: Generation, request: GenerationParams, prompt_ids: Sequence[int]
    ) -> None:
        """Records a request, in the background: readers get nothing before it is durable.

        If that fails, the answer is not resumable; with `strict_persistence` it fails too.
        """
        if self._has_failed:
            return
        assert request.seed is not None
        begin = Begin(
            session_id=generation.id,
            created=time.time(),
            kind="chat" if isinstance(request, ChatCompletionRequest) else "completion",
            request=msgspec.to_builtins(identity(generation.request)),
            seed=request.seed,
            prompt_ids=pack_token_ids(prompt_ids),
            model_id=generation.model_id,
            models=[msgspec.to_builtins(model) for model in self._models],
            forms=generation.fingerprint,
        )
        recorder = generation.recorder = self._journal.begin(begin)
        if _is_strict(generation.request):
            recorder.on_error = generation.fail
        generation.hold(self._begun(generation, recorder))

    async def _begun(self, generation: Generation, recorder: Recorder) -> None:
        try:
            await recorder.begun()
        except WebLLMError as error:
            if not self._goes_on(generation, error):
                generation.fail(error)

    def _goes_on(self, generation: Generation, error: WebLLMError) -> bool:
        """Whether the answer goes on, without the journal, after this error."""
        is_of_storage = isinstance(error, ArtifactError | ConfigError)
        if not is_of_storage or _is_strict(generation.request):
            return False
        self._has_failed = True
        _log.warning("the answer %s cannot be resumed: %s", generation.id, error)
        return True


def _is_strict(request: GenerationParams) -> bool:
    wanted = resumable(request)
    return wanted is not None and wanted.strict_persistence is True


def request_of(begin: Begin) -> GenerationParams:
    """Returns the request in the journal, without its model and the way it was answered."""
    read = chat_completion_request if begin.kind == "chat" else completion_request
    return read(begin.request)


def models_of(begin: Begin) -> list[LoadedRecord]:
    """Returns the models that were loaded when a session began. Raises ArtifactError."""
    try:
        return msgspec.convert(begin.models, list[LoadedRecord])
    except msgspec.ValidationError as error:
        raise ArtifactError(
            f"the session {begin.session_id!r} was begun by another version of webllm, whose "
            f"models cannot be read ({error}); delete the session and ask again"
        ) from None


def resuming_request(
    past: Recovered, stream: bool, from_token: int | list[int] | None
) -> GenerationParams:
    """Returns the request that attaches to a session, for what follows `from_token`.

    By default for what follows the text in the journal. Raises RequestError.
    """
    begin = past.begin
    if stream and from_token is None:
        from_token = [len(choice.token_ids) for choice in past.choices]
    wanted = Resumable(session_id=begin.session_id, from_token=from_token)
    check_resumable(wanted, stream)
    request = request_of(begin)
    extra = msgspec.structs.replace(request.extra_body or ExtraBody(), resumable=wanted)
    return msgspec.structs.replace(
        request, model=begin.model_id, stream=stream or None, extra_body=extra
    )


def session_info(entry: JournalEntry, is_here: bool, is_exact: bool | None) -> ResumableSession:
    """Describes a session. is_here: this engine generates its answer, so that one may attach."""
    past = entry.recovered
    reason = "its answer has ended" if past.is_finished else None
    if entry.is_owned:
        reason = None if is_here else "another engine generates its answer"
    return ResumableSession(
        session_id=past.begin.session_id,
        resumable=reason is None,
        model_id=past.begin.model_id,
        emitted_tokens=past.num_tokens,
        processed_seq_len=_num_positions(past),
        recovery_mode="text_only" if past.is_finished else "token_replay",
        reason=reason,
        created=int(past.begin.created),
        is_exact=is_exact,
    )


def recovered_result(past: Recovered, is_exact: bool | None) -> ResumeResult:
    """Returns the text in the journal, without generating more."""
    texts = [choice.text for choice in past.choices]
    return ResumeResult(
        session_id=past.begin.session_id,
        recovered_text=texts[0],
        recovered_texts=texts,
        emitted_tokens=past.num_tokens,
        processed_seq_len=_num_positions(past),
        replayed_tokens=0,
        recovery_mode="text_only",
        is_exact=is_exact,
    )


def finished_result(past: Recovered, generation: Generation) -> ResumeResult:
    """Returns the whole text of a generation that went on from the journal and has ended."""
    texts = [output.text for output in generation.outputs]
    counts = generation.num_tokens
    return ResumeResult(
        session_id=generation.id,
        recovered_text=texts[0],
        recovered_texts=texts,
        emitted_tokens=sum(counts),
        processed_seq_len=len(past.begin.prompt_token_ids) + max(counts),
        replayed_tokens=0 if past.is_finished else past.num_tokens,
        recovery_mode="text_only" if past.is_finished else "token_replay",
        is_exact=generation.fingerprint == past.begin.forms,
    )


def default_journal(host: Host) -> Journal:
    """Returns the journal of this user's engines; in a browser, of this site's."""
    if host.is_browser:
        from webllm.artifacts.browser.journal import JournalDatabase

        return Journal(JournalDatabase())
    from webllm.artifacts.journal_files import JournalFiles

    return Journal(JournalFiles())


def _num_positions(past: Recovered) -> int:
    longest = max(len(choice.token_ids) for choice in past.choices)
    return len(past.begin.prompt_token_ids) + longest
