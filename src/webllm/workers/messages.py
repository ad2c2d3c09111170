"""The messages between an engine's clients and its worker: WebLLM's (`src/message.ts`) and ours.

A request is `{kind, uuid, content}`, its reply `{kind: "return" | "throw", uuid, content}`. This
file has the table of kinds; handler, proxy and the TypeScript client follow it.

Our additions to WebLLM's messages are optional, so that both sides also work with WebLLM's:

    "hello", "abort"    carry no content, since WebLLM's workers skip unknown kinds without one
    `since=2` and up    kinds that are sent only to workers whose reply to "hello" has this version
    `streamId`          names a stream
    `error`             is the error of a "throw" as data, beside its text

Requests and responses inside of `content` stay plain data here: engine and proxy read them.
"""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from types import NoneType
from typing import (
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    TypeAlias,
    TypeVar,
    cast,
    get_args,
    get_type_hints,
)
from uuid import uuid4

import msgspec
from msgspec import UNSET, Struct, UnsetType

from webllm.api.chat_completion import ChatCompletion
from webllm.api.completion import Completion
from webllm.api.embedding import CreateEmbeddingResponse
from webllm.api.interface import MLCEngineInterface
from webllm.api.resumable import ResumeResult
from webllm.api.stats import EngineStats
from webllm.config import AppConfig, ChatOptions, LogLevel, read_config
from webllm.error_info import ErrorInfo, describe, rebuild, rebuild_text
from webllm.errors import ConfigError, RequestError, UnknownMessageKindError, WebLLMError
from webllm.plain_data import explained, field_of, short

PROTOCOL = 3  # version of what we add to WebLLM's messages; no kind's `since` is higher
NAMED_INTERRUPTS = 3  # the first version whose `INTERRUPT` may name answers

_Content = TypeVar("_Content", bound="WireStruct")
_P = ParamSpec("_P")
_R = TypeVar("_R")


# The contents of requests and replies. Unknown fields are skipped.


class WireStruct(Struct, kw_only=True, rename="camel", omit_defaults=True):
    """Named values, in camelCase on the wire."""


class ReloadParams(WireStruct):
    model_id: list[str]
    chat_opts: list[ChatOptions] | None = None


class EngineParams(WireStruct):
    """A request, and the models that the client expects, which a restarted worker then loads.

    model_id: None stands for whatever the worker has loaded. WebLLM's clients always name models.
    """

    request: dict[str, Any]
    model_id: list[str] | None = None
    chat_opts: list[ChatOptions] | None = None


class StreamInitParams(EngineParams):
    """Begins a stream. stream_id: its name; a stream without one is the only one of its model."""

    selected_model_id: str | None = None
    stream_id: str | None = None


class StreamParams(WireStruct):
    """Names a stream that was begun."""

    selected_model_id: str | None = None
    stream_id: str | None = None


class ModelParams(WireStruct):
    model_id: str | None = None


class ResetChatParams(ModelParams):
    keep_stats: bool = False


class ForwardTokensAndSampleParams(ModelParams, kw_only=True):
    input_ids: Sequence[int]
    is_prefill: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.input_ids, Iterable):  # `checked` refuses anything else
            self.input_ids = list(self.input_ids)


class InterruptParams(WireStruct):
    """Names the answers to end, our addition; without content it is every answer of the client.

    request_ids: see `MLCEngineInterface.interrupt_generate`.
    """

    request_ids: list[str]


class SessionParams(WireStruct):
    """Names a session in the journal."""

    session_id: str


class ResumeOptions(WireStruct):
    """How a session is resumed; WebLLM's `ResumeChatCompletionOptions`."""

    continue_generation: bool | None = None  # default: only its text is returned
    stream: bool | None = None  # needs `continue_generation`
    from_token: int | list[int] | None = None  # of the stream; ours

    @property
    def is_stream(self) -> bool:
        return self.continue_generation is True and self.stream is True


