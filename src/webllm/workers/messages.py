"""The messages between an engine's clients and its worker: WebLLM's (`src/message.ts`) and ours.

A request is `{kind, uuid, content}`, its reply `{kind: "return" | "throw", uuid, content}`. The
table of kinds is here, each kind once; handler, proxy and the TypeScript client are made from it.
What WebLLM does not have is optional, so that its clients and workers are understood: the kinds
"hello" and "abort", which carry no content because WebLLM's workers skip unknown kinds without
one; `streamId`; `error` beside the text of a "throw"; "getDeviceName", for workers whose reply to
"hello" says that they know it. The requests and responses inside of `content` stay plain data
here: the engine and the proxy read them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from types import NoneType
from typing import Any, Concatenate, Generic, ParamSpec, TypeAlias, TypeVar, cast, get_type_hints
from uuid import uuid4

import msgspec
from msgspec import UNSET, Struct, UnsetType

from webllm.api.chat_completion import ChatCompletion
from webllm.api.completion import Completion
from webllm.api.embedding import CreateEmbeddingResponse
from webllm.api.interface import MLCEngineInterface
from webllm.config import AppConfig, ChatOptions, LogLevel, read_config
from webllm.error_info import ErrorInfo, describe, rebuild, rebuild_text
from webllm.errors import ConfigError, RequestError, WebLLMError

PROTOCOL = 2  # version of what we add to WebLLM's messages

_P = ParamSpec("_P")
_R = TypeVar("_R")


# Contents. Requests and replies carry one, or nothing; unknown fields are skipped.


class WireStruct(Struct, kw_only=True, rename="camel", omit_defaults=True):
    """Named values, in camelCase on the wire."""


class ReloadParams(WireStruct):
    model_id: list[str]
    chat_opts: list[ChatOptions] | None = None


class EngineParams(WireStruct):
    """A request, and the models that the client expects: a worker that was restarted loads them.

    `model_id` None stands for whatever the worker has loaded. WebLLM's clients always name models.
    """

    request: dict[str, Any]
    model_id: list[str] | None = None
    chat_opts: list[ChatOptions] | None = None


class StreamInitParams(EngineParams):
    """`stream_id` names the stream; without one it is the only one of its model, as in WebLLM."""

    selected_model_id: str | None = None
    stream_id: str | None = None


class StreamParams(WireStruct):
    """A stream that was begun."""

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
        self.input_ids = list(self.input_ids)


class CustomRequestParams(WireStruct):
    request_name: str
    request_message: Any = None


class Greeting(WireStruct):
    """The reply to a "hello"."""

    protocol: int
    lock: str | None = None  # a Web Lock that the worker holds for as long as it lives


class InitProgress(WireStruct):
    """WebLLM's report, and after `text` the exact numbers behind it."""

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
    """The reply is a heartbeat if there is a uuid: an extension's page sends none."""

    uuid: str | None = None


@dataclass(frozen=True, eq=False)
class Kind(Generic[_R]):
    """A kind of request. `_R` is the type of its reply's content, `object` if any is possible.

    `since` is the version of our additions from which on workers know the kind; 0: WebLLM's do.
    `otherwise` is the result in front of an older worker.
    """

    name: str  # on the wire
    method: str | None  # of `MLCEngineInterface`
    content: Any  # its type
    result: type[_R]
    is_answered: bool = True  # also if all goes well
    since: int = 0
    otherwise: _R | None = None

    def request(self, content: object = None, uuid: str | None = None) -> Request:
        """Returns a request to post, with a new uuid unless one is given."""
        return Request(kind=self.name, uuid=uuid or new_uuid(), content=content)

    @cached_property
    def struct(self) -> type[Request]:
        """`Request` with this kind's content, for decoding."""
        content: Any = ("content", self.content)
        if self.content is NoneType:
            content += (None,)
        return cast(type[Request], msgspec.defstruct("Request", [content], bases=(Request,)))


def new_uuid() -> str:
    return str(uuid4())


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
# Of either kind of stream. The reply after the last chunk has no content.
NEXT_CHUNK = Kind("completionStreamNextChunk", None, StreamParams, object)
# Ends a stream of either kind that is read no further. The reply says that it has ended.
END_STREAM = Kind("completionStreamReturn", None, StreamParams, NoneType)
INTERRUPT = Kind("interruptGenerate", "interrupt_generate", NoneType, NoneType)
SET_APP_CONFIG = Kind("setAppConfig", "set_app_config", AppConfig, NoneType, is_answered=False)
SET_LOG_LEVEL = Kind("setLogLevel", "set_log_level", LogLevel, NoneType, is_answered=False)
CUSTOM_REQUEST = Kind("customRequest", None, CustomRequestParams, object)
HELLO = Kind("hello", None, NoneType, Greeting, since=1)
# Ends the request or the stream of this uuid. There is no reply to it, nor to such a request.
ABORT = Kind("abort", None, NoneType, NoneType, is_answered=False, since=1)
# WebLLM's sessions that a page resumes after it was closed; this worker keeps none.
LIST_SESSIONS = Kind("listResumableSessions", None, object, object)
RESUME_CHAT_COMPLETION = Kind("resumeChatCompletion", None, object, object)
RESUME_CHAT_COMPLETION_STREAM = Kind("resumeChatCompletionStreamInit", None, object, object)
DELETE_SESSION = Kind("deleteResumableSession", None, object, object)


