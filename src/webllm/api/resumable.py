"""Sessions that can be resumed: generations that a journal keeps. WebLLM's names and shapes."""

from __future__ import annotations

from typing import Literal

from webllm.api.base import ResponseStruct

RecoveryMode = Literal["token_replay", "text_only", "none"]


class ResumableSession(ResponseStruct, rename="camel"):
    """A session in the journal; WebLLM's `ResumeProbeResult`.

    resumable: whether `resume_chat_completion` can go on, also with an answer that this engine
    generates now. recovery_mode: "token_replay" for an answer that can be continued, "text_only"
    for one that has ended. is_exact: False if what the loaded model computes now may differ in bits
    from what it computed then; None if the model is not loaded. The last two fields are ours.
    """

    session_id: str
    resumable: bool
    model_id: str
    emitted_tokens: int  # of all choices
    processed_seq_len: int  # tokens of the prompt and of the longest choice
    recovery_mode: RecoveryMode
    reason: str | None = None  # why it is not resumable
    created: int = 0  # Unix time, seconds
    is_exact: bool | None = None


class ResumeResult(ResponseStruct, rename="camel"):
    """A session's text: that in the journal, or the finished one if generation was continued.

    is_exact: see `ResumableSession`. recovered_texts: one for each choice. Both are ours.
    """

    session_id: str
    recovered_text: str  # of the first choice
    emitted_tokens: int
    processed_seq_len: int
    replayed_tokens: int  # computed once more
    recovery_mode: RecoveryMode
    recovered_texts: list[str]
    is_exact: bool | None = None
