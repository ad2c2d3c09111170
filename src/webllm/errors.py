"""All errors that webllm raises on purpose.

    WebLLMError
    ├── ConfigError                a configuration value is wrong
    ├── RequestError               a request field is wrong; `field` names it
    │   ├── ContextLengthError     the prompt does not fit the context window
    │   └── UnknownMessageKindError  the worker knows no messages of this kind
    ├── ModelNotFoundError         no such model record, file or tensor
    ├── ModelNotLoadedError        no model is loaded, or `unload` stopped its load
    │   ├── ModelReplacedError     another client of the same engine loaded another model
    │   └── WorkerEngineModelNotLoadedError  a request to a worker's engine without a model
    ├── SessionNotFoundError       the journal has no such session
    ├── QueueFullError             too many requests are waiting; try again later
    ├── LogitProcessorError        a registered logit processor raised or returned nonsense
    ├── UnsupportedModelError      an architecture, tokenizer or tensor type we do not run
    ├── ArtifactError              a model file cannot be fetched, stored or read
    │   ├── FetchError             a download failed after its retries
    │   ├── IntegrityError         the size or hash is not the promised one
    │   ├── StorageFullError       not enough space; nothing was written
    │   └── CheckpointError        a model file is malformed or truncated
    ├── DeviceError                an adapter, driver or compiled kernel failed
    │   ├── DeviceNotFoundError    no adapter of the kind asked for
    │   ├── DeviceMemoryError      the model does not fit; refused before loading
    │   ├── FeatureSupportError    the GPU lacks a feature that the model's record requires
    │   │   └── ShaderF16SupportError  that feature is shader-f16
    │   └── DeviceLostError        the device went away while running
    ├── TemplateError              a chat template failed or asked for what it may not have
    ├── WorkerLostError            the worker with the engine ended or was closed
    ├── NonWorkerEnvironmentError  a worker's handler was made outside of a worker
    ├── NoServiceWorkerAPIError    this page may not use Service Workers
    └── ServiceWorkerInitializationError  this page has no active Service Worker

Each class has a stable `code` for programs and an HTTP `status`. A message says what was wrong, the
value received and what to do next.
"""

from __future__ import annotations

from typing import ClassVar


class WebLLMError(Exception):
    """The base class of all errors that webllm raises on purpose."""

    code = "webllm_error"
    status = 500
    fields: ClassVar[tuple[str, ...]] = ()  # attributes besides the message


class ConfigError(WebLLMError, ValueError):
    code = "invalid_config"
    status = 400


class RequestError(WebLLMError, ValueError):
    code = "invalid_request_error"
    status = 400
    fields = ("field",)

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class ContextLengthError(RequestError):
    code = "context_length_exceeded"


class UnknownMessageKindError(RequestError):
    code = "unknown_message_kind"


class ModelNotFoundError(WebLLMError, LookupError):
    code = "model_not_found"
    status = 404


class ModelNotLoadedError(WebLLMError, RuntimeError):
    code = "model_not_loaded"
    status = 409


class ModelReplacedError(ModelNotLoadedError):
    code = "model_replaced"


class WorkerEngineModelNotLoadedError(ModelNotLoadedError):
    code = "worker_model_not_loaded"


class SessionNotFoundError(WebLLMError, LookupError):
    code = "session_not_found"
    status = 404


class QueueFullError(WebLLMError):
    code = "queue_full"
    status = 429


class LogitProcessorError(WebLLMError):
    code = "logit_processor_failed"


class UnsupportedModelError(WebLLMError):
    code = "unsupported_model"
    status = 400


class ArtifactError(WebLLMError):
    code = "artifact_error"


class FetchError(ArtifactError):
    code = "fetch_failed"
    status = 502


class IntegrityError(ArtifactError):
    """The bytes are wrong; if the hashes differ, `expected` and `actual` are they.

    They are in hex, of SHA-256 or MD5, or as in `ModelRecord.integrity`: "sha256-" and base64.
    """

    code = "integrity_error"
    status = 502
    fields = ("url", "expected", "actual")

    def __init__(
        self,
        message: str,
        url: str | None = None,
        expected: str | None = None,
        actual: str | None = None,
    ) -> None:
        super().__init__(message)
        self.url, self.expected, self.actual = url, expected, actual


class StorageFullError(ArtifactError):
    code = "storage_full"
    status = 507


class CheckpointError(ArtifactError, ValueError):
    code = "invalid_checkpoint"
    status = 422


class DeviceError(WebLLMError, RuntimeError):
    code = "device_error"
    status = 503


class DeviceNotFoundError(DeviceError):
    code = "device_not_found"


class DeviceMemoryError(DeviceError):
    code = "device_out_of_memory"
    status = 507


class FeatureSupportError(DeviceError):
    code = "feature_not_supported"


class ShaderF16SupportError(FeatureSupportError):
    code = "shader_f16_not_supported"


class DeviceLostError(DeviceError):
    code = "device_lost"


class TemplateError(WebLLMError):
    code = "template_error"
    status = 400


class WorkerLostError(WebLLMError, ConnectionError):
    code = "worker_lost"
    status = 503


class NonWorkerEnvironmentError(WebLLMError, RuntimeError):
    code = "non_worker_environment"


class NoServiceWorkerAPIError(WebLLMError):
    """The page comes from neither https nor localhost, or its window is private."""

    code = "no_service_worker_api"
    status = 501


class ServiceWorkerInitializationError(WebLLMError):
    code = "service_worker_initialization_failed"
    status = 503
