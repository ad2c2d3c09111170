// Made by client_types.py from src/webllm/errors.py; do not edit.

import { WebLLMError, integrityInfo } from "./error_base";
import type { ErrorInfo } from "./messages";

export class ConfigError extends WebLLMError {}
export class RequestError extends WebLLMError {}
export class ContextLengthError extends RequestError {}
export class UnknownMessageKindError extends RequestError {}
export class ModelNotFoundError extends WebLLMError {}
export class ModelNotLoadedError extends WebLLMError {}
export class ModelReplacedError extends ModelNotLoadedError {}
export class WorkerEngineModelNotLoadedError extends ModelNotLoadedError {}
export class SessionNotFoundError extends WebLLMError {}
export class QueueFullError extends WebLLMError {}
export class LogitProcessorError extends WebLLMError {}
export class UnsupportedModelError extends WebLLMError {}
export class ArtifactError extends WebLLMError {}
export class FetchError extends ArtifactError {}
export class IntegrityError extends ArtifactError {
  readonly url: string;
  readonly expected: string;
  readonly actual: string;

  /** As in WebLLM; or of what a worker says. */
  constructor(url: string, expected: string, actual: string);
  constructor(info: ErrorInfo);
  constructor(given: ErrorInfo | string, expected = "", actual = "") {
    const info = typeof given === "string" ? integrityInfo(given, expected, actual) : given;
    super(info);
    this.url = info.url ?? "";
    this.expected = info.expected ?? "";
    this.actual = info.actual ?? "";
  }
}
export class StorageFullError extends ArtifactError {}
export class CheckpointError extends ArtifactError {}
export class DeviceError extends WebLLMError {}
export class DeviceNotFoundError extends DeviceError {}
export class DeviceMemoryError extends DeviceError {}
export class FeatureSupportError extends DeviceError {}
export class ShaderF16SupportError extends FeatureSupportError {}
export class DeviceLostError extends DeviceError {}
export class TemplateError extends WebLLMError {}
export class WorkerLostError extends WebLLMError {}
export class NonWorkerEnvironmentError extends WebLLMError {}
export class NoServiceWorkerAPIError extends WebLLMError {}
export class ServiceWorkerInitializationError extends WebLLMError {}