def _asked(
    name: str,
    method: Callable[Concatenate[Any, _P], Coroutine[Any, Any, _R]],
    content: type[WireStruct] | None = None,
    *,
    since: int = 0,
    otherwise: _R | None = None,
) -> Callable[Concatenate[EngineMessages, _P], Coroutine[Any, Any, _R]]:
    """Makes a method of the engine of one message, whose content has the method's parameters."""
    result: type[_R] = get_type_hints(method)["return"]
    kind = Kind(
        name, method.__name__, content or NoneType, result, since=since, otherwise=otherwise
    )
    signature = inspect.signature(method)

    @wraps(method)
    async def ask(self: EngineMessages, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        if self._protocol < since:
            return cast(_R, otherwise)
        _, *arguments = signature.bind(self, *args, **kwargs).arguments.items()
        return await self._call(kind, content(**dict(arguments)) if content else None)

    ask.kind = kind  # type: ignore[attr-defined]
    return ask


class EngineMessages:
    """The rest of the table: the kinds that the handler hands to the engine as they are.

    A client that can `_call` inherits the engine's methods from here.
    """

    @property
    def _protocol(self) -> int:
        """The version of our additions that the worker knows; 0: a worker of WebLLM's."""
        raise NotImplementedError

    async def _call(self, kind: Kind[_R], content: object = None) -> _R:
        """Posts a request and returns the content of its reply."""
        raise NotImplementedError

    reset_chat = _asked("resetChat", MLCEngineInterface.reset_chat, ResetChatParams)
    get_message = _asked("getMessage", MLCEngineInterface.get_message, ModelParams)
    runtime_stats_text = _asked(
        "runtimeStatsText", MLCEngineInterface.runtime_stats_text, ModelParams
    )
    forward_tokens_and_sample = _asked(
        "forwardTokensAndSample",
        MLCEngineInterface.forward_tokens_and_sample,
        ForwardTokensAndSampleParams,
    )
    get_gpu_vendor = _asked("getGPUVendor", MLCEngineInterface.get_gpu_vendor)
    get_max_storage_buffer_binding_size = _asked(
        "getMaxStorageBufferBindingSize", MLCEngineInterface.get_max_storage_buffer_binding_size
    )
    device_name = _asked(
        "getDeviceName", MLCEngineInterface.device_name, ModelParams, since=2, otherwise=""
    )


KINDS: dict[str, Kind[Any]] = {
    kind.name: kind
    for each in [*globals().values(), *vars(EngineMessages).values()]
    if isinstance(kind := getattr(each, "kind", each), Kind)
}


def read_request(message: dict[str, Any]) -> Request | KeepAlive:
    """Raises RequestError for an unknown kind, and msgspec.ValidationError, caused by a ConfigError
    where a configuration is wrong.
    """
    name = message.get("kind")
    if name == "keepAlive":
        return msgspec.convert(message, KeepAlive)
    if isinstance(name, str) and name not in KINDS:
        raise RequestError(
            f"this worker knows no messages of the kind {name!r}; use a client of its own version, "
            "or custom_request for messages of the application's"
        )
    try:
        return msgspec.convert(message, KINDS[name].struct if isinstance(name, str) else Request)
    except msgspec.ValidationError as error:
        raise error from (_config_error(message) or error.__cause__)


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


# Replies, and what else a worker says to its client.


class WorkerMessage(Struct, kw_only=True, tag_field="kind"):
    """From a worker to its client."""

    uuid: str


class Return(WorkerMessage, kw_only=True, omit_defaults=True, tag="return"):
    content: Any = UNSET


class Throw(WorkerMessage, kw_only=True, omit_defaults=True, tag="throw"):
    """`content` is the error as text, as WebLLM has it; `error` is ours."""

    content: str
    error: ErrorInfo | UnsetType = UNSET

    @classmethod
    def of(cls, error: Exception, uuid: str | int) -> Throw:
        """Makes the reply for an error. `uuid` is the request's as it came, even if no text."""
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
    """Raises msgspec.ValidationError."""
    reply: AnyReply = msgspec.convert(message, AnyReply)
    return reply