class ResumeParams(WireStruct):
    session_id: str
    options: ResumeOptions | None = None


class ResumeStreamParams(ResumeParams, kw_only=True):
    """Resumes a session as a stream, which is then pulled like any other."""

    stream_id: str


class CustomRequestParams(WireStruct):
    request_name: str
    request_message: Any = None


class Greeting(WireStruct):
    """The reply to a "hello"."""

    protocol: int
    lock: str | None = None  # a Web Lock that the worker holds for as long as it lives
    gpu: bool | None = None  # whether a browser's worker has a GPU worth using
    root: str | None = None  # the folder of the files that start Python in a browser's worker


class InitProgress(WireStruct):
    """WebLLM's report; the fields after `text` are ours: the numbers behind it."""

    progress: float
    time_elapsed: float  # seconds
    text: str
    phase: str | None = None
    loaded_bytes: int = 0
    total_bytes: int | None = None


# The table of kinds.


class Request(Struct, kw_only=True):
    """From a client to its worker."""

    kind: str
    uuid: str
    content: Any = None


class KeepAlive(Struct, kw_only=True, tag_field="kind", tag="keepAlive"):
    """A keep-alive message; answered with a heartbeat if it has a uuid.

    The page of a browser extension sends none.
    """

    uuid: str | None = None


@dataclass(frozen=True, eq=False)
class Kind(Generic[_R]):
    """A kind of request. `_R` is the type of its reply's content; `object` stands for any.

    since: the first version of `PROTOCOL` that has the kind; 0 for kinds of WebLLM's. fallback: the
    result that a client returns if its worker is older. is_repeatable: a client that loses its
    worker may ask the next one.
    """

    name: str  # on the wire
    method: str | None  # of `MLCEngineInterface`
    content: Any  # its type
    result: type[_R]
    is_answered: bool = True  # False: only an error is answered
    since: int = 0
    fallback: _R | None = None
    is_repeatable: bool = False

    def request(self, content: object = None, uuid: str | None = None) -> Request:
        """Returns a request to post, with a new uuid unless one is given."""
        return Request(kind=self.name, uuid=uuid or new_uuid(), content=content)

    @cached_property
    def struct(self) -> type[Request]:
        """`Request` with this kind's content, for decoding."""
        content: Any = ("content", self.content)
        if NoneType in (self.content, *get_args(self.content)):
            content += (None,)
        return cast(type[Request], msgspec.defstruct("Request", [content], bases=(Request,)))


def new_uuid() -> str:
    return str(uuid4())


# Kinds that handler and client have code for. `EngineMessages` has all others.
RELOAD = Kind("reload", "reload", ReloadParams, NoneType)
UNLOAD = Kind("unload", "unload", NoneType, NoneType)
CHAT_COMPLETION = Kind(
    "chatCompletionNonStreaming", "chat_completion", EngineParams, ChatCompletion
)
COMPLETION = Kind("completionNonStreaming", "completion", EngineParams, Completion)
EMBEDDING = Kind("embedding", "embedding", EngineParams, CreateEmbeddingResponse)
CHAT_COMPLETION_STREAM = Kind(
    "chatCompletionStreamInit", "chat_completion", StreamInitParams, NoneType
)
COMPLETION_STREAM = Kind("completionStreamInit", "completion", StreamInitParams, NoneType)
# Asks for the next chunk of either kind of stream. The reply after the last chunk has no content.
NEXT_CHUNK = Kind("completionStreamNextChunk", None, StreamParams, object)
# Ends a stream of either kind, of which the client reads no more. The reply confirms the end.
END_STREAM = Kind("completionStreamReturn", None, StreamParams, NoneType)
INTERRUPT = Kind("interruptGenerate", "interrupt_generate", InterruptParams | None, NoneType)
SET_APP_CONFIG = Kind("setAppConfig", "set_app_config", AppConfig, NoneType, is_answered=False)
SET_LOG_LEVEL = Kind("setLogLevel", "set_log_level", LogLevel, NoneType, is_answered=False)
CUSTOM_REQUEST = Kind("customRequest", None, CustomRequestParams, object)
HELLO = Kind("hello", None, NoneType, Greeting, since=1)
# Ends the request or the stream with the same uuid. Neither gets a reply.
ABORT = Kind("abort", None, NoneType, NoneType, is_answered=False, since=1)
RESUME_CHAT_COMPLETION = Kind(
    "resumeChatCompletion", "resume_chat_completion", ResumeParams, ResumeResult
)
# The reply has no content if a stream was begun; else it is the result.
RESUME_CHAT_COMPLETION_STREAM = Kind(
    "resumeChatCompletionStreamInit",
    "resume_chat_completion",
    ResumeStreamParams,
    cast("type[ResumeResult | None]", ResumeResult | None),
)
DELETE_ALL_SESSIONS = Kind(
    "deleteAllResumableSessions", "delete_all_resumable_sessions", NoneType, NoneType, since=3
)


