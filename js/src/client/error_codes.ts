// Made by client_types.py from src/webllm/errors.py; do not edit.

/** By the name of the error's class. */
export const ERROR_CODES = {
  WebLLMError: { code: "webllm_error", status: 500 },
  ConfigError: { code: "invalid_config", status: 400 },
  RequestError: { code: "invalid_request_error", status: 400 },
  ContextLengthError: { code: "context_length_exceeded", status: 400 },
  UnknownMessageKindError: { code: "unknown_message_kind", status: 400 },
  ModelNotFoundError: { code: "model_not_found", status: 404 },
  ModelNotLoadedError: { code: "model_not_loaded", status: 409 },
  ModelReplacedError: { code: "model_replaced", status: 409 },
  WorkerEngineModelNotLoadedError: { code: "worker_model_not_loaded", status: 409 },
  SessionNotFoundError: { code: "session_not_found", status: 404 },
  QueueFullError: { code: "queue_full", status: 429 },
  LogitProcessorError: { code: "logit_processor_failed", status: 500 },
  UnsupportedModelError: { code: "unsupported_model", status: 400 },
  ArtifactError: { code: "artifact_error", status: 500 },
  FetchError: { code: "fetch_failed", status: 502 },
  IntegrityError: { code: "integrity_error", status: 502 },
  StorageFullError: { code: "storage_full", status: 507 },
  CheckpointError: { code: "invalid_checkpoint", status: 422 },
  DeviceError: { code: "device_error", status: 503 },
  DeviceNotFoundError: { code: "device_not_found", status: 503 },
  DeviceMemoryError: { code: "device_out_of_memory", status: 507 },
  FeatureSupportError: { code: "feature_not_supported", status: 503 },
  ShaderF16SupportError: { code: "shader_f16_not_supported", status: 503 },
  DeviceLostError: { code: "device_lost", status: 503 },
  TemplateError: { code: "template_error", status: 400 },
  WorkerLostError: { code: "worker_lost", status: 503 },
  NonWorkerEnvironmentError: { code: "non_worker_environment", status: 500 },
  NoServiceWorkerAPIError: { code: "no_service_worker_api", status: 501 },
  ServiceWorkerInitializationError: { code: "service_worker_initialization_failed", status: 503 },
} as const;

export type ErrorName = keyof typeof ERROR_CODES;
