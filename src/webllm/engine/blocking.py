"""`BlockingMLCEngine`: the interface of `MLCEngine` without async, for scripts and notebooks."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, Self, TypeVar, Unpack, overload

from webllm.api.base import ResponseStruct
from webllm.api.chat_completion import ChatCompletion, ChatCompletionChunk
from webllm.api.completion import Completion
from webllm.api.embedding import CreateEmbeddingResponse
from webllm.api.fields import ChatCompletionFields, CompletionFields, EmbeddingFields
from webllm.api.requests import ChatCompletionRequest, CompletionRequest
from webllm.api.resources import ChatStream, CompletionStream
from webllm.api.resumable import ResumeResult
from webllm.config import ChatOptions, MLCEngineConfig
from webllm.engine.engine import MLCEngine
from webllm.engine.event_loop_thread import BlockingStream, ClosableItems, EventLoopThread
from webllm.errors import ConfigError

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _awaited(
    method: Callable[Concatenate[MLCEngine, _P], Coroutine[Any, Any, _T]],
) -> Callable[Concatenate[BlockingMLCEngine, _P], _T]:
    """Makes a method that waits for a coroutine method of the engine."""

    @wraps(method)
    def blocking(self: BlockingMLCEngine, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return self._thread.wait_for(method(self._engine, *args, **kwargs))

    return blocking


def _called(
    method: Callable[Concatenate[MLCEngine, _P], _T],
) -> Callable[Concatenate[BlockingMLCEngine, _P], _T]:
    """Makes a method that calls a plain method of the engine on the engine's thread."""

    @wraps(method)
    def blocking(self: BlockingMLCEngine, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return self._thread.call(method, self._engine, *args, **kwargs)

    return blocking


class BlockingMLCEngine:
    """An `MLCEngine` on an event loop in its own thread; every method waits for its result.

    Works inside a running event loop, as in Jupyter, and from several threads at once, whose
    requests then share steps. A stream is an iterator; leaving its loop, or its `close()`, ends
    the answer at once. Ctrl-C cancels the call that waits. Callbacks and logit processors run on
    the engine's thread. `with BlockingMLCEngine() as engine` closes at the end; so does dropping
    the last reference to the engine and its streams.

    engine: the engine to use, instead of a new one with `config`. Raises ConfigError for one that
    is no `MLCEngine`.
    """

    def __init__(
        self, config: MLCEngineConfig | None = None, *, engine: MLCEngine | None = None
    ) -> None:
        if engine is not None and not isinstance(engine, MLCEngine):
            raise ConfigError(
                f"engine is a {type(engine).__name__}; only an MLCEngine works without async: an "
                "engine in another process needs the event loop that made it"
            )
        self._engine = engine or MLCEngine(config)
        self._thread = EventLoopThread(self._engine.unload)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unloads and ends the thread; after that every call raises ModelNotLoadedError."""
        self._thread.close()

    @property
    def on_thread(self) -> MLCEngine:
        """The engine itself, for coroutines that `wait_for` runs on its thread."""
        return self._engine

    @property
    def chat(self) -> BlockingChat:
        return BlockingChat(self)

    @property
    def completions(self) -> BlockingCompletions:
        return BlockingCompletions(self)

    @property
    def embeddings(self) -> BlockingEmbeddings:
        return BlockingEmbeddings(self)

    def chat_completion(
        self, request: ChatCompletionRequest | Mapping[str, object]
    ) -> ChatCompletion | BlockingStream[ChatCompletionChunk]:
        """Answers a conversation; a stream if the request has `stream=True`."""
        reply: ChatCompletion | ChatStream
        reply = self._thread.wait_for(self._engine.chat_completion(request))
        return reply if isinstance(reply, ResponseStruct) else BlockingStream(self._thread, reply)

    def completion(
        self, request: CompletionRequest | Mapping[str, object]
    ) -> Completion | BlockingStream[Completion]:
        """Continues a text; a stream if the request has `stream=True`."""
        reply: Completion | CompletionStream
        reply = self._thread.wait_for(self._engine.completion(request))
        return reply if isinstance(reply, ResponseStruct) else BlockingStream(self._thread, reply)

    def resume_chat_completion(
        self,
        session_id: str,
        continue_generation: bool = False,
        stream: bool = False,
        from_token: int | list[int] | None = None,
    ) -> ResumeResult | BlockingStream[ChatCompletionChunk]:
        """Returns a session's text; or generates the rest, after loading its model if needed.

        stream: returns the chunks that follow the tokens which the caller has, `from_token` of each
        choice: `emitted_tokens` of the text. By default those that follow the text in the journal,
        which grows while the answer is being generated. A session that was begun by a text
        completion has the chunks of one. Raises SessionNotFoundError, RequestError for a wrong
        `from_token` and if another engine generates the answer, and what `reload` raises.
        """
        reply: ResumeResult | ChatStream = self._thread.wait_for(
            self._engine.resume_chat_completion(session_id, continue_generation, stream, from_token)
        )
        return reply if isinstance(reply, ResponseStruct) else BlockingStream(self._thread, reply)

    def wait_for(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Runs a coroutine on the engine's thread and returns its result."""
        return self._thread.wait_for(coroutine)

    def iterate(self, items: ClosableItems[_T]) -> BlockingStream[_T]:
        """Returns an iterator over items that are made on the engine's thread."""
        return BlockingStream(self._thread, items)

    embedding = _awaited(MLCEngine.embedding)
    reload = _awaited(MLCEngine.reload)
    unload = _awaited(MLCEngine.unload)
    reset_chat = _awaited(MLCEngine.reset_chat)
    get_message = _awaited(MLCEngine.get_message)
    runtime_stats_text = _awaited(MLCEngine.runtime_stats_text)
    forward_tokens_and_sample = _awaited(MLCEngine.forward_tokens_and_sample)
    get_gpu_vendor = _awaited(MLCEngine.get_gpu_vendor)
    get_max_storage_buffer_binding_size = _awaited(MLCEngine.get_max_storage_buffer_binding_size)
    device_name = _awaited(MLCEngine.device_name)
    session_models = _awaited(MLCEngine.session_models)
    list_resumable_sessions = _awaited(MLCEngine.list_resumable_sessions)
    delete_resumable_session = _awaited(MLCEngine.delete_resumable_session)
    delete_all_resumable_sessions = _awaited(MLCEngine.delete_all_resumable_sessions)
    engine_stats = _awaited(MLCEngine.engine_stats)
    benchmark = _awaited(MLCEngine.benchmark)

    loaded_model_ids = _called(MLCEngine.loaded_model_ids)
    has_loaded = _called(MLCEngine.has_loaded)
    interrupt_generate = _called(MLCEngine.interrupt_generate)
    set_init_progress_callback = _called(MLCEngine.set_init_progress_callback)
    get_init_progress_callback = _called(MLCEngine.get_init_progress_callback)
    set_app_config = _called(MLCEngine.set_app_config)
    set_log_level = _called(MLCEngine.set_log_level)


class BlockingChatCompletions:
    def __init__(self, engine: BlockingMLCEngine) -> None:
        self._engine = engine

    @overload
    def create(
        self, *, stream: Literal[True], **fields: Unpack[ChatCompletionFields]
    ) -> BlockingStream[ChatCompletionChunk]: ...
    @overload
    def create(
        self, *, stream: Literal[False] | None = None, **fields: Unpack[ChatCompletionFields]
    ) -> ChatCompletion: ...
    @overload
    def create(
        self, *, stream: bool | None, **fields: Unpack[ChatCompletionFields]
    ) -> ChatCompletion | BlockingStream[ChatCompletionChunk]: ...
    def create(self, **fields: object) -> ChatCompletion | BlockingStream[ChatCompletionChunk]:
        """Answers a conversation; the fields are those of `ChatCompletionRequest`."""
        return self._engine.chat_completion(fields)


class BlockingChat:
    def __init__(self, engine: BlockingMLCEngine) -> None:
        self.completions = BlockingChatCompletions(engine)


class BlockingCompletions:
    def __init__(self, engine: BlockingMLCEngine) -> None:
        self._engine = engine

    @overload
    def create(
        self, *, stream: Literal[True], **fields: Unpack[CompletionFields]
    ) -> BlockingStream[Completion]: ...
    @overload
    def create(
        self, *, stream: Literal[False] | None = None, **fields: Unpack[CompletionFields]
    ) -> Completion: ...
    @overload
    def create(
        self, *, stream: bool | None, **fields: Unpack[CompletionFields]
    ) -> Completion | BlockingStream[Completion]: ...
    def create(self, **fields: object) -> Completion | BlockingStream[Completion]:
        """Continues a text; the fields are those of `CompletionRequest`."""
        return self._engine.completion(fields)


class BlockingEmbeddings:
    def __init__(self, engine: BlockingMLCEngine) -> None:
        self._engine = engine

    def create(self, **fields: Unpack[EmbeddingFields]) -> CreateEmbeddingResponse:
        """Embeds texts; the fields are those of `EmbeddingRequest`."""
        return self._engine.embedding(fields)


def create_blocking_mlc_engine(
    model_id: str | Sequence[str],
    config: MLCEngineConfig | None = None,
    chat_options: ChatOptions | Sequence[ChatOptions] | None = None,
) -> BlockingMLCEngine:
    """Makes an engine with one or more models loaded; raises what `MLCEngine.reload` raises."""
    engine = BlockingMLCEngine(config)
    try:
        engine.reload(model_id, chat_options)
    except BaseException:
        engine.close()
        raise
    return engine