def _method(
    name: str,
    method: Callable[Concatenate[Any, _P], Coroutine[Any, Any, _R]],
    content: type[WireStruct] | None = None,
    *,
    since: int = 0,
    fallback: _R | None = None,
    is_repeatable: bool = False,
) -> Callable[Concatenate[EngineMessages, _P], Coroutine[Any, Any, _R]]:
    """Makes a client's method out of a message kind: it posts its arguments as the content."""
    result: type[_R] = get_type_hints(method)["return"]
    kind = Kind(
        name,
        method.__name__,
        content or NoneType,
        result,
        since=since,
        fallback=fallback,
        is_repeatable=is_repeatable,
    )
    signature = inspect.signature(method)

    @wraps(method)
    async def ask(self: EngineMessages, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        if self._protocol < since:
            return cast(_R, fallback)
        _, *arguments = signature.bind(self, *args, **kwargs).arguments.items()
        return await self._call(kind, checked(content(**dict(arguments))) if content else None)

    ask.kind = kind  # type: ignore[attr-defined]
    return ask


class EngineMessages(ABC):
    """The rest of the table: kinds that are one call of the engine's method and nothing more.

    A client defines `_call` and inherits the engine's methods from here.
    """

    @property
    @abstractmethod
    def _protocol(self) -> int:
        """The worker's version of `PROTOCOL`; 0 for a worker of WebLLM's."""

    @abstractmethod
    async def _call(self, kind: Kind[_R], content: object = None) -> _R:
        """Posts a request and returns the content of its reply."""

    reset_chat = _method("resetChat", MLCEngineInterface.reset_chat, ResetChatParams)
    get_message = _method("getMessage", MLCEngineInterface.get_message, ModelParams)
    runtime_stats_text = _method(
        "runtimeStatsText", MLCEngineInterface.runtime_stats_text, ModelParams
    )
    forward_tokens_and_sample = _method(
        "forwardTokensAndSample",
        MLCEngineInterface.forward_tokens_and_sample,
        ForwardTokensAndSampleParams,
    )
    get_gpu_vendor = _method("getGPUVendor", MLCEngineInterface.get_gpu_vendor, is_repeatable=True)
    get_max_storage_buffer_binding_size = _method(
        "getMaxStorageBufferBindingSize",
        MLCEngineInterface.get_max_storage_buffer_binding_size,
        is_repeatable=True,
    )
    list_resumable_sessions = _method(
        "listResumableSessions", MLCEngineInterface.list_resumable_sessions, is_repeatable=True
    )
    delete_resumable_session = _method(
        "deleteResumableSession", MLCEngineInterface.delete_resumable_session, SessionParams
    )
    device_name = _method(
        "getDeviceName",
        MLCEngineInterface.device_name,
        ModelParams,
        since=2,
        fallback="",
        is_repeatable=True,
    )
    engine_stats = _method(
        "getEngineStats",
        MLCEngineInterface.engine_stats,
        since=3,
        fallback=EngineStats(models=[]),
        is_repeatable=True,
    )


DELETE_SESSION: Kind[None] = cast(Any, EngineMessages.delete_resumable_session).kind

# Every kind above, by its name on the wire.
KINDS: dict[str, Kind[Any]] = {
    kind.name: kind
    for each in [*globals().values(), *vars(EngineMessages).values()]
    if isinstance(kind := getattr(each, "kind", each), Kind)
}


def read_request(message: dict[str, Any]) -> Request | KeepAlive:
    """Returns the request in a message.

    Raises UnknownMessageKindError, RequestError for wrong content, and ConfigError for a wrong
    configuration.
    """
    struct: type[Request | KeepAlive]
    match message.get("kind"):
        case "keepAlive":
            struct = KeepAlive
        case str(name) if name in KINDS:
            struct = KINDS[name].struct
        case unknown:
            raise UnknownMessageKindError(
                f"this worker knows no messages of the kind {short(unknown)}; use a client of its "
                "own version, or custom_request for messages of the application's",
                field="kind",
            )
    try:
        return msgspec.convert(message, struct)
    except msgspec.ValidationError as error:
        raise _config_error(message) or _request_error(error, message, struct) from None


def checked(content: _Content) -> _Content:
    """Returns the content of a request; raises RequestError, naming an argument of a wrong type."""
    try:
        plain = msgspec.to_builtins(content)
        msgspec.convert(plain, type(content))
    except msgspec.ValidationError as error:
        wrong = _request_error(error, plain, type(content))
        argument = re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", wrong.field or "")
        raise RequestError(str(wrong).replace(wrong.field or "", argument, 1), argument) from None
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise RequestError(f"a request is made of plain data: {error}") from None
    return content


def _request_error(error: msgspec.ValidationError, plain: object, kind: Any) -> RequestError:
    """Makes the error of a message or its content; its fields are named without "content."."""
    text, field = explained(error, plain, kind), field_of(error)
    return RequestError(text.removeprefix("content."), field.removeprefix("content."))


def _config_error(message: object) -> ConfigError | None:
    """Returns the error of the configuration in a message, if there is one."""
    try:
        match message:
            case {"kind": SET_APP_CONFIG.name, "content": config}:
                read_config(config, AppConfig)
            case {"content": {"chatOpts": [*options]}}:
                for each in options:
                    read_config(each, ChatOptions)
    except ConfigError as error:
        return error
    return None


# From a worker to its client: replies, progress and heartbeats.


class WorkerMessage(Struct, kw_only=True, tag_field="kind"):
    """From a worker to its client."""

    uuid: str


class Return(WorkerMessage, kw_only=True, omit_defaults=True, tag="return"):
    content: Any = UNSET


class Throw(WorkerMessage, kw_only=True, omit_defaults=True, tag="throw"):
    """An error. content: its text, as in WebLLM. error: its data, our addition."""

    content: str
    error: ErrorInfo | UnsetType = UNSET

    @classmethod
    def of(cls, error: Exception, uuid: str | int) -> Throw:
        """Makes the reply for an error. uuid: the request's, which may be of a wrong type."""
        info = describe(error)
        return cls(uuid=cast(str, uuid), content=f"{info.name}: {info.message}", error=info)

    def rebuilt(self) -> WebLLMError:
        """Returns the error to raise in the client."""
        if isinstance(self.error, ErrorInfo):
            return rebuild(self.error)
        return rebuild_text(self.content)


class InitProgressCallback(WorkerMessage, kw_only=True, tag="initProgressCallback"):
    content: InitProgress


class Heartbeat(WorkerMessage, kw_only=True, tag="heartbeat"): ...


AnyReply: TypeAlias = Return | Throw | InitProgressCallback | Heartbeat


def read_reply(message: object) -> AnyReply:
    """Returns the reply in a message. Raises msgspec.ValidationError."""
    reply: AnyReply = msgspec.convert(message, AnyReply)
    return reply
