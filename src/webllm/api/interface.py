"""`MLCEngineInterface`: the methods of every engine, whether it runs here or behind a port.

The names are WebLLM's in Python spelling.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from typing import Protocol

from webllm.api.chat_completion import ChatCompletion, ChatCompletionChunk
from webllm.api.completion import Completion
from webllm.api.embedding import CreateEmbeddingResponse
from webllm.api.requests import ChatCompletionRequest, CompletionRequest, EmbeddingRequest
from webllm.api.resources import Chat, Completions, Embeddings
from webllm.api.resumable import ResumableSession, ResumeResult
from webllm.api.stats import EngineStats
from webllm.config import AppConfig, ChatOptions, InitProgressCallback, LogLevel


class MLCEngineInterface(Protocol):
    """One engine. A stream is closed early with `aclose()`, which frees its sequence at once."""

    @property
    def chat(self) -> Chat: ...

    @property
    def completions(self) -> Completions: ...

    @property
    def embeddings(self) -> Embeddings: ...

    async def chat_completion(
        self, request: ChatCompletionRequest | Mapping[str, object]
    ) -> ChatCompletion | AsyncGenerator[ChatCompletionChunk, None]:
        """Answers a conversation; a stream if the request has `stream=True`."""

    async def completion(
        self, request: CompletionRequest | Mapping[str, object]
    ) -> Completion | AsyncGenerator[Completion, None]:
        """Continues a text; a stream if the request has `stream=True`."""

    async def embedding(
        self, request: EmbeddingRequest | Mapping[str, object]
    ) -> CreateEmbeddingResponse:
        """Embeds texts."""

    async def reload(
        self,
        model_id: str | Sequence[str],
        chat_options: ChatOptions | Sequence[ChatOptions] | None = None,
        *,
        on_progress: InitProgressCallback | None = None,
    ) -> None:
        """Unloads what is loaded, then fetches and loads one or more models.

        on_progress: called with the progress of this load, besides the callback that
        `set_init_progress_callback` sets for all.
        """

    async def unload(self) -> None:
        """Stops every `reload` called before, ends every answer and frees the device."""

    def loaded_model_ids(self) -> list[str]:
        """Returns the ids that a request's `model` may name."""

    def has_loaded(
        self,
        model_id: str | Sequence[str],
        chat_options: ChatOptions | Sequence[ChatOptions] | None = None,
    ) -> bool:
        """Whether exactly these models are loaded, with these options and the current catalogue."""

    def interrupt_generate(self, request_ids: Collection[str] | None = None) -> None:
        """Ends answers under way with finish_reason "abort": all, or those of these requests.

        request_ids: each request's `extra_body.request_id`, or its response's id.
        """

    async def list_resumable_sessions(self) -> list[ResumableSession]:
        """Returns the sessions in the journal, the newest first."""

    async def resume_chat_completion(
        self,
        session_id: str,
        continue_generation: bool = False,
        stream: bool = False,
        from_token: int | list[int] | None = None,
    ) -> ResumeResult | AsyncGenerator[ChatCompletionChunk, None]:
        """Returns a session's text; or generates the rest, after loading its model if needed.

        stream: returns the chunks that follow the tokens which the caller has, `from_token` of each
        choice: `emitted_tokens` of the text. By default those that follow the text in the journal,
        which grows while the answer is being generated.
        """

    async def delete_resumable_session(self, session_id: str) -> None:
        """Removes a session from the journal. Raises SessionNotFoundError."""

    async def delete_all_resumable_sessions(self) -> None:
        """Empties the journal, except for the sessions whose generation is under way."""

    async def reset_chat(self, keep_stats: bool = False, model_id: str | None = None) -> None:
        """Forgets the last answer, forwarded tokens and, unless they are kept, the statistics."""

    async def get_message(self, model_id: str | None = None) -> str:
        """Returns the text of the last answer."""

    async def runtime_stats_text(self, model_id: str | None = None) -> str:
        """Returns the rates of the last answer, in WebLLM's words."""

    async def forward_tokens_and_sample(
        self, input_ids: Sequence[int], is_prefill: bool, model_id: str | None = None
    ) -> int:
        """Appends tokens to those forwarded since the last reset, and samples the next one."""

    async def device_name(self, model_id: str | None = None) -> str:
        """Returns a readable name of a model's device; "" from a worker too old to tell."""

    async def engine_stats(self) -> EngineStats:
        """Returns each loaded model's sequences and free blocks; nothing from an older worker."""

    async def get_gpu_vendor(self) -> str:
        """Returns the vendor of the GPU, or fails with DeviceNotFoundError."""

    async def get_max_storage_buffer_binding_size(self) -> int:
        """Returns the largest binding of the same GPU, in bytes."""

    def set_init_progress_callback(self, callback: InitProgressCallback | None) -> None:
        """Sets the callback that receives the progress of every later load."""

    def get_init_progress_callback(self) -> InitProgressCallback | None: ...

    def set_app_config(self, app_config: AppConfig) -> None:
        """Sets the catalogue from the next `reload` on."""

    def set_log_level(self, log_level: LogLevel) -> None:
        """Sets the level of the logger "webllm"; raises ConfigError for an unknown level."""
