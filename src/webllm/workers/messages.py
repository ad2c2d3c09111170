"""The worker protocol: one struct per message kind, WebLLM's (`src/message.ts`) and ours.

A request is `{kind, uuid, content}`, its answer `{kind: "return" | "throw", uuid, content}`. What
WebLLM does not have is optional, so that its clients and workers are understood: the kinds "hello"
and "abort", which carry no content because WebLLM's workers skip unknown kinds without one;
`streamId`; `error` beside the text of a "throw"; "getDeviceName", for workers whose "hello" says
that they know it. Requests and responses inside `content` stay plain data here: the engine and the
proxy read them.
"""

from __future__ import annotations

from typing import Any, TypeAlias, get_args

import msgspec
from msgspec import UNSET, Struct, UnsetType

from webllm.config import AppConfig, ChatOptions, LogLevel, read_config
from webllm.errors import ConfigError, RequestError

PROTOCOL = 2  # of what we add to WebLLM's protocol
DEVICE_NAME_SINCE = 2


class Content(Struct, kw_only=True, rename="camel", omit_defaults=True):
    """What a request carries; unknown fields are skipped."""


class ReloadParams(Content):
    model_id: list[str]
    chat_opts: list[ChatOptions] | None = None


class EngineParams(Content):
    """The models that the client expects; a worker that was restarted loads them by itself.

    None: whatever the worker has loaded. WebLLM's clients always say.
    """

    request: dict[str, Any]
    model_id: list[str] | None = None
    chat_opts: list[ChatOptions] | None = None


class StreamInitParams(EngineParams):
    """`stream_id` names the stream; without one it is the only one of its model, as in WebLLM."""

    selected_model_id: str | None = None
    stream_id: str | None = None


class NextChunkParams(Content):
    selected_model_id: str | None = None
    stream_id: str | None = None


class ModelParams(Content):
    model_id: str | None = None


class ResetChatParams(ModelParams):
    keep_stats: bool = False


class ForwardTokensAndSampleParams(ModelParams, kw_only=True):
    input_ids: list[int]
    is_prefill: bool = False


class CustomRequestParams(Content):
    request_name: str
    request_message: Any = None


class Request(Struct, kw_only=True, tag_field="kind"):
    """From a client to its worker."""

    uuid: str


class Reload(Request, kw_only=True, tag="reload"):
    content: ReloadParams


class ChatCompletionNonStreaming(Request, kw_only=True, tag="chatCompletionNonStreaming"):
    content: EngineParams


class ChatCompletionStreamInit(Request, kw_only=True, tag="chatCompletionStreamInit"):
    content: StreamInitParams


class CompletionNonStreaming(Request, kw_only=True, tag="completionNonStreaming"):
    content: EngineParams


class CompletionStreamInit(Request, kw_only=True, tag="completionStreamInit"):
    content: StreamInitParams


class CompletionStreamNextChunk(Request, kw_only=True, tag="completionStreamNextChunk"):
    """Of either kind of stream. The answer after the last chunk has no content."""

    content: NextChunkParams


class CompletionStreamReturn(Request, kw_only=True, tag="completionStreamReturn"):
    """Ends a stream of either kind that is read no further. Answered once it has ended."""

    content: NextChunkParams


class Embedding(Request, kw_only=True, tag="embedding"):
    content: EngineParams


class ForwardTokensAndSample(Request, kw_only=True, tag="forwardTokensAndSample"):
    content: ForwardTokensAndSampleParams


class RuntimeStatsText(Request, kw_only=True, tag="runtimeStatsText"):
    content: ModelParams


class GetMessage(Request, kw_only=True, tag="getMessage"):
    content: ModelParams


class ResetChat(Request, kw_only=True, tag="resetChat"):
    content: ResetChatParams


class InterruptGenerate(Request, kw_only=True, tag="interruptGenerate"):
    content: None = None


class Unload(Request, kw_only=True, tag="unload"):
    content: None = None


class GetMaxStorageBufferBindingSize(Request, kw_only=True, tag="getMaxStorageBufferBindingSize"):
    content: None = None


class GetGPUVendor(Request, kw_only=True, tag="getGPUVendor"):
    content: None = None


class SetLogLevel(Request, kw_only=True, tag="setLogLevel"):
    """Answered only if it fails."""

    content: LogLevel


