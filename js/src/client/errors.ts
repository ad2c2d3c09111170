// Rebuilds the worker's errors, and creates those of the connection to it.

import * as classes from "./error_classes";
import { WebLLMError } from "./error_base";
import type { ErrorInfo, Throw } from "./messages";

export { WebLLMError };

/** WebLLM's own workers give the error's text alone. */
export function rebuild({ content, error }: Throw): WebLLMError {
  if (typeof error?.name === "string" && typeof error.message === "string") return make(error);
  return webllmError(String(content));
}

const CLASSES: Record<string, typeof WebLLMError> = { ...classes };

export function workerLost(reason: string): WebLLMError {
  const message = `the worker is lost: ${reason}; make a new engine`;
  return make({ name: "WorkerLostError", message, code: "worker_lost", status: 503 });
}

/** From a worker of another version, or of another library. */
export function unreadableAnswer(reason: string): WebLLMError {
  const hint = "use the same version of webllm in the worker";
  return webllmError(`the worker's answer cannot be read: ${reason}; ${hint}`);
}

function webllmError(message: string): WebLLMError {
  return make({ name: "WebLLMError", message, code: "webllm_error", status: 500 });
}

export function requestError(message: string): WebLLMError {
  return make({ name: "RequestError", message, code: "invalid_request_error", status: 400 });
}

export function configError(message: string): WebLLMError {
  return make({ name: "ConfigError", message, code: "invalid_config", status: 400 });
}

/** Why a browser's store failed; `store_error` in browser_blobs.py says the same in Python. */
export function storeError({ name }: DOMException): WebLLMError {
  const isFull = name === "QuotaExceededError";
  const wayOut = 'load the model without storing it: cacheBackend "none"';
  if (isFull || name === "SecurityError") {
    const message = isFull
      ? `the browser's storage for this site is full; delete a model, or ${wayOut}`
      : `the browser lets this site store nothing; allow it to store data, or ${wayOut}`;
    return make({ name: "StorageFullError", message, code: "storage_full", status: 507 });
  }
  const message = `the browser's store failed (${name}); try again, or ${wayOut}`;
  return make({ name: "ArtifactError", message, code: "artifact_error", status: 500 });
}

/** A newer worker may send error names that are unknown here. */
function make(info: ErrorInfo): WebLLMError {
  return new (CLASSES[info.name] ?? WebLLMError)(info);
}