class SetAppConfig(Request, kw_only=True, tag="setAppConfig"):
    """Answered only if it fails."""

    content: AppConfig


class CustomRequest(Request, kw_only=True, tag="customRequest"):
    content: CustomRequestParams


class KeepAlive(Struct, kw_only=True, tag_field="kind", tag="keepAlive"):
    """Answered with a heartbeat if it has a uuid: that of an extension's page has none."""

    uuid: str | None = None


class Hello(Request, kw_only=True, tag="hello"):
    """Ours: asks for the worker's protocol; the answer's content is a `HelloAnswer`."""

    content: None = None


class Abort(Request, kw_only=True, tag="abort"):
    """Ours: ends the request or the stream of this uuid. Not answered, nor is such a request."""

    content: None = None


class GetDeviceName(Request, kw_only=True, tag="getDeviceName"):
    """Ours, from protocol 2 on: what a loaded model runs on, as text."""

    content: ModelParams


class HelloAnswer(Content):
    protocol: int
    lock: str | None = None  # a Web Lock that the worker holds for as long as it lives


class ErrorInfo(Content):
    """An error, to be raised again on the other side."""

    name: str
    message: str
    code: str
    status: int
    field: str | None = None  # of the request that is wrong
    url: str | None = None  # of what is not as promised
    expected: str | None = None
    actual: str | None = None


class InitProgress(Content, kw_only=True):
    """WebLLM's report, and after `text` what is exact behind it."""

    progress: float
    time_elapsed: float  # seconds
    text: str
    phase: str | None = None
    loaded_bytes: int = 0
    total_bytes: int | None = None


class Answer(Struct, kw_only=True, tag_field="kind"):
    """From a worker to its client."""

    uuid: str


class Return(Answer, kw_only=True, omit_defaults=True, tag="return"):
    content: Any = UNSET


class Throw(Answer, kw_only=True, omit_defaults=True, tag="throw"):
    """`content` is the error as text, as WebLLM has it; `error` is ours."""

    content: str
    error: ErrorInfo | UnsetType = UNSET


class InitProgressCallback(Answer, kw_only=True, tag="initProgressCallback"):
    content: InitProgress


class Heartbeat(Answer, kw_only=True, tag="heartbeat"): ...


Work: TypeAlias = (
    Reload
    | ChatCompletionNonStreaming
    | ChatCompletionStreamInit
    | CompletionNonStreaming
    | CompletionStreamInit
    | CompletionStreamNextChunk
    | CompletionStreamReturn
    | Embedding
    | ForwardTokensAndSample
    | RuntimeStatsText
    | GetMessage
    | ResetChat
    | InterruptGenerate
    | Unload
    | GetMaxStorageBufferBindingSize
    | GetGPUVendor
    | SetLogLevel
    | SetAppConfig
    | CustomRequest
    | Hello
    | Abort
    | GetDeviceName
)
AnyRequest: TypeAlias = Work | KeepAlive
AnyAnswer: TypeAlias = Return | Throw | InitProgressCallback | Heartbeat


_KINDS = {kind.__struct_config__.tag for kind in get_args(AnyRequest)}
SETTINGS = ("setAppConfig", "setLogLevel")  # kinds that are never answered


def read_request(message: dict[str, Any]) -> AnyRequest:
    """Raises RequestError for a kind that is not known, and msgspec.ValidationError, caused by a
    ConfigError where a configuration is wrong.
    """
    kind = message.get("kind")
    if isinstance(kind, str) and kind not in _KINDS:
        raise RequestError(
            f"this worker knows no messages of the kind {kind!r}; use a client of its own version, "
            "or custom_request for messages of the application's"
        )
    try:
        request: AnyRequest = msgspec.convert(message, AnyRequest)
    except msgspec.ValidationError as error:
        raise error from (_config_error(message) or error.__cause__)
    return request


def _config_error(message: object) -> ConfigError | None:
    """What is wrong with the configuration in a message, if anything is."""
    try:
        match message:
            case {"kind": "setAppConfig", "content": config}:
                read_config(config, AppConfig)
            case {"content": {"chatOpts": [*options]}}:
                for each in options:
                    read_config(each, ChatOptions)
    except ConfigError as error:
        return error
    return None


def read_answer(message: object) -> AnyAnswer:
    """Raises msgspec.ValidationError."""
    answer: AnyAnswer = msgspec.convert(message, AnyAnswer)
    return answer
